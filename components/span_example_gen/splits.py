"""Which split a row belongs to. Pure: a row's split depends on its own values, the cut and the settings, nothing else.

`exam` is the tail of the span by `data.time`: every row from a cut on. The cut is the latest value such that the exam
holds at least the wanted share of the rows; rows of the same time stay together. `validation` is drawn from the rest by
a hash of `data.split_key`, so that the same value is on the same side in every span, on every platform. Without a
time the exam is drawn by a hash too (another one); without a split key the whole row is hashed.

A row without a time is never in the exam; a row without a split key is neither in `validation` nor, where the exam is
drawn by a hash, in the exam.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from evergreen.components.errors import DataRejected
from evergreen.components.span_example_gen.settings import SPLITS, WHOLE_SPAN, Settings

TRAIN, VALIDATION, EXAM = range(len(SPLITS))
_ISO = re.compile(rb"\d{6}|\d{8}|\d{4}(-\d\d(-\d\d([ T]\d\d(:\d\d(:\d\d(\.\d+)?)?)?(Z|[+-]\d\d:?\d\d)?)?)?)?")


@dataclass
class TimeCounts:
    """How often each time occurs.

    Attributes:
      counts: rows by time: int, float or bytes.
      rows: all rows, those without a time included.
    """

    counts: dict[Any, int] = field(default_factory=dict)
    rows: int = 0

    def add(self, times: pa.Array) -> None:
        """Counts a batch: one time a row, null where there is none."""
        self.rows += len(times)
        for entry in pc.value_counts(times.drop_null()).to_pylist():
            self.counts[entry["values"]] = self.counts.get(entry["values"], 0) + entry["counts"]

    @classmethod
    def merged(cls, parts: Iterable[TimeCounts]) -> TimeCounts:
        """Adds up counts of several pieces."""
        total = cls()
        for part in parts:
            total.rows += part.rows
            for value, count in part.counts.items():
                total.counts[value] = total.counts.get(value, 0) + count
        return total


def find_cut(counted: TimeCounts, share: float, column: str) -> Any:
    """Finds the time from which on rows are in the exam.

    Args:
      counted: all rows of the span.
      share: the part of all rows that must be in the exam at least, if as many have a time.
      column: the column's name, for errors.

    Returns:
      The latest time such that enough rows are as late or later.

    Raises:
      DataRejected: no row has a time, or the times are text that does not sort by time.
    """
    if not counted.rows:
        return None
    if not counted.counts:
        raise DataRejected(f"column `{column}` is empty", "`data.time` names it, and no row has a value", "deliver it")
    texts = [value for value in counted.counts if isinstance(value, bytes)]
    if texts and len(texts) < len(counted.counts):
        raise DataRejected(
            f"column `{column}` is a number in some rows and a string in others",
            f"{len(texts):,} of its {len(counted.counts):,} distinct values are strings",
            "write it with one type",
        )
    _check_iso(texts, column)
    wanted, late = share * counted.rows, 0
    for value in sorted(counted.counts, reverse=True):
        late += counted.counts[value]
        if late >= wanted:
            break
    return value


def assign(values: dict[str, pa.Array], rows: pa.Array, settings: Settings, cut: Any = None) -> np.ndarray:
    """Assigns rows to splits.

    Args:
      values: the columns that `settings.key_columns` names: one value a row.
      rows: n rows, serialized; hashed where no column decides.
      settings: which columns decide, and how large the splits are.
      cut: what `find_cut` returned, where the exam is cut by time.

    Returns:
      [n] int8: index into SPLITS.
    """
    if settings.exam == WHOLE_SPAN:
        return np.full(len(rows), EXAM, np.int8)
    keys = values[settings.split_key] if settings.split_key else rows
    validation = _drawn(keys, settings.validation, b"validation")
    if settings.time and settings.cuts_by_time:
        late = pc.greater_equal(values[settings.time], pa.scalar(cut, values[settings.time].type))
        exam = pc.fill_null(late, False).to_numpy(zero_copy_only=False)
    else:
        exam = _drawn(keys, float(settings.exam), b"exam")
    return np.where(exam, EXAM, np.where(validation, VALIDATION, TRAIN)).astype(np.int8)


def _drawn(keys: pa.Array, share: float, salt: bytes) -> np.ndarray:
    """[n] bool: whether the hash of a row's key lies below the share; a row without a key is not drawn."""
    if not share:
        return np.zeros(len(keys), bool)
    encoded = keys.dictionary_encode()
    limit = int(share * 2**64)
    drawn = [
        int.from_bytes(hashlib.sha256(salt + b"\0" + _key_bytes(key)).digest()[:8], "big") < limit
        for key in encoded.dictionary.to_pylist()
    ]
    taken = pa.array(drawn, pa.bool_()).take(encoded.indices)
    return pc.fill_null(taken, False).to_numpy(zero_copy_only=False)


def _key_bytes(key: Any) -> bytes:
    if isinstance(key, bytes):
        return key
    # As a tf.Example stores it: the same number read from a TFRecord file has the same hash.
    return repr(float(np.float32(key))).encode() if isinstance(key, float) else str(key).encode()


def _check_iso(texts: list[bytes], column: str) -> None:
    zones: dict[bytes | None, bytes] = {}
    for text in texts:
        match = _ISO.fullmatch(text)
        if not match:
            shown = text.decode(errors="replace")
            raise DataRejected(
                f"column `{column}` does not sort by time",
                f"Received: {shown!r}. Expected a timestamp, a date, a number or ISO 8601 text",
                "write it as one of these; `data.time` names the column",
            )
        zones.setdefault(match.group(7), text)
    if len(zones) > 1:
        one, other = (text.decode() for text in list(zones.values())[:2])
        raise DataRejected(
            f"column `{column}` does not sort by time",
            f"its texts name different time zones: {one!r} and {other!r}",
            "write all of them in one time zone",
        )
