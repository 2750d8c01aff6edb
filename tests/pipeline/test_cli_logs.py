"""`evergreen logs`: which runs left logs, and what is in them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading

import pytest
from project_world import YAML

from evergreen.pipeline import cli


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "evergreen.yaml").write_text(YAML)
    for run in ("20260101T000000-1", "20260102T000000-1"):
        folder = tmp_path / ".evergreen/logs" / run
        folder.mkdir(parents=True)
        for age, name in enumerate(("Trainer", "SpanExampleGen.3", "run")):
            file = folder / f"{name}.log"
            file.write_text(f"{run} {name} 1\n{run} {name} 2\n")
            os.utime(file, (1_800_000_000 - age, 1_800_000_000 - age))
    (tmp_path / ".evergreen/logs/errors.log").write_text("x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    status = cli.main(["logs", *arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_lists_the_runs(project, capsys):
    status, out, _ = run(capsys)
    lines = out.splitlines()
    assert status == 0
    assert [line.split()[0] for line in lines[2:]] == ["20260101T000000-1", "20260102T000000-1"]
    assert lines[2].split()[-2:] == ["2", "Trainer"]


def test_lists_them_for_programs(project, capsys):
    listed = json.loads(run(capsys, "--json")[1])
    assert [entry["run"] for entry in listed] == ["20260101T000000-1", "20260102T000000-1"]
    assert listed[0]["stages"] == ["SpanExampleGen.3", "Trainer"]


def test_before_the_first_run(project, capsys):
    status, out, _ = run(capsys, "--set", "workspace=new")
    assert status == 0
    assert "no run has left a log" in out


@pytest.mark.parametrize("name", ["20260102T000000-1", "20260102", "last"])
def test_a_run_by_its_id_its_beginning_or_last(project, capsys, name):
    assert run(capsys, name)[1] == "20260102T000000-1 run 1\n20260102T000000-1 run 2\n"


def test_a_stage_in_any_case(project, capsys):
    assert run(capsys, "last", "trainer", "--tail", "1")[1] == "20260102T000000-1 Trainer 2\n"
    assert "SpanExampleGen.3 1" in run(capsys, "last", "SpanExampleGen.3")[1]


def test_a_beginning_that_several_runs_have(project, capsys):
    status, _, err = run(capsys, "2026")
    assert status == 2
    assert "2 runs begin so: 20260101T000000-1, 20260102T000000-1" in err


def test_a_run_or_a_stage_that_is_not_there(project, capsys):
    status, _, err = run(capsys, "2027")
    assert status == 2
    assert "the newest are: 20260101T000000-1, 20260102T000000-1" in err
    status, _, err = run(capsys, "last", "Trainr")
    assert status == 2
    assert "did you mean Trainer?" in err


def test_following_prints_what_is_added_until_it_is_interrupted(project):
    file = project / ".evergreen/logs/20260102T000000-1/Trainer.log"
    arguments = ["logs", "last", "Trainer", "--follow", "--tail", "1"]
    program = f"import sys; from evergreen.pipeline.cli import main; sys.exit(main({arguments!r}))"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        timer = threading.Timer(20, child.kill)
        timer.start()
        assert child.stdout.readline() == "20260102T000000-1 Trainer 2\n"
        with open(file, "a") as log:
            log.write("added\n")
        assert child.stdout.readline() == "added\n"
        child.send_signal(signal.SIGINT)
        assert child.wait() == 130
        timer.cancel()
