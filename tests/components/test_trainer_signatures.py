"""What is exported: three signatures that agree, a core, and no trace of how it was trained."""

import shutil

import numpy as np
import pytest
import tensorflow as tf
import trainer_world
from tensorflow.core.protobuf import saved_model_pb2

from evergreen.components import model_layout

pytestmark = pytest.mark.tensorflow

ROWS = trainer_world.rows(9, "exam", 50)
FEATURES = ("colour", "shop", "size", "size_missing", "count")


@pytest.fixture(scope="module")
def model_dir(world, build_once):
    folder = build_once("trainer_trained", lambda out: trainer_world.train_champion(world, out))
    return str(folder / "model")


@pytest.fixture(scope="module")
def serving(model_dir):
    return tf.saved_model.load(model_layout.serving_dir(model_dir))


def without_label(row):
    return {name: value for name, value in row.items() if name != "late"}


def examples(rows):
    return tf.constant([trainer_world.example(row) for row in rows])


def dense(rows, serving):
    """Says rows as `predict_raw` takes them."""
    missing = {"colour": "", "shop": "", "size": model_layout.MISSING_FLOAT, "count": model_layout.MISSING_INT}
    specs = serving.signatures["predict_raw"].structured_input_signature[1]
    return {
        name: tf.constant([[row.get(name, missing[name])] for row in rows], spec.dtype) for name, spec in specs.items()
    }


def test_serving_default_answers_examples_without_a_label(serving):
    signature = serving.signatures["serving_default"]
    assert list(signature.structured_input_signature[1]) == ["examples"]
    answers = signature(examples=examples([without_label(row) for row in ROWS]))
    assert list(answers) == ["predictions"]
    assert answers["predictions"].shape == (50, 1) and answers["predictions"].dtype == tf.float32
    with_label = signature(examples=examples(ROWS))["predictions"]
    np.testing.assert_array_equal(answers["predictions"], with_label)
    assert np.ptp(with_label) > 0.05


def test_predict_raw_agrees_whatever_is_missing(serving):
    specs = serving.signatures["predict_raw"].structured_input_signature[1]
    assert {name: (spec.shape.as_list(), spec.dtype) for name, spec in specs.items()} == {
        "colour": ([None, 1], tf.string),
        "shop": ([None, 1], tf.string),
        "size": ([None, 1], tf.float32),
        "count": ([None, 1], tf.int64),
    }
    rows = [*ROWS, {"colour": "unheard of"}, {"colour": "red", "size": 1.0}]
    assert any("shop" not in row and "size" not in row for row in rows)
    expected = serving.signatures["serving_default"](examples=examples(rows))["predictions"]
    received = serving.signatures["predict_raw"](**dense(rows, serving))["predictions"]
    np.testing.assert_allclose(received, expected, atol=1e-7)
    everything_missing = [{"colour": "red"}] * 3
    np.testing.assert_allclose(
        serving.signatures["predict_raw"](**dense(everything_missing, serving))["predictions"],
        serving.signatures["serving_default"](examples=examples(everything_missing))["predictions"],
        atol=1e-7,
    )


def test_transform_features_feeds_the_core(serving, model_dir):
    transformed = serving.signatures["transform_features"](examples=examples(map(without_label, ROWS)))
    assert set(transformed) == {*FEATURES, "name"}
    assert all(tensor.shape == (50, 1) for tensor in transformed.values())
    core = tf.saved_model.load(model_layout.core_dir(model_dir)).signatures["serving_default"]
    assert set(core.structured_input_signature[1]) == set(FEATURES)
    answers = core(**{name: transformed[name] for name in FEATURES})
    assert list(answers) == ["predictions"]
    expected = serving.signatures["serving_default"](examples=examples(ROWS))["predictions"]
    np.testing.assert_allclose(answers["predictions"], expected, atol=1e-7)


def test_the_vocabularies_are_inside(model_dir):
    names = {path.name for path in trainer_world.Path(model_layout.serving_dir(model_dir), "assets").iterdir()}
    assert {"colour", "shop"} <= names


def test_tflite_takes_the_core(model_dir):
    content = tf.lite.TFLiteConverter.from_saved_model(model_layout.core_dir(model_dir)).convert()
    assert len(content) > 1000


def test_a_mirrored_model_carries_no_trace_of_it_and_serves_on_one_cpu(world, build_once, tmp_path):
    mirrored = build_once("trainer_mirrored", lambda out: trainer_world.train_mirrored(world, out))
    moved = str(shutil.copytree(mirrored / "model", tmp_path / "moved"))
    for folder in (model_layout.serving_dir(moved), model_layout.core_dir(moved)):
        devices, names = written_in(folder)
        assert devices <= {"", "/device:CPU:0", "/device:CPU:*"}  # as in every SavedModel
        assert not [name for name in names if "replica" in name or "Collective" in name]
    served = tf.saved_model.load(model_layout.serving_dir(moved)).signatures["serving_default"]
    answers = served(examples=examples(ROWS))["predictions"].numpy()
    assert len(tf.config.list_logical_devices("CPU")) == 1
    assert np.isfinite(answers).all() and np.ptp(answers) > 0.01


def written_in(folder):
    """Returns the devices that a SavedModel's nodes ask for, and the names of its nodes and variables."""
    content = saved_model_pb2.SavedModel()
    content.ParseFromString(trainer_world.Path(folder, "saved_model.pb").read_bytes())
    devices, names = set(), set()
    for graph in content.meta_graphs:
        for node in [*graph.graph_def.node, *(n for f in graph.graph_def.library.function for n in f.node_def)]:
            devices.add(node.device)
            names.update((node.name, node.op))
        for node in graph.object_graph_def.nodes:
            devices.add(node.variable.device)
            names.add(node.variable.name)
    return devices, names
