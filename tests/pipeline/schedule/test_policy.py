"""What becomes of due times, missed ones, late spans and new ones."""

from __future__ import annotations

from schedule_world import Scheduler, rules, utc

from evergreen.pipeline.schedule import policy
from evergreen.pipeline.schedule.policy import resume
from evergreen.pipeline.schedule.state import Pause

START = utc(2013, 4, 1, 12)
HOUR, DAY = 3600.0, 86400.0
THREE = utc(2013, 4, 2, 3)  # the first due time after START; its span is 2013-04-01
DAYS = tuple(f"2013-04-{day:02d}" for day in range(1, 30))


class TestDueTimes:
    def test_a_first_start_has_missed_nothing(self):
        world = Scheduler(rules(), START, DAYS[:1])
        assert world.started == []
        assert world.state.queue == ()

    def test_a_run_gets_its_scheduled_time_and_the_span_that_follows_from_it(self):
        world = Scheduler(rules(), START, DAYS[:2])
        world.now = THREE + 17
        world.tick()
        # 2013-04-02 is there already, and is not this run's span.
        assert world.started == [(THREE, "2013-04-01", "cron")]

    def test_each_time_starts_one_run(self):
        world = Scheduler(rules(), START, DAYS)
        for _ in range(3 * 144):
            world.until(world.now + 600)
            if world.state.running:
                world.end()
        assert [span for _, span, _ in world.started] == ["2013-04-01", "2013-04-02", "2013-04-03"]

    def test_spans_that_are_numbers_take_the_newest(self):
        world = Scheduler(rules("{SPAN}/*.parquet"), START, ("1", "2"))
        world.now = THREE
        world.tick()
        assert world.started == [(THREE, "2", "cron")]

    def test_another_timetable_begins_at_the_present(self):
        world = Scheduler(rules(), START, DAYS)
        world.rules = rules(every="1h")
        world.now = START + 5.5 * HOUR
        world.tick()
        assert world.state.queue == ()
        world.spans["2013-03-31"] = "files"
        world.until(START + 6 * HOUR)
        assert world.started == [(START + 6 * HOUR, "2013-03-31", "every")]

    def test_nothing_is_looked_at_between_two_times(self):
        world = Scheduler(rules(), START, DAYS)
        world.until(THREE - 600)
        assert world.looks == 0


class TestNothingNew:
    def world(self) -> Scheduler:
        world = Scheduler(rules("{SPAN}/*.parquet", every="1h"), START, ("1",))
        world.until(START + HOUR)
        world.end()
        return world

    def test_costs_no_process_and_is_said_once(self):
        world = self.world()
        world.until(START + 10 * HOUR)
        assert len(world.started) == 1
        assert world.results == ["published"] + ["nothing"] * 9
        assert sum("nothing to do" in line for line in world.says) == 1
        assert world.events == ["published"]

    def test_until_a_span_arrives(self):
        world = self.world()
        world.until(START + 3 * HOUR)
        world.spans["2"] = "files"
        world.until(START + 4 * HOUR)
        assert world.started[-1][1] == "2"

    def test_or_is_delivered_again(self):
        world = self.world()
        world.spans["1"] = "other files"
        world.until(START + 2 * HOUR)
        assert len(world.started) == 2

    def test_what_was_rejected_is_decided_too(self):
        world = Scheduler(rules("{SPAN}/*.parquet", every="1h"), START, ("1",))
        world.until(START + HOUR)
        world.end("data rejected", status=3, reason="too few rows")
        world.until(START + 3 * HOUR)
        assert len(world.started) == 1
        assert world.events == ["not_published"]


