"""Gate 4: what a server's answers must be, and what the artifact says of them."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import serving_world
from tfx.components.pusher.executor import Executor as StockPusher
from tfx.proto import pusher_pb2
from tfx.types import standard_artifacts
from tfx.utils import proto_utils

from evergreen.components.artifacts import QuantizationReport
from evergreen.components.model_server import compare
from evergreen.components.serving_validator import executor, validation
from evergreen.components.serving_validator.replay import Lite
from evergreen.components.serving_validator.report import asked, line
from evergreen.components.serving_validator.settings import ServingSettings

pytestmark = pytest.mark.tensorflow

ROWS = 40
SETTINGS = ServingSettings(rows=12, seconds=180)


def answers() -> np.ndarray:
    """What the model answers: 2 x, and 1 more where the word is `more`; a row without x is 0."""
    return np.array([2.0 * (row if row % 10 else 0) + (row % 3 == 0) for row in range(ROWS)])


def save(folder: Path) -> None:
    """A SavedModel as our Trainer writes them, with a signature more that no row fits."""
    import tensorflow as tf

    class Model(tf.Module):
        @tf.function(
            input_signature=[tf.TensorSpec([None, 1], tf.float32, "x"), tf.TensorSpec([None, 1], tf.string, "word")]
        )
        def predict_raw(self, x, word):
            number = tf.where(tf.math.is_nan(x), 0.0, x)
            return {"predictions": 2 * number + tf.cast(word == "more", tf.float32)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "examples")])
        def serving_default(self, examples):
            spec = {"x": tf.io.FixedLenFeature([1], tf.float32, np.nan), "word": tf.io.FixedLenFeature([1], tf.string)}
            return self.predict_raw(**tf.io.parse_example(examples, spec))

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "examples")])
        def transform_features(self, examples):
            spec = {"x": tf.io.FixedLenFeature([1], tf.float32, 0.0)}
            return {"x": tf.io.parse_example(examples, spec)["x"] / 10}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "hidden")])
        def inner(self, hidden):
            return {"y": hidden}

    model = Model()
    names = ("serving_default", "predict_raw", "transform_features", "inner")
    tf.saved_model.save(model, str(folder), signatures={name: getattr(model, name) for name in names})


def save_lite(folder: Path) -> None:
    """A TFLite variant over the transformed feature: right but for the words."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32, "x")])
    def predict(x):
        return {"predictions": x * 20}

    module = tf.Module()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([predict.get_concrete_function()], module)
    folder.mkdir(parents=True)
    (folder / "model.tflite").write_bytes(converter.convert())


@pytest.fixture(scope="module")
def world(build_once) -> Path:
    def build(folder: Path) -> None:
        import tensorflow as tf

        save(folder / "model" / "Format-Serving")
        save_lite(folder / "lite" / "Format-Serving")
        split = folder / "examples" / "Split-exam"
        split.mkdir(parents=True)
        with tf.io.TFRecordWriter(str(split / "data-00000-of-00001.gz"), "GZIP") as writer:
            for row in range(ROWS):
                features: dict[str, float | str] = {"word": "less" if row % 3 else "more"}
                if row % 10:
                    features["x"] = float(row)
                writer.write(serving_world.example(**features))
        (folder / "evaluation").mkdir()
        table = {"split": ["exam"] * ROWS, "row": range(ROWS), "prediction": answers()}
        pq.write_table(pa.table(table), folder / "evaluation" / "predictions.parquet")

    return build_once("serving_validator", build)


def inputs(world: Path, **others) -> validation.Inputs:
    given = validation.Inputs(
        str(world / "model" / "Format-Serving"), str(world / "examples"), str(world / "evaluation"), None
    )
    return dataclasses.replace(given, **others)


def test_a_sound_model_passes_with_every_signature_and_its_variant(world):
    lite = Lite(str(world / "lite" / "Format-Serving"), "float16", raw=False, difference=1.0)
    result, log = validation.validate(inputs(world, lite=lite), SETTINGS)
    assert (result["passed"], result["reasons"]) == (True, [])
    assert result["notes"] == ["the signature `inner` was not asked: its inputs are not features of the rows"]
    model, variant = result["models"]
    found = {(one["signature"], one["api"]): one for one in model["signatures"]}
    assert set(found) == {
        (name, api) for name in ("serving_default", "predict_raw", "transform_features") for api in ("gRPC", "REST")
    }
    timed = found["serving_default", "REST"]
    assert (timed["compared"], timed["calls"]) == ("the Trainer's model", 12)
    assert 0 < timed["p50_ms"] <= timed["p99_ms"]
    assert found["predict_raw", "gRPC"]["largest_difference"] < 1e-5
    assert found["transform_features", "REST"]["compared"] == "gRPC"
    assert variant["model"] == "TFLite float16"
    assert variant["signatures"][0]["largest_difference"] == 1.0
    assert 0 < result["load_s"] < result["start_s"]
    assert result["peak_bytes"] > 50e6
    assert "candidate" in log
    assert line(result).startswith("built-in, 12 rows, p50 ")
    assert line(result).endswith("TFLite float16 answers too")


