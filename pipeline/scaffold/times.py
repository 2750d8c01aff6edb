"""Times in the columns and file names of strangers: which way of writing they follow, and what day one means."""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

Parse = Callable[[str], "datetime.datetime | None"]


@dataclass(frozen=True)
class TimeFormat:
    """A way of writing times.

    Attributes:
      name: how it is called in messages.
      sorts: whether the pipeline can order a span by it (`data.time`): ISO 8601 and numbers.
      parse: text to time, None where the text is not written so.
    """

    name: str
    sorts: bool
    parse: Parse


def _iso(text: str) -> datetime.datetime | None:
    if not re.match(r"\d{4}-\d\d-\d\d", text):
        return None
    try:
        return datetime.datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text)).replace(tzinfo=None)
    except ValueError:
        return None


def _strptime(layout: str) -> Parse:
    clocks = ("", " %H:%M", " %H:%M:%S")

    def parse(text: str) -> datetime.datetime | None:
        for clock in clocks:
            try:
                return datetime.datetime.strptime(text, layout + clock)
            except ValueError:
                continue
        return None

    return parse


def _compact(text: str) -> datetime.datetime | None:
    try:
        moment = datetime.datetime.strptime(text, "%Y%m%d") if re.fullmatch(r"\d{8}", text) else None
    except ValueError:
        return None
    return moment if moment and 1900 <= moment.year <= 2100 else None


def _epoch(per_second: int, digits: str) -> Parse:
    def parse(text: str) -> datetime.datetime | None:
        if not re.fullmatch(rf"\d{{{digits}}}", text):
            return None
        moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=int(text) / per_second)
        return moment if 1990 <= moment.year <= 2100 else None

    return parse


ISO = TimeFormat("ISO 8601", True, _iso)


def _seconds(text: str) -> datetime.datetime | None:
    return datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=int(text))


# What Parquet's points in time become on their way; no text is recognised as such.
TIMESTAMP = TimeFormat("timestamp", True, _seconds)
FORMATS = (
    ISO,
    TimeFormat("year/month/day", False, _strptime("%Y/%m/%d")),
    TimeFormat("day.month.year", False, _strptime("%d.%m.%Y")),
    TimeFormat("month/day/year", False, _strptime("%m/%d/%Y")),
    TimeFormat("day/month/year", False, _strptime("%d/%m/%Y")),
    TimeFormat("yyyymmdd", True, _compact),
    TimeFormat("seconds since 1970", True, _epoch(1, "9,10")),
    TimeFormat("milliseconds since 1970", True, _epoch(1000, "12,13")),
)


def recognise(texts: Iterable[str]) -> TimeFormat | None:
    """Returns the first way of writing that all texts follow, None where there is none or no text."""
    texts = list(texts)
    return next((way for way in FORMATS if texts and all(way.parse(text.strip()) for text in texts)), None)


def day_reader(way: TimeFormat) -> Callable[[str], datetime.date | None]:
    """Returns a function from text to day that remembers what it has read: days repeat."""

    @functools.lru_cache(maxsize=1 << 16)
    def day(text: str) -> datetime.date | None:
        moment = way.parse(text.strip())
        return moment.date() if moment else None

    return day


def has_clock(texts: Iterable[str], way: TimeFormat) -> bool:
    """Whether any of the texts names a time of day."""
    return any((moment := way.parse(text.strip())) is not None and moment.time() != datetime.time() for text in texts)
