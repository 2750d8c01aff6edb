"""Where a step's time goes: what is slow shows in the part that it belongs to, and the parts are the whole."""

import json
import time

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
import trainer_world

from evergreen.components.trainer import loop, report
from evergreen.components.trainer.input_path import Dataset
from evergreen.components.trainer.settings import TrainerSettings
from evergreen.components.trainer.timing import Clock

pytestmark = pytest.mark.tensorflow

SLOW_S = 0.02
CALLS = 5


def slowly(value, seconds=SLOW_S):
    """Gives its argument back after a while."""

    def wait(same):
        time.sleep(seconds)
        return same

    return tf.numpy_function(wait, [value], value.dtype)


def run(clock, step):
    """Runs a step in a graph some times, the first one apart; returns the seconds of the others."""
    function = tf.function(step)
    function()
    clock.reset()
    started = time.monotonic()
    for _ in range(CALLS):
        function()
    return time.monotonic() - started


def test_input_that_is_slow_shows_as_input():
    clock = Clock()
    data = tf.data.Dataset.from_tensors(1.0).repeat().map(slowly)
    iterator = iter(data)
    seconds = run(clock, lambda: clock.next_batch(iterator))
    # The iterator may fetch the first batch ahead.
    assert SLOW_S * (CALLS - 1) <= clock.input_s <= seconds
    assert clock.communication_s == 0.0


@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "loss scale"])
def test_gradients_that_are_slow_show_as_communication(scaled):
    optimizer = tf_keras.optimizers.SGD(1.0)
    aggregate = optimizer.aggregate_gradients
    optimizer.aggregate_gradients = lambda pairs: [(slowly(gradient), one) for gradient, one in aggregate(pairs)]
    outer = tf_keras.mixed_precision.LossScaleOptimizer(optimizer) if scaled else optimizer
    variable = tf.Variable(100.0)
    outer.build([variable])
    clock = Clock()
    clock.watch(outer)
    seconds = run(clock, lambda: outer.apply_gradients([(tf.constant(1.0), variable)]))
    assert SLOW_S * CALLS <= clock.communication_s <= seconds
    assert clock.input_s == 0.0
    assert clock.has_communication


def test_an_optimizer_that_adds_up_elsewhere_is_left_alone():
    clock = Clock()
    clock.watch(tf_keras.optimizers.legacy.SGD(1.0))
    assert not clock.has_communication


def test_the_parts_of_a_step_are_its_time():
    model = tf_keras.Sequential([tf_keras.layers.Dense(1, input_shape=(1,))])
    model.compile("sgd", "mse")
    rows = np.ones([8, 1], np.float32)

    batch_s = 0.05  # far more than this step computes, on a busy machine too

    def batches(batch, seed, skip=0):
        return tf.data.Dataset.from_tensors((rows, rows)).repeat().map(lambda x, y: (slowly(x, batch_s), y))

    data = Dataset(8, {}, 0, batches)
    settings = TrainerSettings(model="m:f", steps=40, global_batch_size=8)
    outcome = loop.Loop(model, tf.distribute.get_strategy(), data, Dataset(0, {}, 0, batches), settings).run()
    parts = report.step_parts(outcome)
    assert sum(parts.values()) == pytest.approx(outcome.timed_s / outcome.timed_steps * 1e3, rel=1e-3)
    # Batches are fetched ahead, some before the first step: a step waits for what is left of one.
    assert parts["input"] > batch_s * 1e3 / 2 and parts["compute"] < parts["input"] and parts["communication"] == 0.0
    assert outcome.input_s / outcome.timed_s > 0.5


def test_replicas_say_how_long_their_gradients_took(world, tmp_path):
    asked = trainer_world.train_apart(world, tmp_path, strategy="mirrored", devices=2, steps=40)
    with open(f"{asked.run_dir}/report.json") as file:
        said = json.load(file)
    assert 0 < said["step_parts_ms"]["communication"] < said["step_ms"]["p90"] * 2
    assert 0 < said["input_share"] < 1
    lines = report.describe(said)
    assert lines[0] == "strategy mirrored: 2 replicas on CPU:0, CPU:1; batch 64, 32 for each replica"
    assert "input" in lines[1] and "communication" in lines[1] and "waiting for input" in lines[2]
    assert lines[3] == "40 steps from step 0 on, 0 checkpoints, 0 restarts, 0 workers lost"


def test_staleness_is_told_as_shares():
    told = {
        "strategy": "parameter_server",
        "replicas": 2,
        "devices": ["worker-0", "worker-1"],
        "global_batch_size": 8,
        "per_replica_batch_size": 4,
        "step_ms": {"p50": 1.0, "p90": 2.0},
        "step_parts_ms": {"input": 0.1, "compute": 0.9, "communication": None},
        "input_share": None,
        "examples_per_second": 8000.0,
        "steps": 4,
        "resumed_from": 0,
        "checkpoints": 0,
        "restarts": 1,
        "worker_losses": 0,
        "staleness": {"0": 3, "1": 1},
    }
    lines = report.describe(told)
    assert lines[-1] == "staleness of the updates: 0: 75.0%, 1: 25.0%"
    assert "communication" not in lines[1]


def test_a_run_fn_that_trains_is_only_counted():
    assert report.describe({"steps": 7}) == ["trained by run_fn: 7 steps"]
