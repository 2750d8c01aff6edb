"""Parquet files in artifacts, wherever TFX keeps them (its file objects are not what pyarrow expects of one)."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

PREDICTIONS_FILE = "predictions.parquet"


def write(table: pa.Table, folder: str) -> str:
    """Writes a table of predictions.

    Args:
      table: the rows.
      folder: an artifact's URI; made if it does not exist.

    Returns:
      The file's path.
    """
    from tfx.dsl.io import fileio

    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    fileio.makedirs(folder)
    path = os.path.join(folder, PREDICTIONS_FILE)
    with fileio.open(path, "wb") as stream:
        stream.write(buffer.getvalue())
    return path


def read(path: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Reads a table.

    Args:
      path: of the file.
      columns: which; all by default.

    Returns:
      The rows.
    """
    from tfx.dsl.io import fileio

    with fileio.open(path, "rb") as stream:
        contents = stream.read()
    return pq.read_table(io.BytesIO(contents), columns=None if columns is None else list(columns))
