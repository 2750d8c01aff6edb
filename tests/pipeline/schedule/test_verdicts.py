"""What follows from a run's end: another attempt, a failure, a pause."""

from __future__ import annotations

import pytest
from schedule_world import Scheduler, rules, utc

from evergreen.components.errors import ConfigError, DataRejected, EvergreenError, LockHeld, SpanError
from evergreen.pipeline.run_result import RunResult, can_pass, of_error, read
from evergreen.pipeline.schedule import verdicts
from evergreen.pipeline.schedule.policy import resume
from evergreen.pipeline.schedule.verdicts import End

START = utc(2013, 4, 1, 12)
THREE = utc(2013, 4, 2, 3)
DAY = 86400.0
DAYS = tuple(f"2013-04-{day:02d}" for day in range(1, 30))


def running(**settings) -> Scheduler:
    world = Scheduler(rules(**settings), START, DAYS)
    world.until(THREE)
    assert world.state.running
    return world


def fail(world: Scheduler) -> None:
    """Lets every attempt of a run fail by something that can pass."""
    while world.state.running:
        world.end("failed", status=1, retryable=True, reason="a full disk")
        world.until(world.now + 2 * 3600)


class TestRetries:
    def test_come_later_and_later(self):
        world = running()
        pauses = []
        for _ in range(3):
            world.end("failed", status=1, retryable=True)
            assert world.state.running is None
            pauses.append(world.state.queue[0].not_before - world.now)
            world.until(world.now + pauses[-1] - 1)
            assert world.state.running is None
            world.until(world.now + 1)
            assert world.state.running
        assert pauses == [60, 120, 240]
        assert world.state.running.job.attempt == 4
        world.end("failed", status=1, retryable=True)
        assert world.events == ["failed"]

    def test_are_spread_and_bounded(self):
        known = rules(retries={"first": "1m", "longest": "10m", "jitter": 0.5})
        assert [verdicts.backoff(known, 1, draw) for draw in (0.0, 0.5)] == [30, 60]
        assert verdicts.backoff(known, 1, 0.999999) == pytest.approx(90, abs=0.1)
        assert verdicts.backoff(known, 50, 0.5) == 600

    def test_keep_scheduled_time_trigger_and_span(self):
        world = running()
        world.end("failed", status=1, retryable=True)
        world.until(world.now + 3600)
        assert world.started == [(THREE, "2013-04-01", "cron")] * 2

    @pytest.mark.parametrize("result", ["data rejected", "model rejected", "withdrawn"])
    def test_not_of_what_was_rejected(self, result):
        world = running()
        world.end(result, status=3, reason="a reason")
        assert world.state.queue == ()
        assert world.events == ["not_published"]
        assert world.state.failures == 0

    def test_not_of_a_defect(self):
        world = running()
        world.end("failed", status=1, reason="TypeError")
        assert world.state.queue == ()
        assert world.events == ["failed"]

    @pytest.mark.parametrize("end", [End(None, -9), End(None, -11), End(None, -2, cut_off="time")])
    def test_of_a_crash_and_of_a_hang(self, end):
        world = running()
        world.finish(end)
        assert world.state.queue[0].attempt == 2

    def test_not_of_one_that_needs_too_much_memory(self):
        world = running(memory_limit="8GB")
        world.finish(End(None, -9, cut_off="memory"))
        assert world.state.queue == ()
        assert "more than 8GB of memory" in world.says[-1]

    def test_a_verdict_counts_although_the_process_was_ended(self):
        world = running()
        world.finish(End(RunResult("published", version=7), -9, cut_off="time"))
        assert world.results == ["published"]

    def test_a_held_lock_is_waited_for_and_no_attempt(self):
        world = running()
        for _ in range(10):
            world.end("locked", status=5, retryable=True)
            world.until(world.now + 60)
        assert world.state.running.job.attempt == 1
        assert world.state.failures == 0


