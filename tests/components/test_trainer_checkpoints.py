"""A training that was cut off goes on from its last checkpoint that is whole."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import trainer_world
from trainer_world import weights

from evergreen.components import user_code
from evergreen.components.trainer import checkpoints, loop, training
from evergreen.components.trainer.checkpoints import Keeper, State

pytestmark = pytest.mark.tensorflow

SETTINGS = {**trainer_world.SAME_SUMS, "steps": 40, "checkpoint_every": 5, "hyperparameters": {"dropout": 0.0}}


def state(step, shape=(2, 3)):
    return State(step, {"curve": [{"step": step}]}, [np.full(shape, step, np.float32)], [np.array(step)], [])


LIKE = ([np.zeros((2, 3))], [np.array(0)])


def test_the_newest_two_are_kept_and_the_newest_is_read(tmp_path):
    keeper = Keeper(str(tmp_path / "x"), every=5)
    assert keeper.read(*LIKE) is None
    for step in (5, 10, 15):
        keeper.write(state(step))
    assert sorted(os.listdir(tmp_path / "x")) == ["step-10.npz", "step-15.npz"]
    found = Keeper(str(tmp_path / "x"), every=5).read(*LIKE)
    assert found.step == 15 and found.values == {"curve": [{"step": 15}]}
    np.testing.assert_array_equal(found.weights[0], np.full((2, 3), 15))


def test_what_is_damaged_or_of_another_shape_is_passed_over(tmp_path):
    keeper = Keeper(str(tmp_path), every=5)
    keeper.write(state(5))
    keeper.write(state(10))
    (tmp_path / "step-10.npz").write_bytes((tmp_path / "step-10.npz").read_bytes()[:-50])
    (tmp_path / "step-99.npz.part").write_bytes(b"half")
    assert keeper.read(*LIKE).step == 5
    keeper.write(state(15, shape=(3, 3)))
    assert keeper.read(*LIKE) is None or keeper.read(*LIKE).step == 5


def test_it_is_due_so_many_steps_after_the_last(tmp_path):
    keeper = Keeper(str(tmp_path), every=5)
    assert [keeper.is_due(step) for step in (1, 4, 5, 9)] == [False, False, True, True]
    keeper.write(state(7))
    assert [keeper.is_due(step) for step in (8, 11, 12)] == [False, False, True]
    assert not Keeper(str(tmp_path), every=0).is_due(100)


def test_only_the_same_training_goes_on(world, tmp_path):
    first = trainer_world.request(world, tmp_path / "1" / "model" / "7", SETTINGS)
    same = trainer_world.request(world, tmp_path / "1" / "model" / "7", {**SETTINGS, "checkpoint_every": 9})
    assert checkpoints.folder(first) == checkpoints.folder(same)
    for change in ({"settings": {**SETTINGS, "steps": 41}}, {"fingerprint": "other code"}):
        settings = change.pop("settings", SETTINGS)
        other = trainer_world.request(world, tmp_path / "1" / "model" / "7", settings, **change)
        assert checkpoints.folder(first) != checkpoints.folder(other)


@pytest.mark.parametrize("stopping", [None, {"every": 5, "patience": 50}], ids=["plain", "early stopping"])
def test_a_training_that_was_cut_off_ends_with_the_same_bits(world, tmp_path, monkeypatch, stopping):
    settings = {**SETTINGS, "early_stopping": stopping}
    whole = trainer_world.request(world, tmp_path / "whole" / "out", settings)
    training.run(whole)
    cut = trainer_world.request(world, tmp_path / "cut" / "out", settings)
    execute = loop.Loop.execute

    def die(self, count):
        if self.outcome.steps >= 22:
            raise KeyboardInterrupt
        return execute(self, count)

    monkeypatch.setattr(loop.Loop, "execute", die)
    with pytest.raises(KeyboardInterrupt):
        training.run(cut)
    monkeypatch.setattr(loop.Loop, "execute", execute)
    report = training.run(cut)
    assert 15 <= report["resumed_from"] <= 30 and report["steps"] == 40
    assert [point["step"] for point in report["curve"]] == sorted({point["step"] for point in report["curve"]})
    assert report["curve"][-1]["step"] == 40
    one, two = weights(whole), weights(cut)
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert not Path(checkpoints.folder(cut)).parent.exists(), "a finished training leaves no checkpoints"


def test_killed_at_any_step_the_next_one_goes_on(world, tmp_path):
    settings = {**SETTINGS, "steps": 3000, "checkpoint_every": 20}
    asked = trainer_world.request(world, tmp_path / "node" / "out", settings)
    (tmp_path / "request.json").write_text(asked.to_json())
    command = [sys.executable, "-m", "evergreen.components.trainer.child", str(tmp_path / "request.json")]
    process = subprocess.Popen(
        [*command, str(tmp_path / "result.json"), str(os.getpid())],
        stdout=subprocess.DEVNULL,
        env=user_code.child_environment(asked.project_dir),
    )
    kept = Path(checkpoints.folder(asked))
    end = time.monotonic() + 120
    while not (kept.is_dir() and any(name.endswith(".npz") for name in os.listdir(kept))):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    report = training.run(asked)
    assert 0 < report["resumed_from"] < 3000 and report["steps"] == 3000
    assert json.loads((tmp_path / "node" / "out" / "run" / "report.json").read_text())["resumed_from"] > 0
