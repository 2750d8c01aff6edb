"""Recovery of a workspace whose run died after its version stood in the base path, and was withdrawn."""

from __future__ import annotations

from project_world import YAML
from pusher_world import Project

from evergreen.components.pusher import publish
from evergreen.pipeline import config, recovery
from evergreen.pipeline.store import Result, Store


def test_a_withdrawn_version_is_no_published_one(tmp_path):
    (tmp_path / "evergreen.yaml").write_text(YAML)
    project = Project(tmp_path)
    project.push(1)
    project.push(2)
    loaded = config.load(tmp_path / "evergreen.yaml")
    store = Store(loaded.connection, loaded.name)
    for run in ("run-1", "run-2"):
        store.begin_run(run, {"trigger": "manual"})
    publish.withdraw(project.base, 1002, "It answered with NaN.")
    found = recovery.recover(loaded, store)
    first, second = store.runs()
    assert (first.id, first.result, first.pushed_version) == ("run-1", Result.PUBLISHED, 1001)
    assert (second.id, second.result) == ("run-2", Result.WITHDRAWN)
    assert second.reason == "version 1002 was withdrawn: It answered with NaN."
    assert found.adopted == {"run-1": 1001, "run-2": 1002}
