"""What the columns of an unknown CSV or Parquet file hold: kind, missing values, range, most frequent values.

Read by the pipeline's own readers, so that the kinds found here are those that SpanExampleGen will find.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from evergreen.components.errors import ConfigError
from evergreen.components.span_example_gen import columns, csv_source, csv_values, files, parquet_source
from evergreen.components.span_example_gen.batches import Batch, Part
from evergreen.components.span_example_gen.columns import BYTES, FLOAT, INT, MISSING

MANY = 5_000  # distinct values that are counted
MOST_ROWS = 2_000_000
_SUFFIXES = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".tsv": "csv", ".txt": "csv", ".csv.gz": "csv"}
_DELIMITERS = ",;\t|"
_SNIFFED = 1 << 16
# A code such as a postal one: as a number it would lose its zeros.
_LEADING_ZERO = r"^0[0-9]+$"


@dataclass(frozen=True)
class ColumnProfile:
    """What a column holds.

    Attributes:
      name: its name.
      kind: INT, FLOAT, BYTES, or MISSING where no row has a value.
      rows: rows read.
      missing: rows without a value.
      counts: rows by value, as text, for up to MANY values; None where there are more.
      minimum: of a number column; NaN of others, like what follows.
      maximum: likewise.
      mean: likewise.
      deviation: the standard deviation.
      timestamp: whether Parquet says that it is a point in time.
      several: whether a row holds a list.
      example: one of its values, as text.
    """

    name: str
    kind: str
    rows: int
    missing: int
    counts: dict[str, int] | None
    minimum: float
    maximum: float
    mean: float
    deviation: float
    timestamp: bool
    several: bool
    example: str

    @property
    def is_number(self) -> bool:
        """Whether the values are numbers."""
        return self.kind in (INT, FLOAT)

    @property
    def present(self) -> float:
        """The share of the rows that have a value."""
        return 1 - self.missing / self.rows if self.rows else 0.0


@dataclass(frozen=True)
class Profile:
    """What a table holds.

    Attributes:
      format: `csv` or `parquet`.
      delimiter: what separates CSV fields.
      rows: rows read.
      complete: whether these are all.
      columns: in the order of the file.
    """

    format: str
    delimiter: str
    rows: int
    complete: bool
    columns: tuple[ColumnProfile, ...]

    def column(self, name: str) -> ColumnProfile:
        """Returns a column by its name."""
        return next(column for column in self.columns if column.name == name)

    @property
    def names(self) -> list[str]:
        """The columns' names."""
        return [column.name for column in self.columns]


def format_of(path: Path) -> str | None:
    """Returns `csv` or `parquet` by a file's name, None for other files."""
    name = path.name.lower()
    return next((kind for suffix, kind in _SUFFIXES.items() if name.endswith(suffix)), None)


def sniff_delimiter(path: Path) -> str:
    """Returns what separates the fields of a CSV file: the candidate that the header has most of."""
    with files.open_text(str(path)) as lines:
        text = lines.read(_SNIFFED)
    if "\ufffd" in text:  # what the reader puts in the place of a byte that is no UTF-8
        raise ConfigError(
            f"{path.name} is not UTF-8 text",
            "received bytes that are no UTF-8",
            f"Convert it, such as by `iconv -f latin1 -t utf-8 {path.name} > utf8.csv`.",
        )
    head = text.partition("\n")[0]
    return max(_DELIMITERS, key=lambda candidate: len(next(csv.reader([head], delimiter=candidate), [])))


def profile(paths: Sequence[Path]) -> Profile:
    """Reads files of one table.

    Args:
      paths: at least one, all CSV or all Parquet, with the same columns.

    Returns:
      What they hold.

    Raises:
      ConfigError: there are no rows, or no columns with names.
      DataRejected: a file cannot be read.
    """
    kind = format_of(paths[0]) or "csv"
    delimiter = sniff_delimiter(paths[0]) if kind == "csv" else ","
    found: dict[str, _Column] = {}
    rows, complete = 0, True
    for path in paths:
        for batch, timestamps in _batches(path, kind, delimiter):
            rows += batch.rows
            for name, values in batch.values.items():
                column = found.setdefault(name, _Column(name, is_text=kind == "csv", timestamp=name in timestamps))
                column.add(values)
            if rows >= MOST_ROWS:
                complete = False
                break
    if not rows:
        raise ConfigError(f"{paths[0].name} has no rows", "received a header only", "Give a file with data in it.")
    _check_header(paths[0], list(found))
    return Profile(kind, delimiter, rows, complete, tuple(column.finish(rows) for column in found.values()))


def _check_header(path: Path, names: list[str]) -> None:
    numbers = [name for name in names if csv_values.infer_kind(pa.array([name])) in (INT, FLOAT)]
    if len(numbers) == len(names):
        raise ConfigError(
            f"{path.name} has no header",
            f"its first line is {', '.join(names[:6])}, expected the columns' names",
            "Put a line with names above the data.",
        )


