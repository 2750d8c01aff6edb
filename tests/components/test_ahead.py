"""Processes that wait for their work."""

import json
import subprocess
import sys

import pytest

from evergreen.components import ahead


@pytest.fixture(autouse=True)
def _nothing_left():
    yield
    ahead.end()


def program(code="import sys; print(sys.stdin.readline())"):
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_process_is_taken_once_and_does_the_work_that_it_is_told():
    ahead.start("echo", program)
    ahead.start("echo", lambda: pytest.fail("one waits already"))
    process = ahead.take("echo")
    assert process.communicate(json.dumps("work"), timeout=20)[0].strip() == '"work"'
    assert ahead.take("echo") is None


def test_one_that_has_died_is_not_handed_out():
    processes = []
    ahead.start("dead", lambda: processes.append(program("raise SystemExit(1)")) or processes[0])
    processes[0].wait()
    assert ahead.take("dead") is None
    assert processes[0].stdin.closed


def test_those_that_nobody_took_are_ended():
    processes = []
    ahead.start("idle", lambda: processes.append(program()) or processes[0])
    ahead.end()
    assert processes[0].poll() is not None
    assert ahead.take("idle") is None


def test_without_a_second_core_none_is_started(monkeypatch):
    monkeypatch.setattr(ahead, "cores", lambda: 1)
    ahead.start("idle", lambda: pytest.fail("it would only slow the rest down"))
