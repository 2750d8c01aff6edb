"""Reads TFRecord files of tf.Example; the records pass through as they are, decoded only to split and to check them."""

from __future__ import annotations

from collections.abc import Iterator

from evergreen.components.span_example_gen import batches, columns, files
from evergreen.components.span_example_gen.batches import Batch, FileSurvey, Part

_BATCH_ROWS = 4096


def survey(path: str) -> FileSurvey:
    """Looks whether there is anything in a file; what its columns are only reading tells.

    Raises:
      DataRejected: the file is empty.
    """
    return FileSurvey(path, {}, (files.size(path),))


def read(part: Part, only: list[str]) -> Iterator[Batch]:
    """Reads a file.

    Args:
      part: the file; GZIP where its name ends so.
      only: columns whose values are wanted.

    Yields:
      Batches in the order of the file, with the values of `only` and the kinds of all columns.

    Raises:
      DataRejected: the file is damaged, or a feature is a number in one row and a string in another.
    """
    import tensorflow as tf
    from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

    decoder = ExamplesToRecordBatchDecoder()
    compression = "GZIP" if part.path.endswith((".gz", ".gzip")) else ""
    records = tf.data.TFRecordDataset(part.path, compression).batch(_BATCH_ROWS).as_numpy_iterator()
    row = 0
    while True:
        try:
            found = next(records, None)
        except tf.errors.OpError as error:
            raise files.rejected(part.path, "is not a whole TFRecord file", files.one_line(error)) from error
        if found is None:
            return
        serialized = found.tolist()
        try:
            decoded = decoder.DecodeBatch(serialized)
        except (RuntimeError, ValueError) as error:
            reason = f"rows {row + 1} to {row + len(serialized)}: {files.one_line(error)}"
            raise files.rejected(part.path, "holds records that are not one table of tf.Example", reason) from error
        kinds = {name: columns.kind_of(decoded.schema.field(name).type) or "" for name in decoded.schema.names}
        values = {
            name: columns.convert(decoded.column(decoded.schema.get_field_index(name)), kinds[name])
            for name in only
            if kinds.get(name)
        }
        yield Batch(values, len(serialized), serialized, kinds)
        row += len(serialized)


def merge_kinds(path: str, known: dict[str, str], found: dict[str, str]) -> None:
    """Adds the kinds of a batch to those known so far.

    Raises:
      DataRejected: a feature is of another kind than before; the records pass through, so that nothing mends it.
    """
    for name, kind in found.items():
        before = known.get(name) or kind
        if kind and before != kind:
            raise files.rejected(path, f"has `{name}` as {kind}", f"other records of the span have it as {before}")
        known[name] = before


def check_needed(path: str, known: dict[str, str], needed: list[str]) -> None:
    """Refuses a file in which no record has a column that decides the splits."""
    for name in needed:
        if not known.get(name):
            raise batches.missing_column(path, name, sorted(known))
