"""ML Metadata on MariaDB and PostgreSQL: two retrainings, and what the commands read of them."""

from __future__ import annotations

import database_world
import integration_world as world
import pytest

from evergreen.pipeline.connection import PASSWORD_VARIABLE

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]


@pytest.fixture(params=["mysql", "postgresql"])
def server(request, tmp_path_factory, monkeypatch):
    if database_world.programs(request.param) is None:
        pytest.skip(f"no {request.param} server is installed")
    monkeypatch.setenv(PASSWORD_VARIABLE, database_world.PASSWORD)
    with database_world.running(request.param, tmp_path_factory.mktemp("server")) as running:
        yield running


def test_two_retrainings_and_their_lineage(server, tmp_path):
    project = world.flights_project(tmp_path / "flights", steps=20)
    project.change(metadata=server.url)
    world.deliver(project, [1, 2], step=20)
    answer = project.evergreen("run")
    assert answer.status == 0, answer.text
    world.deliver(project, [3], step=20)
    answer = project.evergreen("run")
    assert answer.status == 0, answer.text
    assert not (project.workspace / "metadata.db").exists()
    newer, older = project.versions()
    assert [run["result"] for run in project.runs()] == ["published", "published"]
    assert all(0 < run["seconds"] < 600 for run in project.runs()), "times are read back as they were written"
    found = project.evergreen("lineage", "--json").json
    assert found["version"] == newer["version"]
    assert [use["span"] for use in found["window"]] == [1, 2, 3]
    assert [one["version"] for one in found["ancestors"]] == [older["version"]]
    assert "nothing to do" in project.evergreen("run").text
    assert database_world.PASSWORD not in answer.text
