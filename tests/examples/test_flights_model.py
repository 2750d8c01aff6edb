"""The two functions of the flights example: what features.py gives and what model.py makes of it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import integration_world as world
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
import yaml

from evergreen.components import user_code

pytestmark = pytest.mark.tensorflow

data = world.flights_data()
SETTINGS = yaml.safe_load((world.FLIGHTS / "evergreen.yaml").read_text(encoding="utf-8"))["trainer"]


def functions() -> tuple[Any, Any]:
    """The example's modules `features` and `model`, from its folder and under their own names."""
    user_code.activate(world.FLIGHTS)  # the next project's test throws both out
    import features
    import model

    return features, model


def raw_spec() -> dict[str, tf.io.VarLenFeature]:
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2
    from tensorflow_transform.tf_metadata import schema_utils

    text = (world.ROOT / "schemas" / "flights" / "schema.pbtxt").read_text(encoding="utf-8")
    return schema_utils.schema_as_feature_spec(text_format.Parse(text, schema_pb2.Schema())).feature_spec


def flights(month: int, every: int) -> list[dict[str, Any]]:
    """Each `every`-th flight of a month, without its missing values, as TensorFlow Transform takes rows."""
    table = data.load_month(month)
    table = table.set_column(0, "time_hour", table["time_hour"].cast("int64"))
    kept = table.take(list(range(0, table.num_rows, every))).to_pylist()
    return [{name: [] if value is None else [value] for name, value in row.items()} for row in kept]


@pytest.fixture(scope="module")
def graph(build_once) -> tft.TFTransformOutput:
    """The transform graph of a twelfth of January."""

    def build(folder: Path) -> None:
        import apache_beam as beam
        import tensorflow_transform.beam as tft_beam
        from tensorflow_transform.tf_metadata import dataset_metadata

        features, _ = functions()
        metadata = dataset_metadata.DatasetMetadata.from_feature_spec(raw_spec())
        runner = "apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"
        with beam.Pipeline(runner=runner) as pipeline, tft_beam.Context(temp_dir=tempfile.mkdtemp(dir=folder)):
            rows = pipeline | beam.Create(flights(1, 12), reshuffle=False)
            made = (rows, metadata) | tft_beam.AnalyzeDataset(features.preprocessing_fn)
            made | tft_beam.WriteTransformFn(str(folder / "graph"))

    return tft.TFTransformOutput(str(build_once("flights-graph", build) / "graph"))


def transformed(graph: tft.TFTransformOutput, rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Transforms rows as a request would be: serialized tf.Examples."""
    spec = raw_spec()
    examples = []
    for row in rows:
        example = tf.train.Example()
        for name, value in row.items():
            if not value:
                continue
            feature = example.features.feature[name]
            if spec[name].dtype == tf.string:
                feature.bytes_list.value.append(value[0].encode())
            elif spec[name].dtype == tf.float32:
                feature.float_list.value.append(value[0])
            else:
                feature.int64_list.value.append(value[0])
        examples.append(example.SerializeToString())
    outputs = graph.transform_features_layer()(tf.io.parse_example(examples, spec))
    return {name: tensor.numpy() for name, tensor in outputs.items()}


def test_features_are_dense_numbers_of_one_column_and_never_nan(graph):
    rows = flights(4, 30)
    outputs = transformed(graph, rows)
    for name, values in outputs.items():
        assert values.shape == (len(rows), 1), name
        assert values.dtype in (np.int64, np.float32), name
        assert np.isfinite(values).all(), name
    assert outputs["late"].ravel().tolist() == [row["late"][0] for row in rows]


def test_numbers_are_scaled_by_the_window_and_bounded(graph):
    outputs = transformed(graph, flights(1, 12))
    for name in ("distance", "departure_minute", "wind_speed"):
        assert abs(outputs[name].mean()) < 0.05 and 0.8 < outputs[name].std() < 1.1, name
    storm = transformed(graph, [{"wind_speed": [10000.0]}])
    assert storm["wind_speed"].item() == 4.0


def test_an_unknown_token_and_a_missing_one_share_the_row_behind_the_vocabulary(graph):
    features, _ = functions()
    outputs = transformed(graph, [{"carrier": ["UA"]}, {"carrier": ["no such airline"]}, {}])
    known, unknown, missing = outputs["carrier"].ravel()
    size = graph.vocabulary_size_by_name("carrier")
    assert known < size and unknown == missing == size
    assert set(features.VOCABULARIES) == {"carrier", "route", "plane_model", "tailnum"}


def test_a_row_without_anything_is_the_mean_and_says_what_is_missing(graph):
    outputs = transformed(graph, [{}])
    for name in ("weather_missing", "pressure_missing", "plane_missing"):
        assert outputs[name].item() == 1.0, name
    for name in ("humid", "pressure", "distance", "departure_minute", "arrival_minute", "day_sin_1", "rain", "seats"):
        assert outputs[name].item() == 0.0, name
    assert (outputs["weekday"].item(), outputs["hour"].item()) == (7, 24)


def test_the_calendar_is_that_of_the_schedule(graph):
    rows = [{"weekday": [6], "departure_minute": [minute]} for minute in (0, 59, 60, 1439)]
    outputs = transformed(graph, [*rows, {"weekday": [9], "departure_minute": [1440]}])
    assert outputs["hour"].ravel().tolist() == [0, 0, 1, 23, 24]
    assert outputs["weekday"].ravel().tolist() == [6, 6, 6, 6, 7]


def test_the_model_reads_every_feature_but_the_label_and_gives_a_probability(graph):
    _, model_module = functions()
    model = model_module.build_model(graph, SETTINGS["hyperparameters"])
    rows = flights(2, 50)
    outputs = transformed(graph, rows)
    assert set(model.input) == set(outputs) - {"late"}
    probabilities = model({name: outputs[name] for name in model.input}).numpy()
    assert probabilities.shape == (len(rows), 1)
    assert ((probabilities > 0) & (probabilities < 1)).all()


def test_each_vocabulary_has_an_embedding_of_its_name_with_a_row_for_the_unknown(graph):
    features, model_module = functions()
    model = model_module.build_model(graph, {})
    for name in features.VOCABULARIES:
        rows = model.get_layer(f"{name}_embedding").get_weights()[0].shape[0]
        assert rows == graph.vocabulary_size_by_name(name) + 1, name


def test_training_learns_and_regularizes(graph):
    import tf_keras

    from evergreen.components.trainer.autograph import leave_libraries_alone

    leave_libraries_alone()
    _, model_module = functions()
    tf_keras.utils.set_random_seed(0)
    model = model_module.build_model(graph, SETTINGS["hyperparameters"] | {"decay_steps": 40})
    outputs = transformed(graph, flights(1, 12))
    labels = outputs.pop("late")
    losses = model.fit(outputs, labels, batch_size=256, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    after = model.evaluate(outputs, labels, batch_size=1024, verbose=0, return_dict=True)
    assert after["auc"] > 0.6
    assert len(model.losses) == len(SETTINGS["hyperparameters"]["units"]) + 1, "every dense layer decays"


def test_the_settings_of_the_yaml_are_those_that_the_model_knows():
    _, model_module = functions()
    assert set(SETTINGS["hyperparameters"]) == set(model_module.DEFAULTS)
    assert SETTINGS["hyperparameters"]["decay_steps"] == SETTINGS["steps"]
