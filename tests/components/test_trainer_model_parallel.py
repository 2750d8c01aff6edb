"""One model in parts on a mesh of devices gives the weights of `single`; what was not shown to is refused."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
import trainer_world
from trainer_world import weights

from evergreen.components import model_layout
from evergreen.components.errors import ConfigError
from evergreen.components.trainer import model_parallel, training

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]


@pytest.mark.parametrize("mesh", [[1, 2], [2, 2]], ids=str)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_mesh_gives_the_weights_of_one_device(world, tmp_path, mesh, optimizer):
    hyperparameters = {"optimizer": optimizer, "learning_rate": 0.05, "dropout": 0.0}
    settings = {"hyperparameters": hyperparameters}
    divided = trainer_world.train_apart(world, tmp_path / "2" / "x", strategy="model_parallel", mesh=mesh, **settings)
    single = trainer_world.request(world, tmp_path / "1" / "x", {**trainer_world.SAME_SUMS, **settings})
    report = training.run(single)
    with open(f"{divided.run_dir}/{model_layout.REPORT_FILE}") as file:
        other = json.load(file)
    assert other["replicas"] == mesh[0] and len(other["devices"]) == mesh[0] * mesh[1]
    assert other["final"]["val_auc"] == pytest.approx(report["final"]["val_auc"], abs=1e-3)
    one, two = weights(single), weights(divided)
    assert list(one) == list(two)
    for name in one:
        np.testing.assert_allclose(one[name], two[name], atol=5e-6, err_msg=name)


def model(**compiled):
    inputs = {"x": tf_keras.Input((1,), name="x")}
    made = tf_keras.Model(inputs, tf_keras.layers.Dense(1)(inputs["x"]))
    made.compile(**{"optimizer": "sgd", "loss": "mse", **compiled})
    return made


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (lambda: model(optimizer="rmsprop"), "its optimizer is RMSprop; shown to be right are SGD and Adam"),
        (lambda: model(optimizer=tf_keras.optimizers.Adam(clipnorm=1.0)), "its optimizer uses clipnorm"),
        (lambda: tf_keras.Sequential([tf_keras.layers.Dense(1)]), "expected a functional model"),
    ],
    ids=["optimizer", "clipping", "not functional"],
)
def test_what_was_not_shown_to_be_right_is_refused(made, reason):
    with pytest.raises(ConfigError, match=reason):
        model_parallel.check(made(), "m:f")


def test_a_plain_model_is_taken():
    model_parallel.check(model(), "m:f")
    model_parallel.check(model(optimizer=tf_keras.optimizers.SGD(momentum=0.9, nesterov=True)), "m:f")


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: tf_keras.optimizers.SGD(0.1),
        lambda: tf_keras.optimizers.SGD(0.1, momentum=0.9),
        lambda: tf_keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
        lambda: tf_keras.optimizers.Adam(0.1, beta_1=0.8),
    ],
    ids=["plain", "momentum", "nesterov", "adam"],
)
def test_the_formulas_are_keras_s(optimizer):
    keras, random = optimizer(), np.random.default_rng(0)
    variable = tf.Variable(random.normal(size=(3, 2)).astype(np.float32))
    value = tf.constant(variable.numpy())
    count = 0 if type(keras).__name__ == "SGD" and not keras.momentum else 1 + (type(keras).__name__ == "Adam")
    slots = [tf.zeros_like(value)] * count
    for number in range(1, 6):
        gradient = tf.constant(random.normal(size=(3, 2)).astype(np.float32))
        keras.apply_gradients([(gradient, variable)])
        size = model_parallel.step_size(keras, 0.1, number)
        value, *slots = model_parallel.updated(keras, value, gradient, slots, size)
        np.testing.assert_allclose(value, variable, atol=1e-6)
