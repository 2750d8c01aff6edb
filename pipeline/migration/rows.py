"""ML Metadata's tables, and what a row of the SQLite file must look like on a server. Pure: nothing is connected here.

The columns have the same names everywhere. Their types differ: a server's integers have 32 bits where SQLite's have 64,
PostgreSQL has true booleans, and it keeps serialized protos as they are where the others keep them in base64.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evergreen.components.errors import EvergreenError

# Every table of layout 10, the newest and only one that ml_metadata 1.16 to 1.21 write.
TABLES = (
    "MLMDEnv",
    "Type",
    "TypeProperty",
    "ParentType",
    "Artifact",
    "ArtifactProperty",
    "Execution",
    "ExecutionProperty",
    "Context",
    "ContextProperty",
    "ParentContext",
    "Event",
    "EventPath",
    "Association",
    "Attribution",
)
WITH_ID = ("Type", "Artifact", "Execution", "Context", "Event", "Association", "Attribution")
# ML Metadata fills these two when it creates the tables.
PREFILLED = ("MLMDEnv", "Type")
PREFILLED_TYPES = "mlmd."
_HIGHEST_INT = 2**31 - 1
_HIGHEST_WHOLE_DOUBLE = 2**53

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Column:
    """A column of the target.

    Attributes:
      name: as the SQLite file spells it.
      kind: `int`, `bigint`, `bool`, `float`, `text` or `bytes`.
      proto: whether it holds serialized protos that are not to be in base64.
    """

    name: str
    kind: str
    proto: bool = False


class Encoder:
    """Turns rows of a table of the SQLite file into the target's.

    Args:
      table: its name.
      columns: the target's columns, in the order of the rows.

    Attributes:
      doubles: how many integers of more than 32 bits became doubles.
    """

    def __init__(self, table: str, columns: Sequence[Column]):
        self.table = table
        self.doubles = 0
        self._columns = columns
        self._at = {column.name: index for index, column in enumerate(columns)}

    def encode(self, row: Row) -> Row:
        """Returns a row as the target holds it.

        Args:
          row: a row of the file.

        Returns:
          Values of int, bool, float, str, bytes or None.

        Raises:
          EvergreenError: an integer does not fit and may not become a double.
        """
        values = list(row)
        self._widen(values)
        for index, column in enumerate(self._columns):
            value = values[index]
            if value is None:
                continue
            if column.kind == "bool":
                values[index] = bool(value)
            elif column.kind == "float":
                values[index] = float(value)
            elif column.kind == "int" and not -_HIGHEST_INT - 1 <= value <= _HIGHEST_INT:
                raise self._too_large(row, column.name)
            elif column.kind == "bytes" and isinstance(value, str):
                values[index] = base64.b64decode(value) if column.proto else value.encode()
        return tuple(values)

    def _widen(self, values: list[Any]) -> None:
        """Makes a double of a custom property's integer that has no room in 32 bits, as Evergreen itself writes it."""
        at = self._at.get("int_value")
        if at is None or self._columns[at].kind != "int" or values[at] is None:
            return
        number = values[at]
        custom = values[self._at["is_custom_property"]]
        if _HIGHEST_INT < abs(number) <= _HIGHEST_WHOLE_DOUBLE and custom:
            values[at], values[self._at["double_value"]] = None, float(number)
            self.doubles += 1

    def _too_large(self, row: Row, name: str) -> EvergreenError:
        key = ", ".join(f"{column.name} {value}" for column, value in zip(self._columns, row, strict=True) if value)
        return EvergreenError(
            "a number is too large for the server's tables",
            f"{self.table}.{name} has 32 bits on the server; received {row[self._at[name]]} in the row {key[:200]}",
            "ML Metadata's tables there cannot hold this record; stay with SQLite. Nothing was changed.",
        )


class Checksum:
    """Counts rows and adds up their digests, so that the order in which they come does not matter.

    Attributes:
      rows: how many were added.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._sum = 0

    def add(self, row: Row) -> None:
        """Adds a row.

        Args:
          row: as `Encoder.encode` returns it, or as the target gives it back.
        """
        self.rows += 1
        digest = hashlib.blake2b(repr(row).encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self._sum = (self._sum + int.from_bytes(digest, "big")) % 2**64

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Checksum) and (self.rows, self._sum) == (other.rows, other._sum)

    __hash__ = None  # type: ignore[assignment]


def not_empty(counts: Mapping[str, int], own_types: int) -> str:
    """Says what a target holds beside what ML Metadata fills in by itself.

    Args:
      counts: the rows of each table.
      own_types: rows of `Type` that are not ML Metadata's own.

    Returns:
      Such as `3 rows of Artifact`; empty where it is empty.
    """
    found = {table: count for table, count in counts.items() if table not in PREFILLED and count}
    if own_types:
        found["Type"] = own_types
    return ", ".join(f"{count:,} rows of {table}" for table, count in found.items())
