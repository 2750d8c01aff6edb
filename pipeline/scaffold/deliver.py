"""Divides a stranger's file into spans by its times, or copies it as the first span.

The rows keep their text and order. Nothing is seen of the spans before all of them are written.
"""

from __future__ import annotations

import csv
import datetime
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from evergreen.components import atomic
from evergreen.components.span_example_gen import columns, csv_source, files, parquet_source
from evergreen.components.span_example_gen.batches import Part
from evergreen.components.span_example_gen.columns import BYTES
from evergreen.pipeline.scaffold import times
from evergreen.pipeline.scaffold.layout import MARKER
from evergreen.pipeline.scaffold.times import TimeFormat

FEWEST_SPANS = 3
FEWEST_ROWS = 100
_BUFFERED_ROWS = 200_000
DayOf = Callable[[str], "datetime.date | None"]


@dataclass(frozen=True)
class Source:
    """A file to divide.

    Attributes:
      path: the file.
      format: `csv` or `parquet`.
      delimiter: what separates CSV fields.
      time: the column with the times; None to make one span.
      way: how they are written.
    """

    path: Path
    format: str
    delimiter: str
    time: str | None
    way: TimeFormat | None


@dataclass(frozen=True)
class Division:
    """How a file becomes spans.

    Attributes:
      unit: `month`, `day`, or `all` for one span.
      rows: rows of each span by its label, in order.
      without_time: rows that have no time and are left out.
      unfinished: whether the newest span has less than half of the usual rows, as a month that is not over has.
    """

    unit: str
    rows: dict[str, int]
    without_time: int
    unfinished: bool = False

    @property
    def pattern(self) -> str:
        """The folder's pattern."""
        return {"month": "{YYYY}-{MM}", "day": "{YYYY}-{MM}-{DD}", "all": "{SPAN}"}[self.unit]


def divide(source: Source, rows: int) -> Division:
    """Chooses months or days, whichever gives enough spans of enough rows, or one span.

    Args:
      source: the file.
      rows: how many it has, as far as is known; for one span only.

    Returns:
      The division.
    """
    if source.time is None or source.way is None:
        return Division("all", {"1": rows}, 0)
    day_of = times.day_reader(source.way)
    days: Counter[datetime.date] = Counter()
    without = 0
    for text, count in _time_counts(source, source.time):
        day = day_of(text) if text is not None else None
        if day is None:
            without += count
        else:
            days[day] += count
    for unit in ("month", "day"):
        counts: Counter[str] = Counter()
        for day, count in sorted(days.items()):
            counts[_label(day, unit)] += count
        middle = sorted(counts.values())[len(counts) // 2] if counts else 0
        if len(counts) >= FEWEST_SPANS and middle >= FEWEST_ROWS:
            return Division(unit, dict(counts), without, unfinished=[*counts.values()][-1] < middle / 2)
    return Division("all", {"1": sum(days.values()) + without}, 0)


def _label(day: datetime.date, unit: str) -> str:
    return f"{day:%Y-%m}" if unit == "month" else day.isoformat()


def _time_counts(source: Source, time: str) -> Iterator[tuple[str | None, int]]:
    """Yields the times as text, each with how many rows of a batch have it."""
    path = str(source.path)
    if source.format == "csv":
        batches = csv_source.read(Part(path), {time: BYTES}, source.delimiter, only=[time])
    else:
        surveyed = parquet_source.survey(path, [time])
        batches = parquet_source.read(Part(path, 0, len(surveyed.sizes)), surveyed.kinds, only=[time])
    for batch in batches:
        for entry in batch.values[time].value_counts().to_pylist():
            yield _text(entry["values"]), entry["counts"]


def _text(value: object) -> str | None:
    if value is None:
        return None
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def write(source: Source, division: Division, folder: Path) -> None:
    """Writes the spans; an unfinished one gets no marker, so that it is not used before somebody completes it.

    Args:
      source: the file.
      division: how to divide it.
      folder: the folder for the spans, which must not exist.
    """
    with atomic.new_directory(folder) as staging:
        for label in division.rows:
            (staging / label).mkdir()
        if division.unit == "all" or source.time is None or source.way is None:
            shutil.copyfile(source.path, staging / "1" / source.path.name)
        elif source.format == "csv":
            _divide_csv(source, source.time, times.day_reader(source.way), division.unit, staging)
        else:
            _divide_parquet(source, source.time, times.day_reader(source.way), division.unit, staging)
        labels = list(division.rows)
        for label in labels[:-1] if division.unfinished else labels:
            (staging / label / MARKER).touch()


def _divide_csv(source: Source, time: str, day_of: DayOf, unit: str, staging: Path) -> None:
    name = f"{source.path.name.split('.')[0]}.csv"
    buffered: defaultdict[str, list[list[str]]] = defaultdict(list)

    def flush() -> None:
        for label, rows in buffered.items():
            file = staging / label / name
            new = not file.exists()
            with open(file, "a", encoding="utf-8", newline="") as out:
                csv.writer(out, delimiter=source.delimiter, lineterminator="\n").writerows(
                    [header, *rows] if new else rows
                )
        buffered.clear()

    with files.open_text(str(source.path)) as lines:
        reader = csv.reader(lines, delimiter=source.delimiter)
        header = next(row for row in reader if row)
        position = header.index(time)
        for count, row in enumerate(row for row in reader if row):
            day = day_of(row[position])
            if day is not None:
                buffered[_label(day, unit)].append(row)
            if count % _BUFFERED_ROWS == _BUFFERED_ROWS - 1:
                flush()
        flush()


def _divide_parquet(source: Source, time: str, day_of: DayOf, unit: str, staging: Path) -> None:
    kind = parquet_source.survey(str(source.path), [time]).kinds[time]
    for number, batch in enumerate(pq.ParquetFile(source.path).iter_batches(_BUFFERED_ROWS)):
        texts = map(_text, columns.convert(batch.column(batch.schema.get_field_index(time)), kind).to_pylist())
        days = [None if text is None else day_of(text) for text in texts]
        labels = [None if day is None else _label(day, unit) for day in days]
        for label in dict.fromkeys(label for label in labels if label is not None):
            rows = pa.Table.from_batches([batch]).filter(pa.array([one == label for one in labels]))
            pq.write_table(rows, staging / label / f"part-{number:04d}.parquet")
