"""The text of CSV fields as numbers, and where in a file a row stands.

A number column reads `NA`, `NaN`, `null` and their like as missing; in a string column only the empty field is, since
`NA` may be Namibia. An INT column also reads `5.0` (pandas writes whole numbers so where one is missing), `true` and
`false`, and ISO 8601 times, which become seconds since 1970 (UTC where they name no zone), as in Parquet.
"""

from __future__ import annotations

import csv
import datetime
import re
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.compute as pc

from evergreen.components.span_example_gen.columns import BYTES, FLOAT, INT, MISSING, BadValue

NULLS = frozenset(("", "na", "n/a", "#n/a", "nan", "-nan", "null", "none"))
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?inf(inity)?", re.IGNORECASE)
_EXPECTED = {INT: "a whole number, as the schema wants", FLOAT: "a number, as the schema wants"}


def parse(texts: pa.Array, kind: str) -> pa.Array:
    """Reads text as values of a kind.

    Args:
      texts: n fields as string, null where empty.
      kind: INT, FLOAT, BYTES, or MISSING where every field is missing.

    Returns:
      n rows of int64, float64 or large_binary.

    Raises:
      BadValue: a field is not of that kind.
    """
    if kind == BYTES:
        return texts.cast(pa.large_string()).cast(pa.large_binary())
    if kind == MISSING:
        return pa.nulls(len(texts), pa.int64())
    value_type = pa.int64() if kind == INT else pa.float64()
    try:
        parsed = pc.cast(texts, value_type)
    except pa.ArrowInvalid:
        return _parse_each(texts, kind, value_type)
    return parsed if kind == INT else pc.if_else(pc.is_nan(parsed), pa.scalar(None, value_type), parsed)


def infer_kind(texts: pa.Array) -> str:
    """Returns the narrowest kind that all fields are of: MISSING, INT, FLOAT or BYTES."""
    found = MISSING
    for text in pc.unique(texts).to_pylist():
        if text is None or text.strip().lower() in NULLS:
            continue
        if not _NUMBER.fullmatch(text.strip()):
            return BYTES
        try:
            int(text)
        except ValueError:
            found = FLOAT
        else:
            found = found or INT
    return found


def wider(one: str, other: str) -> str:
    """Returns the kind of text that holds both."""
    order = (MISSING, INT, FLOAT, BYTES)
    return max(one, other, key=order.index)


def _parse_each(texts: pa.Array, kind: str, value_type: pa.DataType) -> pa.Array:
    """Reads each distinct field by itself: slower, and only where a column's text is not plain numbers."""
    encoded = texts.dictionary_encode()
    read: Callable[[str], Any] = _integer if kind == INT else _float
    values: list[Any] = []
    for code, text in enumerate(encoded.dictionary.to_pylist()):
        try:
            values.append(None if text.strip().lower() in NULLS else read(text.strip()))
        except ValueError:
            row = pc.index(encoded.indices, pa.scalar(code, encoded.indices.type)).as_py()
            raise BadValue(row, text, _EXPECTED[kind]) from None
    return pa.array(values, value_type).take(encoded.indices)


def _float(text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    return float(text)


def _integer(text: str) -> int:
    if text.lower() in ("true", "false"):
        return int(text.lower() == "true")
    if _NUMBER.fullmatch(text):
        try:
            value = int(text)
        except ValueError:
            if not float(text).is_integer():
                raise
            value = int(float(text))
    else:
        moment = datetime.datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text))
        zoned = moment if moment.tzinfo else moment.replace(tzinfo=datetime.timezone.utc)
        value = int(zoned.timestamp() // 1)
    if not -(2**63) <= value < 2**63:
        raise ValueError(text)
    return value


def header(lines: TextIO, delimiter: str) -> list[str]:
    """Returns the column names: the first row, none where the file is empty."""
    return next(_rows(lines, delimiter), (0, []))[1]


def ragged_row(lines: TextIO, delimiter: str) -> tuple[int, int, int] | None:
    """Finds the first row that is not as long as the header.

    Args:
      lines: the file from its start, opened with `newline=""`.
      delimiter: what separates fields.

    Returns:
      The number of the line on which the row ends, how many fields it has, and how many the header has; or None.
    """
    rows = _rows(lines, delimiter)
    _, names = next(rows, (0, []))
    return next(((line, len(row), len(names)) for line, row in rows if len(row) != len(names)), None)


def line_of_row(lines: TextIO, delimiter: str, row: int) -> int:
    """Returns the number of the line on which a row ends, where row 0 is the one below the header."""
    for index, (line, _) in enumerate(_rows(lines, delimiter)):
        if index == row + 1:
            return line
    return 0


def _rows(lines: TextIO, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(lines, delimiter=delimiter)
    for row in reader:
        if row:
            yield reader.line_num, row
