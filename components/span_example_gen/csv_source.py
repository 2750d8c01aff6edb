"""Reads CSV as a stream: quoted fields may hold line breaks, so a file is one piece; gzip is unpacked on the way.

Columns have the types of the schema, so that they are the same in every span: a string in a number column is refused
with its line, and a zip code keeps its zeros. A column that the schema does not know is BYTES. Without a schema the
types are inferred from all rows of all files.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.csv as pa_csv

from evergreen.components.span_example_gen import batches, columns, csv_values, files
from evergreen.components.span_example_gen.batches import Batch, FileSurvey, Part

_BLOCK_BYTES = 4 << 20
_LARGEST_ROW = 64 << 20


def survey(path: str, needed: list[str], delimiter: str, types: dict[str, str] | None) -> FileSurvey:
    """Reads a file's header, and all of it where there is no schema to say what the columns are.

    Args:
      path: the file.
      needed: columns that must be there.
      delimiter: what separates fields.
      types: kind of each column by the schema; None: infer them.

    Raises:
      DataRejected: the file is empty or damaged, or lacks a column.
    """
    size = files.size(path)
    names = _header(path, delimiter)
    batches.check_columns(path, names, needed)
    if types is not None:
        return FileSurvey(path, {name: types.get(name, columns.BYTES) for name in names}, (size,))
    kinds = dict.fromkeys(names, columns.MISSING)
    for batch, _ in _texts(path, delimiter, names):
        for name, array in zip(names, batch.columns, strict=True):
            kinds[name] = csv_values.wider(kinds[name], csv_values.infer_kind(array))
    return FileSurvey(path, kinds, (size,))


def read(part: Part, kinds: dict[str, str], delimiter: str, only: list[str] | None = None) -> Iterator[Batch]:
    """Reads a file.

    Args:
      part: the file.
      kinds: kind that each column of the span becomes.
      delimiter: what separates fields.
      only: columns to read; None: all.

    Yields:
      Batches in the order of the file.

    Raises:
      DataRejected: a row is too short or too long, a field is not of its column's kind, or the text is not UTF-8.
    """
    names = [name for name in _header(part.path, delimiter) if only is None or name in only]
    for batch, row in _texts(part.path, delimiter, names):
        values = {}
        for name, array in zip(names, batch.columns, strict=True):
            if not kinds[name]:
                continue
            try:
                values[name] = csv_values.parse(array, kinds[name])
            except columns.BadValue as error:
                with files.open_text(part.path) as lines:
                    line = csv_values.line_of_row(lines, delimiter, row + error.index)
                where = f"line {line} (row {row + error.index + 1})"
                raise batches.bad_value(part.path, name, where, error) from None
        yield Batch(values, batch.num_rows)


def _header(path: str, delimiter: str) -> list[str]:
    with files.open_text(path) as lines:
        try:
            names = csv_values.header(lines, delimiter)
        except (OSError, EOFError) as error:
            raise _damaged(path, error) from error
    if not names:
        raise files.rejected(path, "is empty", "it has no header")
    return names


def _texts(path: str, delimiter: str, names: list[str]) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Yields batches of string columns, empty fields null, and the number of each one's first row."""
    parsing = pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    converting = pa_csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        include_columns=names,
        null_values=[""],
        strings_can_be_null=True,
    )
    row, block = 0, _BLOCK_BYTES
    while True:
        try:
            reading = pa_csv.ReadOptions(block_size=block, use_threads=False)
            with pa_csv.open_csv(files.open_stream(path), reading, parsing, converting) as reader:
                for batch in reader:
                    yield batch, row
                    row += batch.num_rows
            return
        except (pa.ArrowException, OSError, EOFError) as error:
            # A row longer than a block: read again in larger ones, as long as nothing has been handed on.
            if "straddling" in str(error) and row == 0 and block < _LARGEST_ROW:
                block = _LARGEST_ROW
                continue
            raise _refusal(path, delimiter, error) from error


def _refusal(path: str, delimiter: str, error: Exception) -> Exception:
    """Finds the line that pyarrow could not read."""
    if "Empty CSV file" in str(error):
        return files.rejected(path, "is empty", "it has no rows")
    if "UTF8" in str(error):
        return files.rejected(path, "is not UTF-8", files.one_line(error), "convert it, such as by `iconv -t utf-8`")
    try:
        with files.open_text(path) as lines:
            found = csv_values.ragged_row(lines, delimiter)
    except (OSError, EOFError):
        found = None
    if not found:
        return _damaged(path, error)
    line, length, expected = found
    return files.rejected(path, f"has a ragged row in line {line}", f"Received: {length} fields. Expected: {expected}")


def _damaged(path: str, error: Exception) -> Exception:
    return files.damaged(path, "cannot be read as CSV", error)
