"""Every strategy trains the flights example from raw data to a published version."""

from __future__ import annotations

import json
import signal

import integration_world as world
import pytest

from evergreen.components.trainer import cluster
from evergreen.components.trainer.cluster import Plan, Task

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

STRATEGIES = {
    "auto": (["trainer.devices=2"], 2),
    "mirrored": (["trainer.devices=2"], 2),
    "central_storage": (["trainer.devices=2"], 2),
    "multi_worker_mirrored": (["trainer.cluster={workers: 2}"], 2),
    "parameter_server": (["trainer.cluster={workers: 3, ps: 1}", "trainer.backup_workers=1"], 3),
    "model_parallel": (["trainer.mesh=[1, 2]"], 1),
}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_version_is_published(tmp_path, strategy):
    settings, replicas = STRATEGIES[strategy]
    project = world.flights_project(tmp_path / "flights", steps=12)
    world.deliver(project, [1, 2], step=40)
    asked = [f"trainer.strategy={strategy}", *settings]
    process = project.spawn("run", *(word for setting in asked for word in ("--set", setting)))
    printed, _ = process.communicate(timeout=600)
    assert process.returncode == 0, printed
    (version,) = project.versions()
    assert version["problem"] is None and version["span"] == 2
    (report,) = (project.workspace / "artifacts" / "Trainer" / "model_run").glob("*/report.json")
    said = json.loads(report.read_text())
    assert (said["steps"], said["replicas"]) == (12, replicas)
    assert said["strategy"] == ("mirrored" if strategy == "auto" else strategy)


HOSTS = {
    "multi_worker_mirrored": {"worker": 2},
    "parameter_server": {"chief": 1, "worker": 1, "ps": 1},
}


@pytest.mark.parametrize("strategy", HOSTS)
def test_hosts_publish_a_version_by_the_strategy_that_tf_config_asks_for(tmp_path, monkeypatch, strategy):
    project = world.flights_project(tmp_path / "flights", steps=12)
    world.deliver(project, [1, 2], step=40)
    addresses = iter(cluster.free_addresses(3))
    plan = Plan({job: tuple(next(addresses) for _ in range(count)) for job, count in HOSTS[strategy].items()})
    leading, *others = sorted(plan.tasks(), key=lambda task: task not in cluster.leading(plan))
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def spawn(task: Task, *command: str):
        monkeypatch.setenv(cluster.VARIABLE, plan.config(task))
        return project.spawn(*command)

    hosts = [spawn(task, "worker") for task in others]
    try:
        process = spawn(leading, "run", "--set", "trainer.strategy=auto")
        printed, _ = process.communicate(timeout=600)
    finally:
        for host in hosts:
            host.send_signal(signal.SIGTERM)
    told = [host.communicate(timeout=60)[0] for host in hosts]
    assert process.returncode == 0, printed
    (version,) = project.versions()
    assert version["problem"] is None
    assert all("takes part in a training of 127.0.0.1" in text for text in told), told
    log = project.evergreen("logs", "last", "Trainer").text
    assert f"trainer.strategy: auto is {strategy}: TF_CONFIG names" in log
    assert f"strategy {strategy}: " in log and "examples per second" in log and "12 steps from step 0 on" in log