def _batches(path: Path, kind: str, delimiter: str) -> Iterator[tuple[Batch, frozenset[str]]]:
    if kind == "csv":
        surveyed = csv_source.survey(str(path), [], delimiter, {})
        for batch in csv_source.read(Part(str(path)), surveyed.kinds, delimiter):
            yield batch, frozenset()
        return
    surveyed = parquet_source.survey(str(path), [])
    for batch in parquet_source.read(Part(str(path), 0, len(surveyed.sizes)), surveyed.kinds):
        # A column without a single value is not in the batch.
        empty = {name: pa.nulls(batch.rows, pa.int64()) for name, found in surveyed.kinds.items() if found == MISSING}
        ordered = {name: {**batch.values, **empty}[name] for name in surveyed.kinds}
        yield Batch(ordered, batch.rows), surveyed.timestamps


@dataclass
class _Column:
    """A column while its batches go by."""

    name: str
    is_text: bool
    timestamp: bool
    kind: str = MISSING
    missing: int = 0
    seen: int = 0
    several: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    overflown: bool = False
    numbers: int = 0
    total: float = 0.0
    squares: float = 0.0
    minimum: float = math.inf
    maximum: float = -math.inf

    def add(self, values: pa.Array) -> None:
        """Takes in a batch, as `columns.convert` gives it."""
        self.seen += len(values)
        if columns.is_list(values.type):
            self.several = True
            self.missing += values.null_count
            values = values.flatten()
        if self.is_text:
            values = self._read_text(values.cast(pa.string()))
        elif values.null_count < len(values):
            self.kind = BYTES if columns.is_text(values.type) else FLOAT if pa.types.is_floating(values.type) else INT
        if not self.several:
            self.missing += values.null_count
        self._count(values)
        if self.kind in (INT, FLOAT) and not columns.is_text(values.type):
            self._measure(values.drop_null())

    def _read_text(self, texts: pa.Array) -> pa.Array:
        """Widens the column's kind where this batch demands it, and reads the batch as that kind."""
        kind = csv_values.wider(self.kind, self._kind_of(texts))
        if kind == BYTES:
            self.kind = BYTES
            return texts
        self.kind = kind
        return csv_values.parse(texts, kind) if kind else texts

    def _kind_of(self, texts: pa.Array) -> str:
        if texts.null_count == len(texts):
            return MISSING
        if self.kind == BYTES:
            return BYTES
        for kind in (INT, FLOAT):
            try:
                pc.cast(texts, columns.TYPES[kind])
            except pa.ArrowInvalid:
                continue
            zeros = kind == INT and pc.any(pc.match_substring_regex(texts, _LEADING_ZERO)).as_py()
            return BYTES if zeros else kind
        return csv_values.infer_kind(texts)  # slow, but it knows `NA` and its like

    def _count(self, values: pa.Array) -> None:
        if self.overflown:
            return
        for entry in pc.value_counts(values.drop_null()).to_pylist():
            value = entry["values"]
            text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
            self.counts[text] += entry["counts"]
        if len(self.counts) > MANY:
            self.overflown = True

    def _measure(self, numbers: pa.Array) -> None:
        finite = numbers.cast(pa.float64(), safe=False)
        finite = finite.filter(pc.is_finite(finite))
        if not len(finite):
            return
        self.numbers += len(finite)
        self.total += pc.sum(finite).as_py()
        self.squares += pc.sum(pc.multiply(finite, finite)).as_py()
        extremes = pc.min_max(finite).as_py()
        self.minimum, self.maximum = min(self.minimum, extremes["min"]), max(self.maximum, extremes["max"])

    def finish(self, rows: int) -> ColumnProfile:
        """Sums up; `rows` are those of the table, since a later file may lack the column."""
        kind, example = self.kind, next(iter(self.counts), "")
        boolean = self.is_text and bool(self.counts) and {text.lower() for text in self.counts} <= {"true", "false"}
        if boolean:
            kind = INT  # the CSV reader takes them for 1 and 0
        measured = self.kind in (INT, FLOAT) and self.numbers > 0
        mean = self.total / self.numbers if measured else math.nan
        variance = max(self.squares / self.numbers - mean * mean, 0.0) if measured else math.nan
        return ColumnProfile(
            name=self.name,
            kind=kind,
            rows=rows,
            missing=self.missing + rows - self.seen,
            counts=None if self.overflown else dict(self.counts.most_common()),
            minimum=0.0 if boolean else self.minimum if measured else math.nan,
            maximum=1.0 if boolean else self.maximum if measured else math.nan,
            mean=mean,
            deviation=math.sqrt(variance) if measured else math.nan,
            timestamp=self.timestamp,
            several=self.several,
            example=example,
        )
