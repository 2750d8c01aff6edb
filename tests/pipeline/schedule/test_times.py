"""When runs are due: cron expressions through changes of the clock, intervals, and the span of a moment."""

from __future__ import annotations

import datetime
import itertools
import zoneinfo

import pytest
from schedule_world import rules, utc

from evergreen.pipeline.schedule import times
from evergreen.pipeline.schedule.times import Cron, Every

NEW_YORK = "America/New_York"


def local(moments, zone: str = NEW_YORK) -> list[str]:
    return [datetime.datetime.fromtimestamp(m, zoneinfo.ZoneInfo(zone)).strftime("%d %H:%M%z") for m in moments]


def first(text: str, after: float, count: int, zone: str = NEW_YORK) -> list[float]:
    found = [after]
    timetable = Cron(text, zone)
    for _ in range(count):
        found.append(timetable.after(found[-1]))
    return found[1:]


class TestSpring:
    """On 10 March 2013, 02:00 in New York becomes 03:00."""

    START = utc(2013, 3, 9, 12)

    def test_a_time_that_is_left_out_is_moved_by_the_change_and_not_lost(self):
        assert local(first("30 2 * * *", self.START, 2)) == ["10 03:30-0400", "11 02:30-0400"]

    def test_other_times_stay_on_the_wall_clock(self):
        assert local(first("0 3 * * *", self.START, 2)) == ["10 03:00-0400", "11 03:00-0400"]

    def test_an_hourly_run_happens_each_hour_once(self):
        hours = first("30 * * * *", self.START, 24)
        assert {b - a for a, b in itertools.pairwise(hours)} == {3600.0}


class TestAutumn:
    """On 3 November 2013, 02:00 in New York becomes 01:00."""

    START = utc(2013, 11, 2, 12)

    def test_a_time_that_is_there_twice_counts_once(self):
        assert local(first("30 1 * * *", self.START, 2)) == ["03 01:30-0400", "04 01:30-0500"]

    def test_an_hourly_run_happens_in_both_hours(self):
        hours = first("30 * * * *", self.START, 24)
        assert {b - a for a, b in itertools.pairwise(hours)} == {3600.0}


def test_a_year_of_days_is_a_run_a_day_in_every_zone():
    for zone in (NEW_YORK, "Europe/Berlin", "Australia/Lord_Howe", "Asia/Seoul"):
        found = Cron("30 2 * * *", zone).between(utc(2013, 1, 1), utc(2014, 1, 1), 1000)
        days = [datetime.datetime.fromtimestamp(m, zoneinfo.ZoneInfo(zone)).date() for m in found]
        assert len(days) == len(set(days)) == 365, zone


class TestExpressions:
    @pytest.mark.parametrize(
        ("text", "days"),
        [
            ("0 3 * * 0", ["06", "13"]),  # 6 January 2013 was a Sunday
            ("0 3 * * 7", ["06", "13"]),
            ("0 3 * * sun", ["06", "13"]),
            ("0 3 * * 1-5", ["02", "03"]),
            ("0 3 * * 6,0", ["05", "06"]),
            ("0 3 15 * *", ["15", "15"]),
            ("0 3 15 * 1", ["07", "14"]),  # either of the two days, as in cron
            ("0 3 */10 * *", ["11", "21"]),
            ("0 3 29 2 *", ["29", "29"]),
        ],
    )
    def test_days(self, text, days):
        assert [found[:2] for found in local(first(text, utc(2013, 1, 1, 12), 2, "UTC"), "UTC")] == days

    @pytest.mark.parametrize(
        "text", ["0 3 31 2 *", "0 3 * * 8", "61 * * * *", "0 3 * * 5-2", "0 3 * * mun", "0 24 * * *", "0 3 L * *"]
    )
    def test_what_never_comes_true_is_refused(self, text):
        with pytest.raises(ValueError):
            Cron(text, "UTC")


class TestMissed:
    def test_the_newest_of_a_year_of_minutes(self):
        found = Cron("* * * * *", "UTC").between(utc(2012, 1, 1), utc(2013, 1, 1), 3)
        assert found == [utc(2013, 1, 1) - 120, utc(2013, 1, 1) - 60, utc(2013, 1, 1)]

    def test_the_bounds(self):
        daily = Cron("0 3 * * *", "UTC")
        assert daily.between(utc(2013, 1, 1, 3), utc(2013, 1, 2, 3), 10) == [utc(2013, 1, 2, 3)]
        assert daily.between(utc(2013, 1, 1, 3), utc(2013, 1, 2, 2), 10) == []

    def test_a_clock_that_was_set_back_has_missed_nothing(self):
        assert Cron("0 3 * * *", "UTC").between(utc(2013, 2, 1), utc(2013, 1, 1), 10) == []
        assert Every(3600).between(utc(2013, 2, 1), utc(2013, 1, 1), 10) == []


def test_an_interval_has_the_same_moments_after_every_restart():
    every = Every(6 * 3600)
    assert every.after(utc(2013, 1, 1, 5)) == utc(2013, 1, 1, 6)
    assert every.after(utc(2013, 1, 1, 6)) == utc(2013, 1, 1, 12)
    assert every.between(utc(2013, 1, 1), utc(2013, 1, 2), 2) == [utc(2013, 1, 1, 18), utc(2013, 1, 2)]


@pytest.mark.parametrize(
    ("pattern", "moment", "settings", "label"),
    [
        ("{YYYY}-{MM}-{DD}/*", utc(2013, 4, 2, 3), {}, "2013-04-01"),
        ("{YYYY}-{MM}-{DD}/*", utc(2013, 4, 2, 3), {"timezone": NEW_YORK}, "2013-03-31"),
        ("{YYYY}-{MM}-{DD}/*", utc(2013, 4, 2, 3), {"span_lag": "6h"}, "2013-03-31"),
        ("{YYYY}-{MM}/*", utc(2013, 4, 1), {}, "2013-03"),
        ("{YYYY}-{MM}/*", utc(2013, 4, 30), {}, "2013-03"),
        ("{YYYY}-{MM}/*", utc(2013, 1, 5), {}, "2012-12"),
        ("{SPAN}/*", utc(2013, 4, 2, 3), {}, None),
    ],
)
def test_the_span_of_a_moment_is_the_last_that_was_over(pattern, moment, settings, label):
    assert rules(pattern, **settings).expected(moment) == label


def test_moments_in_words():
    assert times.text(utc(2013, 4, 1, 3)) == "2013-04-01T03:00:00Z"
    for text in ("2013-04-01T03:00:00Z", "2013-04-01T05:00:00+02:00", "2013-04-01 03:00"):
        assert times.parse(text) == utc(2013, 4, 1, 3)
    with pytest.raises(ValueError):
        times.parse("tomorrow")
