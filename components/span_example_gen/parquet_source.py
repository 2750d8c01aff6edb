"""Reads Parquet: a piece is a run of row groups, and no more than some megabytes of it are in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from evergreen.components.span_example_gen import batches, columns, files
from evergreen.components.span_example_gen.batches import Batch, FileSurvey, Part

_BATCH_BYTES = 32 << 20
_BATCH_ROWS = 16384


def survey(path: str, needed: list[str]) -> FileSurvey:
    """Reads a file's footer.

    Args:
      path: the file.
      needed: columns that must be there.

    Raises:
      DataRejected: the file is empty or damaged, lacks a column, or has one that a tf.Example cannot hold.
    """
    files.size(path)
    file = _open(path)
    schema = file.schema_arrow
    names = [name for name in schema.names if not columns.PANDAS_INDEX.fullmatch(name)]
    batches.check_columns(path, names, needed)
    kinds = {}
    for name in names:
        data_type = schema.field(name).type
        kind = columns.kind_of(data_type)
        if kind is None:
            raise batches.unsupported(path, name, data_type)
        kinds[name] = kind
    metadata = file.metadata
    return FileSurvey(
        path,
        kinds,
        tuple(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)),
        frozenset(name for name in names if pa.types.is_timestamp(schema.field(name).type)),
    )


def read(part: Part, kinds: dict[str, str], only: list[str] | None = None) -> Iterator[Batch]:
    """Reads row groups.

    Args:
      part: the file and its row groups.
      kinds: kind that each column of the span becomes.
      only: columns to read; None: all.

    Yields:
      Batches in the order of the file.

    Raises:
      DataRejected: the file is damaged, or a number does not fit.
    """
    file = _open(part.path)
    metadata = file.metadata
    groups = range(part.first, part.last)
    rows_of = [metadata.row_group(group).num_rows for group in groups]
    row = sum(metadata.row_group(group).num_rows for group in range(part.first))
    size = sum(metadata.row_group(group).total_byte_size for group in groups)
    batch_rows = max(1, min(_BATCH_ROWS, _BATCH_BYTES * sum(rows_of) // max(1, size)))
    names = [name for name in file.schema_arrow.names if name in kinds and (only is None or name in only)]
    try:
        for batch in file.iter_batches(batch_rows, row_groups=list(groups), columns=names):
            yield Batch(_convert(part.path, batch, kinds, row), batch.num_rows)
            row += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise _damaged(part.path, error) from error


def _convert(path: str, batch: pa.RecordBatch, kinds: dict[str, str], row: int) -> dict[str, pa.Array]:
    converted = {}
    for name, array in zip(batch.schema.names, batch.columns, strict=True):
        if not kinds[name]:
            continue
        try:
            converted[name] = columns.convert(array, kinds[name])
        except columns.BadValue as error:
            raise batches.bad_value(path, name, f"row {row + error.index + 1}", error) from None
    return converted


def _open(path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(files.open_arrow(path))
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: str, error: Exception) -> Exception:
    return files.damaged(path, "is not a whole Parquet file", error)
