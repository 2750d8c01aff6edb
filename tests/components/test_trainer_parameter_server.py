"""Training with parameter servers, in real processes: equal to one device, and alive when processes are not."""

import json
import os
import signal
import time

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
import trainer_world
from trainer_world import weights

from evergreen.components import progress
from evergreen.components.errors import ConfigError
from evergreen.components.trainer import child, cluster, network, parameter_server, parts, training

pytestmark = pytest.mark.tensorflow
slow = pytest.mark.slow

# The embedding is split over two servers, its gradients are those of a few rows, and a weight is regularized.
WIDE = """
import tensorflow as tf
import tf_keras
from tf_keras import layers


def build_model(transform_output, hyperparameters):
    colour, size = tf_keras.Input((1,), name="colour", dtype=tf.int64), tf_keras.Input((1,), name="size")
    rows = layers.Embedding(140_000, 1)(colour * 19_999)
    x = layers.Concatenate()([layers.Flatten()(rows), size])
    x = layers.Dense(4, activation="relu", kernel_regularizer=tf_keras.regularizers.L2(0.05))(x)
    model = tf_keras.Model({"colour": colour, "size": size}, layers.Dense(1, activation="sigmoid")(x))
    loss = tf_keras.losses.BinaryCrossentropy(reduction=hyperparameters.get("reduction", "auto"))
    model.compile(tf_keras.optimizers.SGD(0.1 if loss.reduction == "auto" else 0.001), loss)
    return model
"""

# A worker with a file `delay` in its folder needs 200 ms more for a training step.
DELAYED = """
import tensorflow as tf
import tf_keras
from tensorflow.python.data.experimental.ops import testing
from tf_keras import layers


class Delay(layers.Layer):
    def call(self, x, training=None):
        if not training:
            return x
        name = tf.where(tf.reduce_all(tf.math.is_finite(x)), "delay", "none")  # not a constant, which would be folded
        # Twice: before the one element, and before the end.
        pause = tf.where(tf.size(tf.io.matching_files(name)) > 0, 100_000, 0)
        pauses = tf.data.Dataset.range(1).apply(testing.sleep(tf.cast(pause, tf.int64)))
        with tf.control_dependencies([pauses.reduce(tf.constant(0, tf.int64), lambda one, other: one + other)]):
            return tf.identity(x)


def build_model(transform_output, hyperparameters):
    size = tf_keras.Input((1,), name="size")
    model = tf_keras.Model({"size": size}, layers.Dense(1, activation="sigmoid")(Delay()(size)))
    model.compile("sgd", "binary_crossentropy")
    return model
"""

# Its gradients depend on the rows alone: the order of the updates, and how stale they are, change no weight.
LINEAR = """
import tensorflow as tf
import tf_keras
from tf_keras import layers


def build_model(transform_output, hyperparameters):
    colour, size = tf_keras.Input((1,), name="colour", dtype=tf.int64), tf_keras.Input((1,), name="size")
    rows = layers.Flatten()(layers.Embedding(7, 1)(colour))
    model = tf_keras.Model({"colour": colour, "size": size}, layers.Add()([rows, layers.Dense(1)(size)]))
    model.compile(tf_keras.optimizers.SGD(0.01), lambda label, output: tf.reduce_mean(output, -1))
    return model
"""


@pytest.fixture(scope="module")
def project(build_once):
    return build_once(
        "parameter_server_project",
        lambda folder: trainer_world.write_project(folder, wide_model=WIDE, delayed_model=DELAYED, linear_model=LINEAR),
    )


def request(world, out, settings, **changes):
    return trainer_world.request(world, out, {"strategy": "parameter_server", **settings}, **changes)


def train(asked, hear=lambda text: None):
    """Trains in a child process as the executor does; `hear` gets every line of progress."""
    progress.set_listener(lambda fraction, text: hear(text))
    try:
        return child.train(asked)
    finally:
        progress.set_listener(None)


def assert_equals_single(world, asked, out):
    single = trainer_world.request(
        world,
        out,
        {**json.loads(asked.to_json())["settings"], "strategy": "single", "backup_workers": 0},
        project_dir=asked.project_dir,
    )
    report = training.run(single)
    one, two = weights(single), weights(asked)
    assert list(one) == list(two)
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-5, atol=1e-6, err_msg=name)
    return report


