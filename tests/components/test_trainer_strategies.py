"""Every strategy on this machine's devices gives the weights of `single`, and `auto` picks among them."""

import json

import numpy as np
import pytest
import trainer_world
from trainer_world import weights

from evergreen.components import model_layout
from evergreen.components.trainer import devices, training
from evergreen.components.trainer.settings import TrainerSettings

pytestmark = pytest.mark.tensorflow

TWO_WORKERS = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
SERVERS = {"cluster": {"chief": ["c:1"], "worker": ["a:1"], "ps": ["d:1"]}, "task": {"type": "chief", "index": 0}}


def report_of(request):
    with open(f"{request.run_dir}/{model_layout.REPORT_FILE}") as file:
        return json.load(file)


@pytest.mark.parametrize(
    "settings",
    [
        {"strategy": "central_storage", "devices": 2},
        {"strategy": "central_storage", "devices": 2, "hyperparameters": {"schedule": True, "dropout": 0.0}},
        {"strategy": "mirrored", "devices": 2, "all_reduce": {"algorithm": "hierarchical", "bytes_per_pack": 100}},
        {"strategy": "auto", "devices": 2},
    ],
    ids=["central_storage", "central_storage, schedule", "mirrored", "auto"],
)
def test_two_devices_give_the_weights_of_one(world, tmp_path, settings):
    if settings["strategy"] == "auto":
        concrete, reason = devices.resolve(TrainerSettings.from_dict({"model": "m:f", **settings}))
        assert (concrete.strategy, reason) == ("mirrored", "trainer.devices is 2")
        settings = {"strategy": concrete.strategy, "devices": 2}
    several = trainer_world.train_apart(world, tmp_path / "several", **settings)
    assert report_of(several)["devices"] == ["CPU:0", "CPU:1"]
    alone = {**settings, "strategy": "single", "devices": 1}
    single = trainer_world.request(world, tmp_path / "single", {**trainer_world.SAME_SUMS, **alone})
    training.run(single)
    one, two = weights(single), weights(several)
    assert list(one) == list(two)
    for name in one:
        np.testing.assert_allclose(one[name], two[name], atol=5e-6, err_msg=name)


@pytest.mark.parametrize(
    ("config", "settings", "picked"),
    [
        ({}, {}, "single"),
        ({}, {"devices": 2}, "mirrored"),
        (TWO_WORKERS, {}, "multi_worker_mirrored"),
        (SERVERS, {}, "parameter_server"),
    ],
    ids=["one device", "devices", "workers", "servers"],
)
def test_auto_picks_by_what_it_sees_and_says_why(monkeypatch, config, settings, picked):
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    asked = TrainerSettings.from_dict({"model": "m:f", "strategy": "auto", **settings})
    resolved, reason = devices.resolve(asked)
    assert resolved.strategy == picked and reason
    assert devices.resolve(resolved) == (resolved, "")


def test_auto_gives_a_run_fn_no_cluster(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", json.dumps(SERVERS))
    asked = TrainerSettings.from_dict({"run_fn": "m:f", "strategy": "auto"})
    assert devices.resolve(asked)[0].strategy == "single"


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_weights_and_answers_in_float32_and_the_accuracy(world, tmp_path, precision):
    settings = {"steps": 100, "hyperparameters": {"dropout": 0.0, "learning_rate": 0.05}}
    full = training.run(trainer_world.request(world, tmp_path / "full", settings))
    asked = trainer_world.request(world, tmp_path / "mixed", {**settings, "precision": precision})
    mixed = training.run(asked)
    assert mixed["precision"] == precision
    assert mixed["final"]["val_auc"] > full["final"]["val_auc"] - 0.02
    assert all(array.dtype == np.float32 for array in weights(asked).values() if array.dtype.kind == "f")
    assert sum(mixed["peak_bytes"].values()) > 0
    from tf_keras import mixed_precision

    assert mixed_precision.global_policy().name == "float32"


def test_a_trace_of_some_steps_is_written(world, tmp_path):
    asked = trainer_world.request(world, tmp_path, {"steps": 12, "profile": [4, 6]})
    report = training.run(asked)
    assert report["steps"] == 12
    traces = list((tmp_path / "run" / "logs").rglob("*.xplane.pb"))
    assert len(traces) == 1 and traces[0].stat().st_size > 1000


def test_threads_are_asked_for_before_tensorflow_starts(world, tmp_path):
    asked = TrainerSettings.from_dict({"model": "m:f", "threads": {"inter_op": 1, "intra_op": 1}})
    assert not devices.enough(asked), "this process has started with other numbers"
    trained = trainer_world.train_apart(world, tmp_path, threads={"inter_op": 1, "intra_op": 1})
    assert report_of(trained)["steps"] == 20
