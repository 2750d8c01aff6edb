"""Every strategy trains the flights example from raw data to a published version."""

from __future__ import annotations

import json

import integration_world as world
import pytest

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
