"""What the readers of the three formats have in common: what a file holds, and the batches that come out of it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

import pyarrow as pa

from evergreen.components.errors import DataRejected
from evergreen.components.span_example_gen import columns
from evergreen.components.span_example_gen.files import NEXT_STEP


@dataclass(frozen=True)
class Part:
    """A file, or row groups of one, that are read in one go.

    Attributes:
      path: the file.
      first: first row group; 0 for formats that have none.
      last: the one behind the last row group.
    """

    path: str
    first: int = 0
    last: int = 1


@dataclass(frozen=True)
class FileSurvey:
    """What a file says about itself before it is read.

    Attributes:
      path: the file.
      kinds: kind of each column; empty where only reading tells.
      sizes: bytes of each of its row groups, or of the file where it cannot be divided.
      timestamps: columns of points in time, whose values become seconds.
    """

    path: str
    kinds: dict[str, str]
    sizes: tuple[int, ...]
    timestamps: frozenset[str] = frozenset()


@dataclass
class Batch:
    """Rows that were read.

    Attributes:
      values: columns as `columns.convert` returns them.
      rows: how many rows.
      records: the rows as serialized tf.Example, where the file holds these.
      kinds: kind of each column, where only reading tells.
    """

    values: dict[str, pa.Array]
    rows: int
    records: list[bytes] | None = None
    kinds: dict[str, str] = field(default_factory=dict)


def check_columns(path: str, names: list[str], needed: Iterable[str]) -> None:
    """Refuses a file whose columns cannot be told apart, or that lacks one that decides the splits.

    Args:
      path: the file.
      names: its columns, in order.
      needed: what `data.time` and `data.split_key` name.

    Raises:
      DataRejected: naming the column.
    """
    file = os.path.basename(path)
    unnamed = [number for number, name in enumerate(names, 1) if not name.strip()]
    if unnamed:
        raise DataRejected(
            f"column {unnamed[0]} of {file} has no name",
            f"{path}: the columns are {', '.join(repr(name) for name in names)}",
            "name it, or leave it out (pandas: `to_csv(index=False)`)",
        )
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise DataRejected(f"column `{double[0]}` stands twice in {file}", path, NEXT_STEP)
    for name in needed:
        if name not in names:
            raise missing_column(path, name, names)


def missing_column(path: str, name: str, names: Iterable[str]) -> DataRejected:
    """Builds the refusal of a file that lacks a column which decides the splits."""
    return DataRejected(
        f"column `{name}` is missing in {os.path.basename(path)}",
        f"`data.time` or `data.split_key` names it; the columns are {', '.join(names) or 'none'} ({path})",
        "deliver the span with it, or change the configuration",
    )


def unsupported(path: str, name: str, data_type: pa.DataType) -> DataRejected:
    """Builds the refusal of a column that a tf.Example cannot hold."""
    return DataRejected(
        f"column `{name}` has a type that a tf.Example cannot hold",
        f"Received: {data_type}. Expected numbers, strings, booleans, dates, timestamps, or lists of these ({path})",
        "write it as columns of such types, or leave it out",
    )


def bad_value(path: str, name: str, where: str, error: columns.BadValue) -> DataRejected:
    """Builds the refusal of a value that its column cannot hold."""
    return DataRejected(
        f"column `{name}` of {os.path.basename(path)}, {where}: {error.value!r} is not {error.expected}",
        path,
        "mend the file and deliver the span again, or change the column's type in the schema",
    )
