"""The watchdog: who starts has time, who falls silent has little, and a training that makes steps is left alone."""

import time

import pytest

from evergreen.components import progress
from evergreen.components.trainer import cluster, watchdog
from evergreen.components.trainer.cluster import Plan, Task
from evergreen.components.trainer.watchdog import Watchdog

PLAN = Plan({"chief": ("c:1",), "worker": ("a:1", "b:1"), "ps": ("d:1",)})
TIMEOUT_S = 0.4


@pytest.fixture
def answering(monkeypatch):
    """Which addresses answer; the watchdog looks often, and a start takes a second and a half."""
    found = {"a:1", "b:1", "d:1"}
    monkeypatch.setattr(cluster, "answers", lambda address: address in found)
    monkeypatch.setattr(cluster, "START_S", 1.5)
    monkeypatch.setattr(watchdog, "_LOOK_S", 0.02)
    monkeypatch.setattr(watchdog, "QUIET_S", 0.1)
    return found


@pytest.fixture
def ends():
    """Why the process would have ended, with the time."""
    found = []
    watchdog.set_end(lambda reason: found.append((time.monotonic(), reason)))
    yield found
    watchdog.set_end(None)


def wait(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(condition())


def test_a_task_that_falls_silent_ends_the_training_in_time(answering, ends):
    with Watchdog(PLAN, TIMEOUT_S):
        time.sleep(0.2)
        answering.remove("d:1")
        silent = time.monotonic()
        assert wait(lambda: ends)
    when, reason = ends[0]
    assert reason == "ps-0 of the training cluster at d:1 has not answered for 0.4 s"
    assert TIMEOUT_S - 0.1 <= when - silent < 1.2


def test_a_task_that_never_answered_has_as_long_as_a_start(answering, ends):
    answering.clear()
    begin = time.monotonic()
    with Watchdog(PLAN, TIMEOUT_S):
        assert wait(lambda: ends)
    assert ends[0][0] - begin >= 1.5


def test_a_training_that_makes_steps_is_left_alone(answering, ends):
    with Watchdog(PLAN, TIMEOUT_S):
        wait(lambda: False, 0.2)
        answering.remove("b:1")
        deadline = time.monotonic() + 1.2
        while time.monotonic() < deadline:
            progress.report(0.5, "step")
            time.sleep(0.02)
        assert not ends
        assert wait(lambda: ends)  # the steps end, and the task is still silent


def test_a_worker_is_replaced_and_has_time_to_start(answering, ends):
    replaced = []

    def replace(task):
        replaced.append(task)
        return True

    with Watchdog(PLAN, TIMEOUT_S, replace):
        time.sleep(0.2)
        answering.remove("b:1")
        assert wait(lambda: replaced == [Task("worker", 1)])
        time.sleep(1.0)
        assert replaced == [Task("worker", 1)] and not ends
        answering.add("b:1")
        time.sleep(1.0)
    assert replaced == [Task("worker", 1)] and not ends


def test_where_all_answer_and_nothing_moves_it_ends_too(answering, ends, monkeypatch):
    monkeypatch.setattr(watchdog, "STUCK", 2)
    with Watchdog(PLAN, TIMEOUT_S):
        assert wait(lambda: ends)
    assert "every task of its cluster answers" in ends[0][1]


def test_without_an_end_there_is_no_watchdog(answering):
    answering.clear()
    with Watchdog(PLAN, 0.05) as watch:
        time.sleep(0.3)
    assert watch._heard == {}