class TestLateSpans:
    def test_are_waited_for(self):
        world = Scheduler(rules(wait_for_span="2h"), START)
        world.until(THREE + HOUR)
        assert world.started == []
        world.spans["2013-04-01"] = "files"
        world.until(THREE + 1.5 * HOUR)
        assert world.started == [(THREE, "2013-04-01", "cron")]

    def test_are_reported_when_they_do_not_come_and_no_older_one_takes_their_place(self):
        world = Scheduler(rules(wait_for_span="2h"), START, ("2013-03-31",))
        world.until(THREE + 3 * HOUR)
        assert world.started == []
        assert world.events == ["late"]
        assert world.results == ["late"]
        assert "span 2013-04-01 is late" in world.says[-1]
        assert "2013-03-31" in world.says[-1]

    def test_are_not_late_before_the_wait_is_over(self):
        world = Scheduler(rules(wait_for_span="2h"), START)
        world.until(THREE + 2 * HOUR - 600)
        assert world.events == []

    def test_say_what_is_missing(self):
        world = Scheduler(rules(), START)
        world.missing["2013-04-01"] = "2013-04-01 has no _SUCCESS yet"
        world.until(THREE)
        assert "has no _SUCCESS yet" in world.says[-1]

    def test_are_reported_once_where_runs_are_hourly(self):
        world = Scheduler(rules(every="1h"), START)
        world.until(START + 6 * HOUR)
        assert world.results == ["late"] * 6
        assert world.events == ["late"]

    def test_of_numbers_are_new_ones(self):
        world = Scheduler(rules("{SPAN}/*.parquet", wait_for_span="2h"), START, ("1",))
        world.until(THREE)
        world.end()
        world.until(THREE + DAY + HOUR)
        assert len(world.started) == 1
        world.spans["2"] = "files"
        world.until(THREE + DAY + 1.5 * HOUR)
        assert world.started[-1][:2] == (THREE + DAY, "2")
        world.end()
        world.until(THREE + 2 * DAY + 3 * HOUR)
        assert world.events[-1] == "late"

    def test_do_not_stop_the_next_run(self):
        world = Scheduler(rules(), START, ("2013-04-02",))
        world.until(THREE + DAY)
        assert world.results == ["late"]
        assert world.started == [(THREE + DAY, "2013-04-02", "cron")]


class TestOverrun:
    def world(self, overrun: str) -> Scheduler:
        world = Scheduler(rules(overrun=overrun), START, DAYS)
        world.until(THREE + 2 * DAY + HOUR)  # the first run still goes on at the next two times
        return world

    def test_skip(self):
        world = self.world("skip")
        world.end()
        world.until(THREE + 2 * DAY + 2 * HOUR)
        assert len(world.started) == 1
        assert sum("is left out" in line for line in world.says) == 2
        world.until(THREE + 3 * DAY)
        assert world.started[-1] == (THREE + 3 * DAY, "2013-04-04", "cron")

    def test_queue(self):
        world = self.world("queue")
        for _ in range(3):
            world.end()
            world.tick()
        assert [when for when, _, _ in world.started] == [THREE, THREE + DAY, THREE + 2 * DAY]

    def test_a_queue_has_an_end(self):
        world = Scheduler(rules(overrun="queue", catch_up_limit=2), START, DAYS)
        world.until(THREE + 5 * DAY + HOUR)
        assert len(world.state.queue) == 2
        assert sum("is left out" in line for line in world.says) == 3

    def test_a_run_that_waits_for_its_span_counts_as_going_on(self):
        world = Scheduler(rules(every="1h", wait_for_span="5h"), START)
        world.until(START + 3 * HOUR)
        assert len(world.state.queue) == 1