def processes(asked):
    """Returns the ids of the local cluster's tasks by their names: each has its own working directory."""
    found = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            try:
                folder = os.readlink(f"{entry.path}/cwd")
            except OSError:
                continue
            if os.path.dirname(folder) == os.path.join(asked.run_dir, "cluster"):
                found[os.path.basename(folder)] = int(entry.name)
    return found


def cluster_ports(asked):
    with open(os.path.join(asked.run_dir, "cluster", cluster.PLAN_FILE), encoding="utf-8") as file:
        plan = cluster.read({"TF_CONFIG": file.read()})
    return {int(plan.address(task).rpartition(":")[2]) for task in plan.tasks()}


def listening_ports():
    found = set()
    for name in ("tcp", "tcp6"):
        with open(f"/proc/net/{name}", encoding="ascii") as file:
            for line in list(file)[1:]:
                fields = line.split()
                if fields[3] == "0A":
                    found.add(int(fields[1].rpartition(":")[2], 16))
    return found


class Once:
    """Does something at the first line of progress that says that some steps are done."""

    def __init__(self, step, action):
        self.step, self.action, self.done = step, action, False

    def __call__(self, text):
        if not self.done and text.startswith("step ") and int(text.split()[1].partition("/")[0]) >= self.step:
            self.done = True
            self.action()


def test_a_training_on_workers_equals_one_device_and_is_not_seen_from_outside(world, tmp_path):
    settings = {**trainer_world.SAME_SUMS, "steps": 12, "cluster": {"workers": 2, "ps": 1}}
    asked = request(world, tmp_path / "ps", settings)
    seen = {}

    def look():
        seen.update(processes=processes(asked), ports=cluster_ports(asked) & listening_ports())

    report = train(asked, Once(1, look))
    assert set(seen["processes"]) == {"worker-0", "worker-1", "ps-0"}
    assert not processes(asked)
    if network.private_prefix():
        assert not seen["ports"]
    single = assert_equals_single(world, asked, tmp_path / "single")
    assert report["devices"] == ["worker-0", "worker-1"] and report["replicas"] == 2
    assert report["steps"] == 12 and report["worker_losses"] == 0 and report["staleness"] == {}
    for ours, theirs in zip(report["curve"], single["curve"], strict=True):
        assert ours == pytest.approx(theirs, abs=2e-3)


@slow
@pytest.mark.parametrize("reduction", ["auto", "sum"])
def test_backup_workers_and_split_variables_change_no_weight(world, project, tmp_path, reduction):
    settings = {
        "model": "wide_model:build_model",
        "steps": 15,
        "global_batch_size": 60,
        "cluster": {"workers": 4, "ps": 2},
        "backup_workers": 1,
        "hyperparameters": {"reduction": reduction},
    }
    asked = request(world, tmp_path / "ps", settings, project_dir=str(project))
    report = train(asked)
    single = assert_equals_single(world, asked, tmp_path / "single")
    assert report["final"] == pytest.approx(single["final"], rel=1e-4)


@slow
@pytest.mark.parametrize(
    ("staleness", "most"),
    [({}, None), ({"scale": True}, None), ({"max_in_flight": 1}, 0), ({"max_in_flight": 2}, 2)],
    ids=["free", "scaled", "one in flight", "two in flight"],
)
def test_asynchronous_updates_converge_and_their_staleness_is_counted(world, tmp_path, staleness, most):
    settings = {**trainer_world.SAME_SUMS, "steps": 800, "update": "async", "cluster": {"workers": 2, "ps": 1}}
    report = train(request(world, tmp_path / "ps", {**settings, "staleness": staleness}))
    single = training.run(trainer_world.request(world, tmp_path / "single", {**settings, "strategy": "single"}))
    print("staleness", staleness, report["staleness"], report["final"], single["final"])
    assert sum(report["staleness"].values()) == report["steps"] == 800
    assert report["final"]["val_loss"] == pytest.approx(single["final"]["val_loss"], abs=0.01)
    if most is not None:
        assert max(map(int, report["staleness"])) <= most


