"""A stranger's data: `evergreen init` on a CSV, then `evergreen run`; and a stock `run_fn` module.

The data is nothing like the flights: hourly weather in one CSV with dates, months as spans, a temperature to predict.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import integration_world as world
import pandas as pd
import pytest

pytestmark = pytest.mark.tensorflow

RUN_FN = '''
"""A module as stock TFX has them: it knows nothing of Evergreen."""

import tensorflow as tf
import tensorflow_transform as tft
import tf_keras
from tfx_bsl.public import tfxio


def _dataset(files, data_accessor, schema, label):
    return data_accessor.tf_dataset_factory(
        files, tfxio.TensorFlowDatasetOptions(batch_size=64, label_key=label), schema
    ).repeat()


def run_fn(fn_args):
    output = tft.TFTransformOutput(fn_args.transform_output)
    label = "temp"
    schema = output.transformed_metadata.schema
    spec = output.transformed_feature_spec()
    names = sorted(n for n, s in spec.items() if n != label and s.dtype == tf.float32)
    inputs = {n: tf_keras.Input((1,), name=n) for n in names}
    hidden = tf_keras.layers.Dense(8, "relu")(tf_keras.layers.concatenate(list(inputs.values())))
    model = tf_keras.Model(inputs, tf_keras.layers.Dense(1)(hidden))
    model.compile("adam", "mse")

    def only(features, target):
        return {n: features[n] for n in names}, target

    train = _dataset(fn_args.train_files, fn_args.data_accessor, schema, label).map(only)
    model.fit(train, steps_per_epoch=fn_args.train_steps, verbose=0)
    model.tft_layer = output.transform_features_layer()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serve(examples):
        raw = output.raw_feature_spec()
        raw.pop(label)
        features = model.tft_layer(tf.io.parse_example(examples, raw))
        return {"predictions": model({n: features[n] for n in names})}

    model.save(fn_args.serving_model_dir, save_format="tf", signatures={"serving_default": serve})
'''


def _weather(path: Path, months: list[int]) -> None:
    """Writes the weather of the flights' airports as a stranger would have it: one CSV, quoted text, dates, gaps."""
    source = world.flights_data().source_folder()
    file = next(iter(sorted(source.glob("weather.csv*"))))
    table = pd.read_csv(file)
    table = table[table["month"].isin(months)].dropna(subset=["temp"])
    table = table[["time_hour", "origin", "dewp", "humid", "wind_speed", "pressure", "visib", "temp"]]
    table["remark"] = 'said "fair",\nnothing else'
    table.to_csv(path, index=False)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> world.Project:
    folder = tmp_path_factory.mktemp("stranger")
    _weather(folder / "weather.csv", [1, 2, 3])
    from evergreen.pipeline import cli

    status = cli.main(
        ["init", str(folder / "weather.csv"), "--label", "temp", "--time", "time_hour", "--dir", str(folder / "made")]
    )
    assert status == 0
    made = world.Project(folder / "made")
    made.change(trainer={"steps": 100}, evaluate={"min": {}})
    return made


def test_init_then_run_publishes_a_regression(project):
    answer = project.evergreen("run")
    assert answer.status == 0, answer.text
    (version,) = project.evergreen("versions", "--json").json
    error = version["metrics"].get("root_mean_squared_error", version["metrics"].get("mean_squared_error"))
    assert error is not None
    assert error > 0
    assert version["tflite_bytes"]


def test_a_module_with_a_run_fn_runs_unchanged(project):
    copy = project.folder.parent / "with_run_fn"
    shutil.copytree(project.folder, copy, ignore=shutil.ignore_patterns(".evergreen", "serving*"))
    stock = world.Project(copy)
    (copy / "stock_module.py").write_text(RUN_FN)
    stock.change(
        trainer={"run_fn": "stock_module:run_fn", "model": None, "steps": 20, "early_stopping": None},
        quantize={"variants": [], "required": []},
    )
    answer = stock.evergreen("run")
    assert answer.status == 0, answer.text
    (version,) = stock.versions()
    assert version["metrics"]
