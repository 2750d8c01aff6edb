"""The Quantizer's executor: real conversions, real interpreters, a real transform graph."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import quantizer_world
import tensorflow as tf
from quantizer_world import EVALUATE, ROWS
from tfx.types import standard_artifacts

from evergreen.components.artifacts import QuantizationReport
from evergreen.components.errors import EvergreenError
from evergreen.components.quantizer import lite_file, table
from evergreen.components.quantizer.executor import Executor
from evergreen.components.quantizer.report import summary

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def world(build_once):
    return build_once("quantizer", quantizer_world.build)


@pytest.fixture
def quantize(world, tmp_path):
    """Runs the executor; returns the report artifact, the report and the Model artifacts."""

    def run(settings, model="model", examples="examples", transform_graph="transform_graph", evaluation="evaluation"):
        inputs = {
            "model": standard_artifacts.Model(),
            "transform_graph": standard_artifacts.TransformGraph(),
            "examples": standard_artifacts.Examples(),
            "evaluation": standard_artifacts.ModelEvaluation(),
        }
        for name, folder in zip(inputs, (model, transform_graph, examples, evaluation), strict=True):
            inputs[name].uri = os.path.join(world, folder)
        inputs["examples"].span = 4
        outputs = {"models": [standard_artifacts.Model()], "report": [QuantizationReport()]}
        for name, (artifact,) in outputs.items():
            artifact.uri = str(tmp_path / name)
            os.makedirs(artifact.uri)
        properties = {"settings": json.dumps(settings), "evaluate_settings": EVALUATE}
        Executor().Do({name: [artifact] for name, artifact in inputs.items()}, outputs, properties)
        (artifact,) = outputs["report"]
        with open(f"{artifact.uri}/report.json", encoding="utf-8") as file:
            return artifact, json.load(file), outputs["models"]

    return run


def test_good_variants_are_measured_and_handed_on(quantize, tmp_path):
    artifact, report, models = quantize({"max_drop": {"auc": 0.005}})

    assert [row["variant"] for row in report["variants"]] == ["float32", "float16", "dynamic_int8"]
    float32, float16, int8 = report["variants"]
    assert report["rows"] == ROWS
    assert report["reference"]["auc"] > 0.7
    assert float32["largest_difference"] < 1e-6
    assert float32["metrics"]["auc"] == pytest.approx(report["reference"]["auc"], abs=1e-4)
    assert 1e-6 < float16["largest_difference"] < 1e-2
    assert float16["bytes"] < 0.75 * float32["bytes"]
    assert int8["bytes"] < float16["bytes"]
    assert int8["ratio"] == pytest.approx(int8["bytes"] / float32["bytes"])
    assert all(row["passed"] and row["batch"] == "dynamic" for row in report["variants"])

    assert [model.get_string_custom_property("quantization") for model in models] == ["float16", "dynamic_int8"]
    assert [model.get_int_custom_property("chosen") for model in models] == [0, 1]
    for model, row in zip(models, (float16, int8), strict=True):
        path = f"{model.uri}/Format-Serving/model.tflite"
        assert os.path.getsize(path) == row["bytes"] == model.get_int_custom_property("bytes")
        assert os.path.dirname(model.uri) == str(tmp_path / "models")
        assert json.loads(model.get_string_custom_property("metrics")) == row["metrics"]
    assert artifact.get_int_custom_property("passed") == 1
    assert (artifact.span, artifact.chosen) == (4, "dynamic_int8")
    assert json.loads(artifact.get_string_custom_property("table")) == summary(report)
    assert len(table.render(report)[1]) == 4


def test_the_published_file_is_called_by_feature_name(quantize):
    _, _, models = quantize({"variants": ["float32"]})
    (model,) = models
    interpreter = tf.lite.Interpreter(f"{model.uri}/Format-Serving/model.tflite")
    runner = interpreter.get_signature_runner("serving_default")
    details = runner.get_input_details()
    assert {name: detail["dtype"] for name, detail in details.items()} == {"carrier": np.bytes_, "distance": np.float32}
    in_file = [detail["index"] for detail in interpreter.get_input_details()]
    assert in_file == [details[name]["index"] for name in sorted(details)]
    late, early = (runner(carrier=np.array([[name]]), distance=np.zeros((1, 1), np.float32)) for name in ("c39", "c1"))
    assert late["predictions"].shape == (1, 1)
    assert late["predictions"] > 0.8 > 0.2 > early["predictions"]


def test_a_variant_that_loses_quality_is_dropped(quantize):
    # One weight of 1e5 in the table makes the step of int8 larger than every other weight.
    artifact, report, models = quantize({"max_drop": {"auc": 0.005}}, model="sensitive")
    _, float16, int8 = report["variants"]
    assert float16["passed"]
    assert not int8["passed"]
    assert int8["loss"]["auc"] > 0.05
    assert "loses" in int8["reasons"][0]
    assert [model.get_string_custom_property("quantization") for model in models] == ["float16"]
    assert artifact.get_int_custom_property("passed") == 1
    assert artifact.chosen == "float16"


def test_a_required_variant_that_loses_quality_closes_the_gate(quantize):
    settings = {"max_drop": {"auc": 0.005}, "required": ["dynamic_int8"]}
    artifact, report, _ = quantize(settings, model="sensitive")
    assert artifact.get_int_custom_property("passed") == 0
    assert artifact.chosen == ""
    assert "dynamic_int8" in report["reason"]
    assert artifact.get_string_custom_property("reason") == report["reason"]


def test_a_graph_with_a_constant_batch_is_measured_row_by_row(quantize):
    _, report, models = quantize({"variants": ["float16"]}, model="one_row")
    assert [row["batch"] for row in report["variants"]] == ["one row", "one row"]
    assert report["variants"][0]["largest_difference"] < 1e-6
    assert len(models) == 1


def test_no_variants_pass_with_no_models(quantize):
    artifact, report, models = quantize({"variants": []})
    assert (artifact.get_int_custom_property("passed"), models) == (1, [])
    assert report["reason"] == "not quantized: no variants are configured"


@pytest.mark.parametrize(("required", "passed"), [([], 1), (["float16"], 0)])
def test_a_model_of_run_fn_is_not_quantized(quantize, required, passed):
    artifact, report, models = quantize({"required": required}, model="from_run_fn")
    assert (artifact.get_int_custom_property("passed"), models) == (passed, [])
    assert report["reason"].startswith("not quantized: the model came from run_fn")


def test_a_model_that_cannot_be_converted_is_reported_not_raised(quantize):
    artifact, report, models = quantize({}, model="unconvertible")
    assert (artifact.get_int_custom_property("passed"), models) == (1, [])
    assert {reason for row in report["variants"] for reason in row["reasons"]} == {
        "conversion failed: TFLite has no builtin op for tf.Digamma (from Digamma); compute it otherwise, set "
        "`quantize.allow_select_ops`, or leave the variant out"
    }


def test_answers_to_other_rows_are_not_compared(quantize, tmp_path):
    quantizer_world.write_examples(f"{tmp_path}/fewer", quantizer_world.raw_rows()[:100])
    with pytest.raises(EvergreenError, match="100 rows were read and 600 predictions are recorded"):
        quantize({"variants": ["float16"]}, examples=f"{tmp_path}/fewer")


def test_int8_that_loses_too_much_leaves_a_layer_in_float(quantize):
    # The number is ten thousand times as large as the embedding beside it; one range for both leaves the embedding 0.
    settings = {"variants": ["int8", "int8_float_io"], "max_drop": {"auc": 0.02}, "max_abs_difference": 0.2}
    _, report, models = quantize(settings, model="far", evaluation="far_evaluation")
    _, *saved = report["variants"]
    for row in saved:
        assert row["passed"], row["reasons"]
        assert row["selective"][0]["excess"] > 1, "fully quantized it would have been dropped"
        assert row["left_in_float"] == row["selective"][-1]["layers"] != []
        assert "which costs" in row["selective_result"]
        assert row["bytes"] == row["selective"][-1]["bytes"]
        assert row["float_operators"], "what was left in float computes in float"
    assert {model.get_string_custom_property("quantization") for model in models} == {"int8", "int8_float_io"}


@pytest.mark.slow
def test_int8_that_cannot_be_saved_says_so(quantize):
    settings = {"variants": ["int8"], "max_abs_difference": 1e-7}
    _, report, models = quantize(settings, model="dense", evaluation="dense_evaluation")
    _, int8 = report["variants"]
    assert not int8["passed"]
    assert "could not be saved" in int8["selective_result"]
    assert "left_in_float" not in int8 or int8["left_in_float"] == []
    assert models == []


def test_the_report_holds_what_was_measured_and_the_page_shows_it(quantize, tmp_path):
    settings = {"variants": ["float16", "int8"], "calibration_rows": 100, "calibration_seed": 7}
    artifact, report, models = quantize(settings, model="dense", evaluation="dense_evaluation")
    assert (report["inputs"], report["inputs_reason"]) == ("raw", "")
    assert set(report["saved_model_ms"]) == {"1", "64"}
    float32, float16, int8 = report["variants"]
    assert (float32["latency_ratio"], float32["weights"]) == (1.0, [])
    assert int8["latency_ratio"] == pytest.approx(
        int8["latency_ms"]["1x1"]["p50"] / float32["latency_ms"]["1x1"]["p50"]
    )
    assert len(int8["weights"]) == len(float16["weights"]) == 3
    assert {"FULLY_CONNECTED", "LOGISTIC"} <= {row["op"] for row in int8["activations"]}
    errors = [row["error"] for row in int8["activations"]]
    assert errors == sorted(errors, reverse=True)
    assert all(0 < row["rmse"] <= row["scale"] for row in int8["activations"])
    with open(f"{artifact.uri}/report.html", encoding="utf-8") as file:
        page = file.read()
    assert page.count("<svg") == 2 + 2 + 1, "sizes and latencies, two of weights, one of activations"
    assert "Worst activations" in page and "dB" in page

    files = [Path(models[1].uri, "Format-Serving", name).read_bytes() for name in ("model.tflite", "tflite")]
    assert files[0] == files[1], "TensorFlow Serving and TensorFlow Model Analysis look for different names"
    about = lite_file.metadata(files[0])
    assert about["calibration"] == {"span": 4, "split": "train", "rows": 100, "seed": 7}
    assert about["features"]["distance"] == {"type": "float32", "missing": "NaN"}
    assert about["output"]["meaning"] == "the probability that late is 1"


def test_without_a_preprocessing_that_converts_the_files_take_transformed_features(quantize, world, tmp_path):
    settings = {"variants": ["float16"]}
    _, report, (model,) = quantize(settings, transform_graph="hashing_graph")
    assert report["inputs"] == "transformed"
    assert report["inputs_reason"].startswith("the preprocessing cannot be converted: TFLite has no builtin op for tf.")
    assert "tf.StringToHashBucketFast" in report["inputs_reason"]
    assert report["variants"][1]["passed"]
    runner = tf.lite.Interpreter(f"{model.uri}/Format-Serving/model.tflite").get_signature_runner("serving_default")
    assert runner.get_input_details()["carrier"]["dtype"] == np.int64


def test_a_variant_beyond_a_bound_is_not_handed_on(quantize):
    bounds = {"max_bytes": 1000, "max_latency_ratio": 0.001, "max_abs_difference": 1e-9}
    artifact, report, models = quantize({"variants": ["float16"], **bounds})
    assert models == []
    for reason in ("bytes, more than 1,000", "times as long as float32", "an answer differs by"):
        assert any(reason in sentence for sentence in report["variants"][1]["reasons"]), reason
    assert (artifact.get_int_custom_property("passed"), artifact.get_int_custom_property("withdraw")) == (1, 1)


def test_no_rows_to_calibrate_with_costs_the_calibrated_variants_only(quantize, world, tmp_path):
    os.makedirs(tmp_path / "few")
    os.symlink(f"{world}/examples/Split-exam", tmp_path / "few" / "Split-exam")
    _, report, models = quantize({"variants": ["int8", "float16"]}, examples=f"{tmp_path}/few")
    _, int8, float16 = report["variants"]
    assert "there are no rows to calibrate with" in int8["reasons"][0]
    assert float16["passed"]
    assert [model.get_string_custom_property("quantization") for model in models] == ["float16"]


@pytest.mark.slow
def test_a_conversion_that_takes_too_long_is_a_lost_variant_and_no_crash(quantize):
    artifact, report, models = quantize({"variants": ["float16"], "convert_seconds": 0.001})
    assert (artifact.get_int_custom_property("passed"), models) == (1, [])
    assert "not done within 0.001 s" in report["variants"][1]["reasons"][0]


@pytest.mark.slow
def test_operators_of_tensorflow_are_used_where_they_are_allowed(quantize):
    settings = {"variants": ["float32"], "allow_select_ops": True}
    _, report, _ = quantize(settings, model="sinh", evaluation="sinh_evaluation")
    variant = report["variants"][0]
    if variant["largest_difference"] is None:  # TensorFlow 2.21's own interpreter comes without its operators
        assert not variant["passed"]
        assert "Select TensorFlow op(s), included in the given model, is(are) not supported" in variant["reasons"][0]
        return
    assert variant["largest_difference"] < 1e-5
    assert any(name.startswith("FlexSinh") for name in variant["operators"])