class TestMissedWhileDown:
    def down(self, days: int = 4, spans: tuple[str, ...] = DAYS, **settings) -> Scheduler:
        """A scheduler that did its first run, was away for some days and came back at noon."""
        world = Scheduler(rules(**settings), START, spans)
        world.until(THREE)
        world.end()
        world.now = THREE + days * DAY + 9 * HOUR
        world.tick()
        return world

    def run_all(self, world: Scheduler) -> None:
        while world.state.running:
            world.end("decided" if world.started[-1][1] in world.decided_only else "published")
            world.tick()

    def test_none(self):
        world = self.down(catch_up="none")
        assert len(world.started) == 1
        assert "4 runs were missed" in world.says[-1]
        world.until(THREE + 5 * DAY)
        assert world.started[-1] == (THREE + 5 * DAY, "2013-04-06", "cron")

    def test_last(self):
        world = self.down()
        self.run_all(world)
        assert world.started[1:] == [(THREE + 4 * DAY, "2013-04-05", "catch_up")]

    def test_all_decides_each_and_publishes_the_newest(self):
        world = self.down(catch_up="all")
        self.run_all(world)
        assert [span for _, span, _ in world.started[1:]] == ["2013-04-02", "2013-04-03", "2013-04-04", "2013-04-05"]
        assert world.decided_only == ["2013-04-02", "2013-04-03", "2013-04-04"]

    def test_all_has_a_limit_and_keeps_the_newest(self):
        world = self.down(days=20, catch_up="all", catch_up_limit=2)
        self.run_all(world)
        assert [span for _, span, _ in world.started[1:]] == ["2013-04-20", "2013-04-21"]
        assert "3 or more runs were missed" in " ".join(world.says)

    def test_a_run_that_is_due_just_now_is_the_newest(self):
        for catch_up, decided in (("last", []), ("all", ["2013-04-02", "2013-04-03"])):
            world = Scheduler(rules(catch_up=catch_up), START, DAYS)
            world.until(THREE)
            world.end()
            world.now = THREE + 3 * DAY + 20
            world.tick()
            self.run_all(world)
            assert world.started[-1] == (THREE + 3 * DAY, "2013-04-04", "cron")
            assert world.decided_only == decided

    def test_spans_that_are_numbers_are_made_up_for_by_one_run(self):
        world = Scheduler(rules("{SPAN}/*.parquet", catch_up="all"), START, ("1",))
        world.until(THREE)
        world.end()
        world.spans |= {"2": "files", "3": "files"}
        world.now = THREE + 4 * DAY + 9 * HOUR
        world.tick()
        self.run_all(world)
        assert [span for _, span, _ in world.started[1:]] == ["3"]

    def test_a_span_that_is_missing_on_the_way_is_reported_and_passed_over(self):
        world = self.down(catch_up="all", spans=tuple(day for day in DAYS if day != "2013-04-03"))
        self.run_all(world)
        assert [span for _, span, _ in world.started[1:]] == ["2013-04-02", "2013-04-04", "2013-04-05"]
        assert "late" in world.events


class TestTheClockJumps:
    def test_back_repeats_nothing_and_goes_on(self):
        world = Scheduler(rules(every="1h"), START, (*DAYS, "2013-03-31"))
        world.until(START + HOUR)
        world.end()
        world.now = START + 0.5 * HOUR
        world.tick()
        world.until(START + 1.5 * HOUR)
        assert len(world.started) == 1
        assert world.results == ["published"]
        world.until(START + 2 * HOUR)
        assert world.results == ["published", "nothing"]

    def test_back_by_a_year_does_not_silence_the_schedule_for_a_year(self):
        world = Scheduler(rules(), START, DAYS)
        world.until(THREE)
        world.end()
        world.now = utc(2012, 4, 2)
        world.tick()
        assert "the clock was set back" in world.says[-1]
        world.spans = {"2012-04-01": "files"}
        world.until(utc(2012, 4, 2, 3))
        assert world.started[-1] == (utc(2012, 4, 2, 3), "2012-04-01", "cron")

    def test_forward_is_a_time_that_was_missed_and_trains_nothing_old(self):
        world = Scheduler(rules(), START, DAYS[:1])
        world.until(THREE)
        world.end()
        world.now = THREE + 365 * DAY
        world.tick()
        assert len(world.started) == 1
        assert world.results == ["published", "late"]

    def test_forward_and_back(self):
        world = Scheduler(rules(), START, DAYS)
        world.until(THREE)
        world.end()
        world.now = THREE + 365 * DAY
        world.tick()
        world.now = THREE + 600
        world.tick()
        world.until(THREE + DAY)
        assert world.started[-1] == (THREE + DAY, "2013-04-02", "cron")

    def test_back_does_not_hold_up_another_attempt(self):
        world = Scheduler(rules(), START, DAYS)
        world.until(THREE)
        world.end("failed", status=1, retryable=True)
        world.now = START - 30 * DAY
        world.tick()
        assert len(world.started) == 2


