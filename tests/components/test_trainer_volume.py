"""What a model's step moves, counted on the traced step."""

from __future__ import annotations

import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from evergreen.components.trainer import volume

pytestmark = pytest.mark.tensorflow

SPECS = {
    "words": tf.TensorSpec([None, 3], tf.int64),
    "size": tf.TensorSpec([None, 1], tf.float32),
    "unused": tf.TensorSpec([None, 9], tf.float32),
    "late": tf.TensorSpec([None, 1], tf.int64),
}


def measure(model):
    return volume.measure(model, SPECS, ("size", "words"), "late")


def model_of(table, dense):
    inputs = {"words": tf_keras.Input((3,), name="words", dtype=tf.int64), "size": tf_keras.Input((1,), name="size")}
    parts = [layers.Flatten()(table(inputs["words"])), inputs["size"]]
    return tf_keras.Model(inputs, dense(layers.Concatenate()(parts)))


def test_a_sequence_needs_a_row_for_each_of_its_words():
    found = measure(model_of(layers.Embedding(50, 4), layers.Dense(1)))
    dense = 4 * (3 * 4 + 1 + 1)
    assert found == {
        "weights": 4 * 50 * 4 + dense,
        "reads": dense,
        "gradients": dense,
        "example": 3 * 8 + 4 + 8,
        "tables": [{"rows": 50, "row_bytes": 4 * 4 + 8, "per_example": 3}],
    }


def test_a_regularizer_reads_a_weight_once_more():
    plain = measure(model_of(layers.Embedding(50, 4), layers.Dense(1)))
    found = measure(model_of(layers.Embedding(50, 4), layers.Dense(1, kernel_regularizer="l2")))
    assert found["reads"] == plain["reads"] + 4 * 13
    assert found["gradients"] == plain["gradients"]


def test_a_regularized_table_has_a_dense_gradient():
    found = measure(model_of(layers.Embedding(50, 4, embeddings_regularizer="l2"), layers.Dense(1)))
    assert found["tables"] == []
    assert found["gradients"] == 4 * (3 * 4 + 1 + 1) + 4 * 50 * 4


def test_a_model_that_wants_more_than_a_row_is_not_counted():
    class Pairs(tf_keras.Model):
        def call(self, inputs, training=False):
            tf.ensure_shape(inputs["size"], [2, 1])
            return inputs["size"]

    assert measure(Pairs()) is None
