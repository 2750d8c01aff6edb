"""Which GPUs there are, and which of them each local task gets."""

import time
from pathlib import Path

import pytest

from evergreen.components.trainer import cluster, devices
from evergreen.components.trainer.cluster import Task
from evergreen.components.trainer.local_cluster import LocalCluster


@pytest.mark.parametrize(
    ("named", "expected"),
    [("", []), ("-1", []), ("3", ["3"]), ("0, GPU-5d1", ["0", "GPU-5d1"]), ("1,-1,0", ["1"])],
)
def test_visible_gpus_are_those_that_cuda_takes(monkeypatch, named, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert devices.visible_gpus() == expected


def environment(pid):
    """Reads a process's variables, which the kernel shows a moment after it has begun."""
    deadline = time.monotonic() + 60
    while not (text := Path(f"/proc/{pid}/environ").read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return dict(variable.split("=", 1) for variable in text.split("\0") if variable)


@pytest.mark.parametrize(("named", "workers"), [("4,7", ["4", "7", "4"]), ("", ["", "", ""])])
def test_local_workers_get_a_gpu_each_in_turn_and_servers_none(monkeypatch, tmp_path, named, workers):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    with LocalCluster(cluster.plan_local(3, 1), str(tmp_path)) as local:
        found = {task: environment(pid)["CUDA_VISIBLE_DEVICES"] for task, pid in local.pids.items()}
    assert found == {**{Task("worker", number): gpu for number, gpu in enumerate(workers)}, Task("ps", 0): ""}
