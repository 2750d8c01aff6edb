"""`multi_worker_mirrored` with real processes: the weights of `single`, a restart when one dies, nobody left behind."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import trainer_world
from trainer_world import weights

from evergreen.components import model_layout, progress
from evergreen.components.errors import ModelRejected
from evergreen.components.trainer import checkpoints, job, training

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

STRATEGY = {"strategy": "multi_worker_mirrored", "cluster": {"workers": 2}}


def children() -> list[int]:
    """Training processes that this one has started, by their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes()
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        if b"evergreen.components.trainer.child" in command and parent == os.getpid():
            found.append(int(entry.name))
    return sorted(found)


def test_two_processes_give_the_weights_of_one(world, tmp_path, monkeypatch):
    # gRPC would look for the other process behind a proxy, and wait for it for ever.
    for name, value in {"http_proxy": "http://127.0.0.1:9", "no_proxy": "", "NO_PROXY": ""}.items():
        monkeypatch.setenv(name, value)
    several = trainer_world.request(
        world, tmp_path / "2" / "out", {**trainer_world.SAME_SUMS, **STRATEGY, "all_reduce": {"algorithm": "ring"}}
    )
    heard = []
    progress.set_listener(lambda fraction, text: heard.append(text))
    try:
        report = job.train(several)
    finally:
        progress.set_listener(None)
    assert report["strategy"] == "multi_worker_mirrored" and report["replicas"] == 2 and report["restarts"] == 0
    assert any("step" in text for text in heard)
    single = trainer_world.request(world, tmp_path / "1" / "out", trainer_world.SAME_SUMS)
    training.run(single)
    one, two = weights(single), weights(several)
    assert list(one) == list(two)
    for name in one:
        np.testing.assert_allclose(one[name], two[name], atol=1e-6, err_msg=name)
    assert children() == []


def test_a_process_that_dies_costs_a_restart_from_the_checkpoint(world, tmp_path):
    settings = {**trainer_world.SAME_SUMS, **STRATEGY, "steps": 2000, "checkpoint_every": 50}
    asked = trainer_world.request(world, tmp_path / "node" / "out", settings)
    kept = Path(checkpoints.folder(asked))

    def kill() -> None:
        end = time.monotonic() + 200
        while time.monotonic() < end and not (kept.is_dir() and list(kept.glob("*.npz"))):
            time.sleep(0.01)
        os.kill(children()[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    report = job.train(asked)
    killer.join()
    assert report["restarts"] == 1 and 0 < report["resumed_from"] < 2000 and report["steps"] == 2000
    assert children() == []
    written = json.loads((Path(asked.run_dir) / model_layout.REPORT_FILE).read_text())
    assert written["resumed_from"] == report["resumed_from"]


def test_a_refusal_is_one_and_no_restart(world, tmp_path):
    model = trainer_world.MODEL.replace('activation="sigmoid")(x)', 'activation="sigmoid")(x * 1e38 * 1e38)')
    modules = {"tiny_features": trainer_world.FEATURES, "tiny_model": model}
    project = trainer_world.write_project(tmp_path / "project", **modules)
    asked = trainer_world.request(world, tmp_path / "node" / "out", STRATEGY, project_dir=str(project))
    with pytest.raises(ModelRejected, match="training gave NaN"):
        job.train(asked)
    assert children() == []