@slow
def test_no_asynchronous_update_is_lost_or_adds_another_ones(world, project, tmp_path):
    """An optimizer's slots are shared: without a lock, two updates at once added some rows twice."""
    settings = {"model": "linear_model:build_model", "steps": 300, "update": "async", "global_batch_size": 60}
    asked = request(world, tmp_path / "ps", {**settings, "cluster": {"workers": 3, "ps": 1}}, project_dir=str(project))
    print("staleness", train(asked)["staleness"])
    assert_equals_single(world, asked, tmp_path / "single")


def train_delayed(world, project, out, backup_workers):
    settings = {
        "model": "delayed_model:build_model",
        "steps": 60,
        "global_batch_size": 60,
        "cluster": {"workers": 3, "ps": 1},
        "backup_workers": backup_workers,
    }
    asked = request(world, out, settings, project_dir=str(project))

    def delay(text):
        folder = os.path.join(asked.run_dir, "cluster", "worker-1")
        if os.path.isdir(folder):
            open(os.path.join(folder, "delay"), "w").close()

    return train(asked, delay)["step_ms"]


@slow
def test_a_backup_worker_makes_up_for_a_slow_one(world, project, tmp_path):
    without = train_delayed(world, project, tmp_path / "without", 0)
    backed = train_delayed(world, project, tmp_path / "backed", 1)
    print("without a backup", without, "with one", backed)
    assert without["p50"] > 200
    assert backed["p50"] < 100 and backed["p90"] < 150


@slow
@pytest.mark.parametrize("update", ["sync", "async"])
def test_a_worker_that_dies_is_started_again_and_reported(world, tmp_path, update):
    settings = {**trainer_world.SAME_SUMS, "steps": 400, "update": update, "cluster": {"workers": 2, "ps": 1}}
    asked = request(world, tmp_path / "ps", settings)
    report = train(asked, Once(5, lambda: os.kill(processes(asked)["worker-1"], signal.SIGKILL)))
    assert report["steps"] == 400 and report["worker_losses"] == 1
    assert not processes(asked)
    if update == "sync":
        assert_equals_single(world, asked, tmp_path / "single")


@slow
def test_a_ps_that_dies_ends_the_training_soon(world, tmp_path):
    settings = {"steps": 1_000_000, "cluster": {"workers": 2, "ps": 1}}
    asked = request(world, tmp_path, settings)
    killed = []

    def kill():
        os.kill(processes(asked)["ps-0"], signal.SIGKILL)
        killed.append(time.monotonic())

    with pytest.raises(cluster.LostProcess, match="ps-0 of the training cluster ended with -9"):
        train(asked, Once(3, kill))
    assert time.monotonic() - killed[0] < 20
    assert not processes(asked)


@slow
def test_a_killed_parent_leaves_no_process_behind(world, tmp_path):
    asked = request(world, tmp_path, {"steps": 10_000_000, "cluster": {"workers": 2, "ps": 1}})
    parent = trainer_world.start_parent(asked, tmp_path)
    try:
        assert any(line.startswith("step") for line in parent.stdout)
        found = processes(asked)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert len(found) == 3
    deadline = time.monotonic() + 20
    while processes(asked) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not processes(asked)


@pytest.mark.parametrize("method", ["train_step", "compute_loss"])
def test_a_model_with_a_step_of_its_own_is_refused(method):
    own = type("Own", (tf_keras.Model,), {method: lambda self, *args, **kwargs: None})
    size = tf_keras.Input((1,))
    parameter_server.refuse_own_steps(tf_keras.Sequential([tf_keras.layers.Dense(1)]))
    with pytest.raises(ConfigError, match=f"a model with a {method} of its own(.|\n)*Own overrides it"):
        parameter_server.refuse_own_steps(own(size, tf_keras.layers.Dense(1)(size)))


def test_weights_are_split_and_joined_as_the_variables_are():
    whole = [np.arange(10.0, dtype=np.float32).reshape(5, 2), np.float32(7), np.ones(3, np.float32)]
    shapes = [(2, 2), (2, 2), (1, 2), (), (3,)]
    variables = [tf.Variable(tf.zeros(shape)) for shape in shapes]
    parts.scatter(whole, variables)
    assert variables[2].numpy().tolist() == [[8.0, 9.0]]
    joined = parts.gather(variables, [tf.Variable(weight) for weight in whole])
    assert all(np.array_equal(one, other) for one, other in zip(whole, joined, strict=True))
