"""SIGKILL at any moment: complete versions only, nothing stays RUNNING, and the next `evergreen run` publishes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import integration_world as world
import pytest

from evergreen.pipeline.settings import STAGES

pytestmark = pytest.mark.tensorflow

LIMIT = 300.0


@pytest.fixture(scope="module")
def published(build_once) -> Path:
    """A project with one version, whose third month has arrived; every test takes a copy."""

    def build(folder: Path) -> None:
        project = world.flights_project(folder / "flights", steps=20)
        world.deliver(project, [1, 2], step=30)
        answer = project.evergreen("run")
        assert answer.status == 0, answer.text
        world.deliver(project, [3], step=30)

    return build_once("to-be-killed", build) / "flights"


@pytest.fixture
def project(published, tmp_path) -> world.Project:
    """The copy stands where the original stood while its test runs: ML Metadata holds absolute paths."""
    aside = tmp_path / "original"
    shutil.copytree(published, aside)
    yield world.Project(published)
    shutil.rmtree(published)
    shutil.move(aside, published)


def _kill(process: subprocess.Popen) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def _until_line(process: subprocess.Popen, wanted: str) -> None:
    """Reads the run's plain lines until one begins so."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if " ".join(line.split()).startswith(wanted):
            return
    raise AssertionError(f"the run ended before `{wanted}`:\n{''.join(seen)}")


def _until(process: subprocess.Popen, happened: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not happened():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.002)


def _check(project: world.Project) -> None:
    """After a kill: the base path is whole; after the next run: published once, nothing RUNNING, nothing left over."""
    killed_at = project.versions()
    assert all(version["problem"] is None for version in killed_at)
    assert len(killed_at) in (1, 2)
    answer = project.evergreen("run")
    assert answer.status == 0, answer.text
    versions = project.versions()
    assert len(versions) == 2, [v["version"] for v in versions]
    assert versions[0]["span"] == 3
    assert all(version["problem"] is None for version in versions)
    assert 2 not in project.states(), "an execution stayed RUNNING"
    results = [run["result"] for run in project.runs()]
    assert "running" not in results
    assert results[0] in ("published", "unchanged")
    leftovers = [p.name for p in project.base_path.iterdir() if "staging" in p.name]
    assert leftovers == []
    assert "nothing to do" in project.evergreen("run").text


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_the_start_of_a_stage(project, stage):
    process = project.spawn("run")
    _until_line(process, f"start {stage} ")
    _kill(process)
    _check(project)


def test_killed_in_the_middle_of_the_trainer(project):
    process = project.spawn("run", "--set", "trainer.steps=1000000")
    _until_line(process, "start Trainer ")
    log = next(iter(sorted((project.workspace / "logs").iterdir(), reverse=True))) / "Trainer.log"
    _until(process, lambda: log.exists())
    time.sleep(8)
    assert process.poll() is None
    _kill(process)
    _check(project)


@pytest.mark.slow
@pytest.mark.parametrize("what", [".staging", "_lite", "second version"])
def test_killed_in_the_middle_of_the_pusher(project, what):
    base, lite = project.base_path, project.base_path.with_name("serving_lite")

    def happened() -> bool:
        if what == ".staging":
            return any("staging" in name for name in os.listdir(base))
        folder = lite if what == "_lite" else base
        return sum(name.isdigit() for name in os.listdir(folder)) == 2

    process = project.spawn("run")
    _until(process, happened)
    _kill(process)
    _check(project)
    if what == "second version":
        # The killed run did publish, and ML Metadata says so: nothing was trained a second time.
        (version, _), (run, _) = project.versions(), project.runs()
        assert (run["id"], run["result"], run["pushed_version"]) == (version["run"], "published", version["version"])
        assert run["metrics"]["exam"] == version["metrics"]
        assert project.pushed() == [version["version"] for version in reversed(project.versions())]
