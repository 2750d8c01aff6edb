"""Raw features into TFLite: the converted preprocessing beside the transform graph, on rows with everything missing."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from quantizer_world import write_examples, write_graph

from evergreen.components import model_layout
from evergreen.components.quantizer import front, replay, rows
from evergreen.components.quantizer.convert import ConversionFailed, convert
from evergreen.components.quantizer.interpreter import LiteModel
from evergreen.components.trainer.transform_graph import TransformGraph

pytestmark = pytest.mark.tensorflow

ROWS = [
    {"token": "b", "word": "X", "number": 3, "real": 0.5, "fixed": "yes", "late": 1},
    {"token": "a", "word": "unknown", "number": -7, "real": -1.5, "fixed": "no", "late": 0},
    {"token": "b", "number": 0, "fixed": "no", "late": 0},
    {"word": "x", "real": 2.0, "fixed": "", "late": 1},
    {"token": "never seen", "word": "never seen", "fixed": "yes", "late": 0},
]
SPEC = {
    "token": tf.io.VarLenFeature(tf.string),
    "word": tf.io.VarLenFeature(tf.string),
    "number": tf.io.VarLenFeature(tf.int64),
    "real": tf.io.VarLenFeature(tf.float32),
    "fixed": tf.io.FixedLenFeature([], tf.string),
    "late": tf.io.FixedLenFeature([1], tf.int64),
}


def preprocessing_fn(inputs):
    """What users do with sparse features: fill first, or compute on the values and fill later."""

    def fill(sparse, missing):
        return tf.sparse.to_dense(tf.SparseTensor(sparse.indices, sparse.values, [sparse.dense_shape[0], 1]), missing)

    def values(sparse, function):
        return tf.SparseTensor(sparse.indices, function(sparse.values), sparse.dense_shape)

    word = fill(inputs["word"], "unknown")
    return {
        "filled": tft.compute_and_apply_vocabulary(fill(inputs["token"], ""), num_oov_buckets=1, vocab_filename="v"),
        "no_oov": tft.compute_and_apply_vocabulary(word, default_value=-1, vocab_filename="w"),
        "is_unknown": tf.cast(tf.equal(word, "unknown"), tf.float32),
        "sparse_vocabulary": fill(tft.compute_and_apply_vocabulary(inputs["token"], vocab_filename="s"), -5),
        "whole": tf.cast(fill(inputs["number"], 11), tf.float32),
        "squared": fill(values(inputs["real"], lambda v: v * v + 1.0), -1.0),
        "scaled": fill(tft.scale_to_z_score(inputs["real"]), 0.0),
        "bucket": tft.apply_buckets(fill(inputs["real"], 0.0), tf.constant([[-1.0, 0.0, 1.0]])),
        "yes": tf.expand_dims(tf.cast(tf.equal(inputs["fixed"], "yes"), tf.int64), 1),
        "rows": tf.fill([tf.shape(inputs["late"])[0], 1], 2.0) * tf.cast(inputs["late"] >= 0, tf.float32),
        "hashed": tf.strings.to_hash_bucket_fast(fill(inputs["token"], ""), 10),
        "lower": tf.cast(tf.equal(tf.strings.lower(fill(inputs["word"], "")), "x"), tf.float32),
        "present": fill(values(inputs["token"], lambda v: tf.ones_like(v, tf.float32)), 0.0),
        "counted": tf.reshape(tf.cast(tf.sparse.reduce_sum(inputs["real"], axis=1) > 0, tf.float32), [-1, 1]),
        "late": inputs["late"],
    }


CONVERTIBLE = (
    "filled", "no_oov", "is_unknown", "sparse_vocabulary", "whole", "squared", "scaled", "bucket", "yes", "present",
)  # fmt: skip


@pytest.fixture(scope="module")
def world(build_once):
    def build(folder):
        write_graph(f"{folder}/graph", ROWS[:-1], SPEC, preprocessing_fn)
        write_examples(f"{folder}/examples", ROWS)

    return build_once("quantizer_replay", build)


@pytest.fixture(scope="module")
def graph(world):
    return TransformGraph(f"{world}/graph")


def converted(graph, names, folder):
    front.write(graph, names, f"{folder}/front")
    with open(f"{folder}/front.tflite", "wb") as file:
        file.write(convert(f"{folder}/front", "float32"))
    return f"{folder}/front.tflite"


def test_every_way_to_fill_a_missing_value_converts_and_answers_alike(world, graph, tmp_path):
    exam = rows.exam(graph, f"{world}/examples", "late", CONVERTIBLE)
    assert exam.raw["token"][3] == model_layout.MISSING_STRING
    assert exam.raw["number"][3] == model_layout.MISSING_INT
    assert np.isnan(exam.raw["real"][2])
    assert exam.transformed["no_oov"].min() == -1, "the rows hold a word that is in no vocabulary"

    path = converted(graph, CONVERTIBLE, tmp_path)
    model = tf.lite.Interpreter(path).get_signature_runner("serving_default")
    answers = model(**LiteModel.prepared(_Names(model.get_input_details()), exam.raw))
    assert set(answers) == set(CONVERTIBLE)
    for name in CONVERTIBLE:
        np.testing.assert_allclose(answers[name], exam.transformed[name], atol=1e-6, err_msg=name)


class _Names:
    """As much of a LiteModel as casts the features: the preprocessing alone has many outputs."""

    def __init__(self, details):
        self._inputs = details


@pytest.mark.parametrize(("name", "operator"), [("hashed", "tf.StringToHashBucketFast"), ("lower", "tf.StringLower")])
def test_an_operator_that_tflite_lacks_is_named(graph, tmp_path, name, operator):
    with pytest.raises(ConversionFailed, match=operator):
        converted(graph, [name], tmp_path)


def test_what_needs_sparse_features_is_named_before_anything_is_converted(graph, tmp_path):
    with pytest.raises(replay.NotReplayable, match=r"tf\.SparseReduceSum"):
        front.write(graph, ["counted"], f"{tmp_path}/front")


def test_calibration_draws_the_configured_number_of_rows(world, graph, tmp_path):
    os.symlink(f"{world}/examples/Split-exam", tmp_path / "Split-train")
    first, again = (rows.calibration(graph, str(tmp_path), ["whole", "yes"], 3, seed=1) for _ in range(2))
    other = rows.calibration(graph, str(tmp_path), ["whole", "yes"], 3, seed=2)
    assert {name: values.shape for name, values in first.items()} == {"whole": (3, 1), "yes": (3, 1)}
    np.testing.assert_array_equal(first["whole"], again["whole"])
    assert first["whole"].tolist() != other["whole"].tolist()
    assert len(rows.calibration(graph, str(tmp_path), ["whole"], 100, seed=1)["whole"]) == len(ROWS)
    os.makedirs(tmp_path / "none" / "Split-train")
    assert rows.calibration(graph, str(tmp_path / "none"), ["whole"], 3, seed=1) == {}
    assert json.dumps(first["whole"].tolist())
