"""When a run is due: cron expressions and intervals as moments, and the span that follows from a moment. Pure.

APScheduler's cron trigger finds the wall-clock times that an expression names. It is asked in UTC, where each of them
is there once, and a time zone's changes are ours: its own handling runs `30 1 * * *` twice on the night on which clocks
are set back. Here, as in cron itself,
  * a time that the change to summer time leaves out is moved by the change: 02:30 becomes 03:30;
  * a time that is there twice in autumn counts once, the first time, unless the expression's hour begins with `*`: an
    hourly run happens in both hours.

Moments are seconds since 1970, UTC.
"""

from __future__ import annotations

import datetime
import heapq
import itertools
import re
import zoneinfo
from collections.abc import Iterator
from typing import Protocol

from apscheduler.triggers.cron import CronTrigger

from evergreen.pipeline.settings_schedule import ScheduleSettings, seconds
from evergreen.pipeline.span_pattern import EPOCH, Pattern

_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_ENTRY = re.compile(r"(?:\*|([a-z]+|\d+)(?:-([a-z]+|\d+))?)(?:/(\d+))?")
_FIELD = re.compile(r"[0-9a-z*/,-]+")
# No zone is further from UTC, nor has changed by more: what is further apart is in the order of its wall-clock times.
_CHANGE = datetime.timedelta(hours=26)
_FIRST_LOOK_S = 86400.0


class Timetable(Protocol):
    """When runs are due."""

    def after(self, moment: float) -> float:
        """Returns the first due moment after another."""

    def between(self, after: float, until: float, limit: int) -> list[float]:
        """Returns the due moments after one moment, up to and with another: the newest `limit`, in order."""


