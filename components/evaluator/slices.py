"""Which rows make up which slice, and which block of the bootstrap. Imports pyarrow and numpy only.

A slice key is TFMA's: a tuple of (column, value) pairs in the order of the columns' names; `()` is the whole exam. A
row that lacks one of the columns belongs to no slice of them, as in TFMA.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

SliceKey = tuple[tuple[str, Any], ...]
OVERALL: SliceKey = ()


def members(table: pa.Table | pa.RecordBatch, columns: Sequence[str]) -> Iterator[tuple[SliceKey, np.ndarray]]:
    """Groups rows by the values of columns, without a loop over rows.

    Args:
      table: holds the columns, of strings or numbers.
      columns: none gives the whole table as one slice.

    Yields:
      Each slice's key and its rows' indices, int64, ascending; slices in the order of their values.
    """
    if not columns:
        yield OVERALL, np.arange(table.num_rows)
        return
    ordered = sorted(columns)
    codes, values, complete = _codes(table, ordered)
    kept = np.flatnonzero(complete)
    if not len(kept):
        return
    found, inverse, counts = np.unique(codes[:, kept], axis=1, return_inverse=True, return_counts=True)
    by_slice = np.split(np.argsort(inverse.reshape(-1), kind="stable"), np.cumsum(counts)[:-1])
    for code, indices in zip(found.T, by_slice, strict=True):
        yield tuple((name, values[i][c]) for i, (name, c) in enumerate(zip(ordered, code, strict=True))), kept[indices]


def blocks(table: pa.Table, columns: Sequence[str]) -> np.ndarray | None:
    """Numbers the blocks of the bootstrap.

    Args:
      table: holds the columns.
      columns: those whose equal values belong together; a missing value is a value like any other.

    Returns:
      Each row's block, int64, [rows]; None without columns.
    """
    if not columns:
        return None
    codes, _, _ = _codes(table, columns)
    return np.unique(codes, axis=1, return_inverse=True)[1].reshape(-1)


def text(key: SliceKey) -> str:
    """Writes a slice key for people: `carrier=UA, origin=JFK`, or `overall`."""
    return ", ".join(f"{name}={value}" for name, value in key) or "overall"


def _codes(table: pa.Table | pa.RecordBatch, columns: Sequence[str]) -> tuple[np.ndarray, list[list[Any]], np.ndarray]:
    """Numbers each column's values in their order: codes [columns, rows] (-1: missing), values, rows without a gap."""
    codes, values = [], []
    for name in columns:
        column = table.column(name)
        column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        encoded = column.dictionary_encode()
        found = encoded.dictionary.to_pylist()
        order = sorted(range(len(found)), key=found.__getitem__)
        rank = np.empty(len(found) + 1, np.int64)
        rank[order] = np.arange(len(found))
        rank[-1] = -1
        codes.append(rank[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)])
        values.append([found[i] for i in order])
    stacked = np.stack(codes)
    return stacked, values, (stacked >= 0).all(axis=0)