def test_an_infinite_answer_is_refused_with_a_report_that_is_json():
    exam, answer = {"predictions": np.ones(2)}, {"predictions": np.array([1.0, np.inf])}
    (sentence,) = compare.differences(exam, answer, 1e-3)
    assert "of row 1 is inf, expected 1" in sentence
    kept = asked("serving_default", "gRPC", "the Trainer's model", compare.largest(exam, answer), [])
    assert json.loads(json.dumps(kept, allow_nan=False))["largest_difference"] is None


def test_another_model_than_the_one_that_was_examined_is_refused(world, tmp_path):
    other = answers()
    other[ROWS - 1] += 0.5  # the row whose variant's answer is 1 too small already
    table = {"split": ["exam"] * ROWS, "row": range(ROWS), "prediction": other}
    pq.write_table(pa.table(table), tmp_path / "predictions.parquet")
    lite = Lite(str(world / "lite" / "Format-Serving"), "float16", raw=False, difference=1.2)
    result, _ = validation.validate(inputs(world, evaluation=str(tmp_path), lite=lite), SETTINGS)
    assert not result["passed"]
    assert result["reasons"][0] == (
        "gRPC, `serving_default`: `predictions` of row 39 is 79, expected 79.5; 1 of 12 rows differ by more than 0.001"
    )
    assert {reason.partition(":")[0] for reason in result["reasons"]} == {
        f"{api}, {name}"
        for api in ("gRPC", "REST")
        for name in ("`serving_default`", "`predict_raw`", "TFLite, `serving_default`")
    }


def artifact(kind, uri: Path, **properties):
    made = kind()
    made.uri = str(uri)
    for name, value in properties.items():
        setter = made.set_int_custom_property if isinstance(value, int) else made.set_string_custom_property
        setter(name, value)
    return made


@pytest.mark.parametrize("whole", [True, False])
def test_the_stock_pusher_takes_the_verdict(world, tmp_path, whole):
    model = tmp_path / "model"
    shutil.copytree(world / "model", model)
    if not whole:
        (model / "Format-Serving" / "variables" / "variables.index").unlink()
    given = {
        "model": [artifact(standard_artifacts.Model, model)],
        "examples": [artifact(standard_artifacts.Examples, world / "examples")],
        "evaluation": [artifact(standard_artifacts.ModelEvaluation, world / "evaluation")],
        "quantized_models": [artifact(standard_artifacts.Model, world / "lite", quantization="float16", chosen=1)],
        "quantization_report": [
            artifact(
                QuantizationReport,
                tmp_path,
                table=json.dumps(
                    {"inputs": "transformed", "variants": [{"variant": "float16", "largest_difference": 1.0}]}
                ),
            )
        ],
    }
    blessing = artifact(standard_artifacts.InfraBlessing, tmp_path / "blessing")
    (tmp_path / "blessing").mkdir()
    settings = json.dumps(dataclasses.asdict(SETTINGS))
    executor.Executor().Do(given, {"blessing": [blessing]}, {"settings": settings})
    assert blessing.get_int_custom_property("blessed") == whole
    assert (tmp_path / "blessing" / ("INFRA_BLESSED" if whole else "INFRA_NOT_BLESSED")).exists()
    report = json.loads((tmp_path / "blessing" / "report.json").read_text())
    assert report == json.loads(blessing.get_string_custom_property("report"))
    assert report["reasons"] == json.loads(blessing.get_string_custom_property("reasons"))
    assert bool(report["reasons"]) != whole
    assert whole or "variables" in report["reasons"][0]

    pushed = artifact(standard_artifacts.PushedModel, tmp_path / "pushed")
    destination = pusher_pb2.PushDestination(
        filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=str(tmp_path / "base"))
    )
    StockPusher().Do(
        {"model": given["model"], "infra_blessing": [blessing]},
        {"pushed_model": [pushed]},
        {"push_destination": proto_utils.proto_to_json(destination)},
    )
    assert (tmp_path / "base").exists() == whole