class Every:
    """Runs at an interval, counted from the first midnight of 1970 in UTC: the same moments after every restart.

    Args:
      period: seconds.
    """

    def __init__(self, period: int):
        self.period = period

    def after(self, moment: float) -> float:
        """Returns the first multiple of the period after a moment."""
        return (moment // self.period + 1) * self.period

    def between(self, after: float, until: float, limit: int) -> list[float]:
        """Returns the newest `limit` multiples of the period after one moment, up to and with another."""
        last = until // self.period
        first = max(after // self.period + 1, last - limit + 1)
        return [(first + n) * self.period for n in range(int(last - first) + 1)]


class Cron:
    """Runs by a cron expression in a time zone.

    Args:
      text: minute, hour, day of the month, month, day of the week (0 and 7 are Sunday). Where both days are given, one
        of them is enough, as in cron.
      zone: the zone's name.

    Raises:
      ValueError: the expression has no meaning, or never comes true.
    """

    def __init__(self, text: str, zone: str):
        minute, hour, day, month, weekday = (field.lower() for field in text.split())
        for field in (minute, hour, day, month, weekday):
            if not _FIELD.fullmatch(field):
                raise ValueError(f"`{field}` is no field of cron")
        weekdays = _weekdays(weekday)
        either = not day.startswith("*") and not weekday.startswith("*")
        days = [(day, "*"), ("*", weekdays)] if either else [(day, weekdays)]
        self._triggers = [
            CronTrigger(minute=minute, hour=hour, day=one, month=month, day_of_week=two, timezone=datetime.timezone.utc)
            for one, two in days
        ]
        self._zone = zoneinfo.ZoneInfo(zone)
        self._each_hour = hour.startswith("*")
        self._known: tuple[float, float] | None = None
        # A leap day is at most eight years away.
        start = datetime.datetime(2096, 3, 1)
        if next(self._walls(start), datetime.datetime.max).year > start.year + 9:
            raise ValueError(f"`{text}` names a day that there is not")

    def after(self, moment: float) -> float:
        """Returns the first due moment after another."""
        # Asked every few seconds, nearly always for the same.
        if self._known is None or self._known[0] != moment:
            self._known = (moment, next(self._moments(moment)))
        return self._known[1]

    def between(self, after: float, until: float, limit: int) -> list[float]:
        """Returns the newest `limit` due moments after one moment, up to and with another.

        Looks back from the end in steps that grow, so that a year of missed minutes costs no more than a day of them.
        """
        if self.after(after) > until:
            return []
        look = _FIRST_LOOK_S
        while True:
            start = max(after, until - look)
            found = list(itertools.takewhile(lambda moment: moment <= until, self._moments(start)))
            if start == after or len(found) >= limit:
                return found[-limit:]
            look *= 8

    def _moments(self, after: float) -> Iterator[float]:
        """Yields the due moments after another, in order."""
        local = datetime.datetime.fromtimestamp(after, self._zone).replace(tzinfo=None)
        ready: list[float] = []
        last = after
        for wall in self._walls(local - _CHANGE):
            early = (wall.replace(tzinfo=datetime.timezone.utc) - _CHANGE).timestamp()
            while ready and ready[0] < early:
                moment = heapq.heappop(ready)
                if moment > last:
                    last = moment
                    yield moment
            for moment in self._instants(wall):
                if moment > after:
                    heapq.heappush(ready, moment)
        yield from sorted(set(ready))

    def _instants(self, wall: datetime.datetime) -> list[float]:
        first, second = (wall.replace(tzinfo=self._zone, fold=fold).timestamp() for fold in (0, 1))
        # In a gap the second reading is the earlier instant; the first one moves the time by the change.
        return [first, second] if second > first and self._each_hour else [first]

    def _walls(self, start: datetime.datetime) -> Iterator[datetime.datetime]:
        """Yields the wall-clock times that the expression names, in order, without a zone."""
        last = None
        for wall in heapq.merge(*(_walls_of(trigger, start) for trigger in self._triggers)):
            if wall != last:
                yield wall
            last = wall


def _walls_of(trigger: CronTrigger, start: datetime.datetime) -> Iterator[datetime.datetime]:
    now = start.replace(tzinfo=datetime.timezone.utc)
    while True:
        due = trigger.get_next_fire_time(None, now)
        if due is None:
            return
        yield due.replace(tzinfo=None)
        now = due + datetime.timedelta(minutes=1)


def _weekdays(field: str) -> str:
    """Writes days of the week as names: APScheduler counts from Monday, cron from Sunday."""
    if field == "*":
        return field
    found: set[int] = set()
    for entry in field.split(","):
        matched = _ENTRY.fullmatch(entry)
        if matched is None:
            raise ValueError(f"`{entry}` is no day of the week")
        first, last, step = matched.groups()
        low = 0 if first is None else _weekday(first)
        high = _weekday(last) if last else 6 if first is None or step else low
        if low > high:
            raise ValueError(f"`{entry}` ends before it begins")
        if step == "0":
            raise ValueError(f"`{entry}` has a step of 0")
        found |= {day % 7 for day in range(low, high + 1, int(step or 1))}
    return ",".join(_WEEKDAYS[day] for day in sorted(found))


def _weekday(text: str) -> int:
    if text.isdigit() and int(text) <= 7:
        return int(text)
    if text in _WEEKDAYS:
        return _WEEKDAYS.index(text)
    raise ValueError(f"`{text}` is no day of the week, expected 0 to 7 or " + ", ".join(_WEEKDAYS))


def timetable(settings: ScheduleSettings) -> Timetable | None:
    """Returns when runs are due by the clock; None where only other triggers start them.

    Args:
      settings: the section `schedule`.
    """
    if settings.cron is not None:
        return Cron(settings.cron, settings.timezone)
    return Every(seconds(settings.every)) if settings.every is not None else None


def expected_span(pattern: Pattern, moment: float, settings: ScheduleSettings) -> int | None:
    """Returns the span that a run of a given time is about: the last day, or month, that was over by then.

    Args:
      pattern: the pattern of the spans.
      moment: the scheduled time.
      settings: the section `schedule`, whose time zone says when a day is over, and whose `span_lag` how long a span
        takes to arrive.

    Returns:
      The span's number; None where spans are numbers, which say nothing about time.
    """
    if not pattern.by_date:
        return None
    lag = seconds(settings.span_lag) if settings.span_lag else 0
    today = datetime.datetime.fromtimestamp(moment - lag, zoneinfo.ZoneInfo(settings.timezone)).date()
    last = (today.replace(day=1) if pattern.monthly else today) - datetime.timedelta(days=1)
    return ((last.replace(day=1) if pattern.monthly else last) - EPOCH).days


def text(moment: float) -> str:
    """Writes a moment in UTC, as ML Metadata holds it: `2013-04-01T03:00:00Z`."""
    return datetime.datetime.fromtimestamp(moment, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse(text: str) -> float:
    """Reads a moment that a person or another scheduler wrote.

    Args:
      text: ISO 8601; UTC where it names no offset.

    Raises:
      ValueError: it is none.
    """
    # Python 3.10 does not know the Z.
    moment = datetime.datetime.fromisoformat(re.sub(r"[Zz]$", "+00:00", text.strip()))
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.timezone.utc)).timestamp()
