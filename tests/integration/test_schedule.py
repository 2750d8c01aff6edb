"""`evergreen schedule` over real retrainings: published once each, whatever is killed."""

from __future__ import annotations

import json
import os
import signal
import time

import integration_world as world
import psutil
import pytest

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

LIMIT_S = 900.0


def results(project: world.Project) -> list[tuple[str, str, int | None]]:
    """Trigger, result and version of every run, oldest first."""
    return [(run["trigger"], run["result"], run["pushed_version"]) for run in reversed(project.runs())]


def finish(process) -> str:
    out, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, out
    return out


def test_months_without_a_person(tmp_path):
    project = world.flights_project(tmp_path / "flights", steps=20)
    world.deliver(project, [1, 2], step=30)
    out = finish(project.spawn("schedule", "--every", "1s", "--max-runs", "2"))
    assert "nothing to do" in out
    versions = project.versions()
    assert [version["span"] for version in versions] == [2]
    assert results(project) == [("every", "published", versions[0]["version"])]
    (run,) = project.store().runs()
    assert run.properties["scheduled_time"].endswith("Z")

    # The next month; the scheduler is killed in the middle of its retraining.
    world.deliver(project, [3], step=30)
    process = project.spawn("schedule", "--every", "1s", "--max-runs", "1")
    end = time.monotonic() + LIMIT_S
    for line in process.stdout:
        assert time.monotonic() < end
        if "start Trainer" in " ".join(line.split()):
            break
    running = json.loads((project.workspace / "schedule" / "state.json").read_text())["running"]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while psutil.pid_exists(running["pid"]):
        assert time.monotonic() < end
        time.sleep(0.1)
    process.stdout.close()

    out = finish(project.spawn("schedule", "--every", "1s", "--max-runs", "1"))
    assert "it is taken up again" in out
    assert [version["span"] for version in project.versions()] == [3, 2]
    assert [result for _, result, _ in results(project)] == ["published", "killed", "published"]
    assert 2 not in project.states(), "an execution stayed RUNNING"
    status = project.evergreen("status", "--json").json["schedule"]
    assert [run["result"] for run in status["last"]] == ["published", "nothing", "published"]

    # A catch-up decides a span and trains nothing; its turn comes when it is wanted.
    world.deliver(project, [4], step=30)
    answer = project.evergreen("run", "--decide-only", "--trigger", "catch_up")
    assert answer.status == 0, answer.text
    assert results(project)[-1] == ("catch_up", "decided", None)
    assert [version["span"] for version in project.versions()] == [3, 2]
    assert "is accepted and was not trained on" in project.evergreen("plan").text

    # The same for a trigger that asks how far the month is from the one that the live model was trained on.
    world.deliver(project, [12], step=30)
    schema = project.folder / "schema.pbtxt"
    schema.write_text(schema.read_text().replace("threshold: 0.9", "threshold: 0.0001"))
    project.change(data={"on_anomalies": "warn"}, schedule={"on_drift": True})
    file = tmp_path / "result.json"
    answer = project.evergreen("run", "--decide-only", "--result-file", str(file))
    assert answer.status == 0, answer.text
    assert "carrier" in json.loads(file.read_text())["drift"]


def test_a_backfill_then_room_then_the_next_month(tmp_path):
    project = world.flights_project(tmp_path / "flights", steps=20)
    project.change(data={"window": 1, "min_window": 1})
    world.deliver(project, [1, 2, 3, 4, 5], step=30)
    for first, last in (("1", "3"), ("4", "5")):
        answer = project.evergreen("backfill", "--from", first, "--to", last)
        assert answer.status == 0, answer.text
    assert [(run["label"], run["result"]) for run in reversed(project.runs())] == [
        ("1", "decided"),
        ("2", "decided"),
        ("3", "published"),
        ("4", "decided"),
        ("5", "published"),
    ]
    assert [version["span"] for version in project.versions()] == [5, 3]

    def artifacts(kind: str) -> list[int]:
        return [a.state for a in project.store().mlmd.get_artifacts_by_type(kind)]

    listed = json.loads(project.evergreen("gc", "--json").text)["artifacts"]
    assert {one["type"] for one in listed} == {"Examples"}
    answer = project.evergreen("gc", "--delete")
    assert answer.status == 0, answer.text
    assert artifacts("Examples").count(4) == len(listed) == 3
    assert all(not os.path.exists(one["path"]) for one in listed)
    assert 4 not in artifacts("Model")

    assert "nothing to do" in project.evergreen("run").text
    world.deliver(project, [6], step=30)
    answer = project.evergreen("run")
    assert answer.status == 0, answer.text
    assert [version["span"] for version in project.versions()] == [6, 5, 3]