class TestNewSpans:
    def world(self, **settings) -> Scheduler:
        world = Scheduler(rules(**{"on_new_span": True, **settings}), START, ("2013-03-30",))
        world.until(START + 1200)
        world.end("nothing")
        world.started.clear()
        return world

    def test_start_a_run(self):
        world = self.world()
        world.spans["2013-03-31"] = "files"
        world.until(world.now + 1200)
        assert [(span, trigger) for _, span, trigger in world.started] == [("2013-03-31", "on_new_span")]

    def test_that_still_grow_do_not(self):
        world = self.world()
        for size in range(5):
            world.spans["2013-03-31"] = f"{size} files"
            world.until(world.now + 600)
        assert world.started == []
        world.until(world.now + 600)
        assert len(world.started) == 1

    def test_that_are_older_do_not(self):
        world = self.world()
        world.spans["2013-03-01"] = "files"
        world.until(world.now + HOUR)
        assert world.started == []

    def test_that_a_run_waits_for_start_no_second_one(self):
        world = Scheduler(rules(cron="0 3 * * *", on_new_span=True, wait_for_span="5h"), START)
        world.until(THREE + HOUR)
        world.spans["2013-04-01"] = "files"
        world.until(THREE + 2 * HOUR)
        assert [trigger for _, _, trigger in world.started] == ["cron"]
        world.end()
        world.until(THREE + 4 * HOUR)
        assert len(world.started) == 1

    def test_that_were_rejected_start_none_when_they_lie_there(self):
        world = self.world()
        world.spans["2013-03-31"] = "files"
        world.until(world.now + 1200)
        world.end("data rejected", status=3)
        world.until(world.now + DAY)
        assert len(world.started) == 1


class TestDriftAndMetrics:
    def world(self, **settings) -> Scheduler:
        world = Scheduler(rules(**settings), START, ("2013-03-31",))
        world.until(START + 1200)
        return world

    def test_a_new_span_is_examined_and_nothing_trained(self):
        world = self.world(on_metric_drop={"auc": 0.7})
        assert world.decided_only == ["2013-03-31"]
        world.end("decided", metrics={"champion_on_span": {"auc": 0.75}})
        world.until(world.now + DAY)
        assert len(world.started) == 1

    def test_a_metric_that_dropped_starts_a_run(self):
        world = self.world(on_metric_drop={"auc": 0.7})
        world.end("decided", metrics={"champion_on_span": {"auc": 0.65}})
        world.tick()
        assert [(span, trigger) for _, span, trigger in world.started[1:]] == [("2013-03-31", "on_metric_drop")]
        assert any("auc is 0.6500" in line for line in world.says)

    def test_a_loss_is_worse_when_it_is_larger(self):
        for value, runs in ((0.5, 1), (0.7, 2)):
            world = self.world(on_metric_drop={"log_loss": 0.6})
            world.end("decided", metrics={"champion_on_span": {"log_loss": value}})
            world.tick()
            assert len(world.started) == runs

    def test_drift_starts_a_run(self):
        for drift, runs in (([], 1), (["dep_delay"], 2)):
            world = self.world(on_drift=True)
            world.end("decided", drift=drift, metrics={"champion_on_span": {"auc": 0.7}})
            world.tick()
            assert len(world.started) == runs

    def test_without_a_live_model_there_is_a_first_one(self):
        world = self.world(on_drift=True)
        world.end("decided")
        world.tick()
        assert len(world.started) == 2

    def test_a_span_that_was_only_examined_is_trained_on_when_its_time_comes(self):
        world = Scheduler(rules(cron="0 3 * * *", on_metric_drop={"auc": 0.7}), START, ("2013-04-01",))
        world.until(START + 1200)
        world.end("decided", metrics={"champion_on_span": {"auc": 0.75}})
        world.until(THREE)
        assert world.started[-1] == (THREE, "2013-04-01", "cron")


class TestPaused:
    def test_nothing_starts(self):
        world = Scheduler(rules(), START, DAYS)
        decision = policy.Decision(world.state)
        decision.change(paused=Pause(START, "a reason"))
        world.take(decision)
        world.until(THREE + 2 * DAY)
        assert world.started == []

    def test_what_was_due_meanwhile_counts_as_missed(self):
        world = Scheduler(rules(), START, DAYS)
        decision = policy.Decision(world.state)
        decision.change(paused=Pause(START, "a reason"), failures=3)
        world.take(decision)
        world.until(THREE + 2 * DAY + HOUR)
        world.take(resume(world.state, world.now))
        world.tick()
        assert world.started == [(THREE + 2 * DAY, "2013-04-03", "catch_up")]
        assert world.state.failures == 0


class TestStale:
    def test_is_reported_once_for_each_version(self):
        known = rules(max_model_age="2d")
        world = Scheduler(known, START)
        for now in (START + DAY, START + 3 * DAY, START + 4 * DAY):
            world.take(policy.stale(world.state, known, now, 7, START))
        assert world.events == ["stale"]
        world.take(policy.stale(world.state, known, START + 9 * DAY, 8, START + 5 * DAY))
        assert world.events == ["stale", "stale"]
