"""ML Metadata on MariaDB and PostgreSQL: real runs' records moved there and gone on with, and retrainings there."""

from __future__ import annotations

import shutil

import database_world
import integration_world as world
import pytest

pytestmark = pytest.mark.tensorflow


def test_a_real_store_moves_and_answers_and_the_next_span_is_decided_there(database_server, lived, tmp_path):
    shutil.copytree(lived.folder, tmp_path / "flights", symlinks=True)
    project = world.Project(tmp_path / "flights")
    newest, older = (version["version"] for version in project.versions())
    asked = [("runs", "--all"), ("lineage",), ("lineage", "--span", "3"), ("diff", str(older), str(newest))]
    before = [project.evergreen(*question, "--json").json for question in asked]
    moved = project.evergreen("migrate", "--to", database_server.url)
    assert moved.status == 0, moved.text
    project.change(metadata=database_server.url)
    (project.workspace / "metadata.db").unlink()
    assert [project.evergreen(*question, "--json").json for question in asked] == before
    world.deliver(project, [5])
    decided = project.evergreen("run", "--decide-only")
    assert decided.status == 0, decided.text
    assert [(run["span"], run["result"]) for run in project.runs()][:2] == [(5, "decided"), (4, "published")]
    assert {stage["state"] for stage in project.runs()[0]["stages"]} <= {"done"}
    assert "span 5" in project.evergreen("plan").text
    assert project.evergreen("lineage", "--span", "5", "--json").json["deliveries"][0]["verdict"] == "accepted"


@pytest.mark.slow
def test_two_retrainings_and_their_lineage(database_server, tmp_path):
    project = world.flights_project(tmp_path / "flights", steps=20)
    project.change(metadata=database_server.url)
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