class TestPause:
    def test_after_failures_in_a_row(self):
        world = running()
        for _ in range(3):
            fail(world)
            world.until((world.now // DAY + 1) * DAY + 3 * 3600)
        assert world.events.count("failed") == 3
        assert world.events[-1] == "paused"
        started = len(world.started)
        world.until(world.now + 5 * DAY)
        assert len(world.started) == started
        assert "evergreen schedule --resume" in " ".join(world.says)
        world.take(resume(world.state, world.now))
        world.tick()
        assert len(world.started) == started + 1

    def test_a_success_between_them_begins_anew(self):
        world = running()
        for number in range(4):
            world.end(*(("published",) if number % 2 else ("failed",)), status=0)
            world.until(THREE + (number + 1) * DAY)
        assert world.state.paused is None

    def test_on_a_wrong_configuration_at_once_and_the_run_is_not_lost(self):
        world = running()
        world.end("configuration", status=2, reason="evergreen.yaml has a mistake")
        assert world.state.paused.lifts
        assert world.events == ["paused"]
        assert "evergreen.yaml has a mistake" in world.says[-1]
        world.take(resume(world.state, world.now))
        world.tick()
        assert world.started == [(THREE, "2013-04-01", "cron")] * 2


class TestCutOff:
    def test_by_a_stop_goes_on_with_the_same_attempt(self):
        world = running()
        world.finish(End(RunResult("killed", retryable=True), 130, cut_off="stop"))
        assert world.events == []
        world.tick()
        assert world.started == [(THREE, "2013-04-01", "cron")] * 2
        assert world.state.running.job.attempt == 1

    def test_by_the_death_of_the_scheduler_too(self):
        world = running()
        world.finish(End(None, None))
        world.tick()
        assert world.started == [(THREE, "2013-04-01", "cron")] * 2

    def test_by_the_death_of_the_scheduler_again_and_again_is_a_failure(self):
        world = running()
        for _ in range(4):
            world.finish(End(None, None))
            world.tick()
        assert world.results == ["failed"]
        assert "out of memory" in world.says[-1]

    def test_after_the_verdict_is_nothing_to_repeat(self):
        world = running()
        world.finish(End(RunResult("published", version=7), None))
        world.tick()
        assert world.results == ["published"]
        assert len(world.started) == 1


class TestResults:
    @pytest.mark.parametrize(
        ("error", "result", "retryable"),
        [
            (ConfigError("x"), "configuration", False),
            (SpanError("x"), "late", False),
            (DataRejected("x"), "data rejected", False),
            (LockHeld("x"), "locked", True),
            (KeyboardInterrupt(), "killed", True),
            (OSError(28, "No space left on device"), "failed", True),
            (TypeError("x"), "failed", False),
        ],
    )
    def test_of_errors(self, error, result, retryable):
        found = of_error(error)
        assert (found.result, found.retryable) == (result, retryable)

    def test_what_can_pass_is_found_behind_other_errors(self):
        class LostProcess(Exception):
            pass

        def wrapped(error: Exception) -> Exception:
            try:
                try:
                    raise error
                except Exception as inner:
                    raise EvergreenError("Trainer failed") from inner
            except EvergreenError as outer:
                return outer

        assert can_pass(wrapped(LostProcess("worker 1")))
        assert can_pass(wrapped(ConnectionResetError()))
        assert not can_pass(wrapped(ValueError()))
        assert not can_pass(wrapped(ImportError()))

    def test_are_read_as_they_were_written(self, tmp_path):
        result = RunResult("published", "r1", "2013-04", 7, metrics={"exam": {"auc": 0.7}})
        result.write(tmp_path / "result.json")
        assert read(tmp_path / "result.json") == result

    def test_of_a_killed_run_are_none(self, tmp_path):
        assert read(tmp_path / "none.json") is None
        (tmp_path / "torn.json").write_text('{"result": "publ')
        assert read(tmp_path / "torn.json") is None
