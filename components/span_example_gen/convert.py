"""What a Beam worker does with a piece of a span: count its times, then write its rows into the splits.

An error that the user must see is a value here and not an exception: a runner would wrap it, or try the piece again.
Each piece's outcome is a small file in the staging folder, which every runner's workers can write and the executor
reads; shards are written there too and moved when they are whole, so that a piece that is tried twice leaves one shard.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from evergreen.components import errors
from evergreen.components.errors import Failure
from evergreen.components.span_example_gen import (
    batches,
    columns,
    csv_source,
    parquet_source,
    splits,
    tf_example,
    tfrecord_source,
)
from evergreen.components.span_example_gen.pieces import Job, Piece
from evergreen.components.span_example_gen.settings import SPLITS

STAGING = ".staging"


@dataclass
class Outcome:
    """What became of a piece.

    Attributes:
      rows: rows by split.
      kinds: kind of each column, where only reading tells (TFRecord).
      cut: the time from which on rows are in the exam.
      failure: why there are no rows.
    """

    rows: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    cut: Any = None
    failure: Failure | None = None

    @classmethod
    def read(cls, text: str) -> Outcome:
        """Reads what `write_outcome` wrote."""
        values = json.loads(text)
        failure = values.pop("failure")
        return cls(**values, failure=Failure(**failure) if failure else None)


def count_times(piece: Piece, job: Job) -> splits.TimeCounts | Failure:
    """Counts the times of a piece; reads no other column where the format allows it.

    Args:
      piece: what to read.
      job: what all pieces have in common.
    """
    time = job.settings.time or ""
    counted = splits.TimeCounts()
    try:
        for path, batch in _read(piece, job, [time]):
            counted.add(_key(path, batch, time, job))
    except errors.EvergreenError as error:
        return Failure.of(error)
    return counted


def merge_counts(parts: Iterable[splits.TimeCounts | Failure]) -> splits.TimeCounts | Failure:
    """Adds up the counts of pieces; one failure is enough to fail."""
    known = list(parts)
    failures = [part for part in known if isinstance(part, Failure)]
    if failures:
        return min(failures, key=lambda failure: (failure.headline, failure.reason))
    return splits.TimeCounts.merged(part for part in known if isinstance(part, splits.TimeCounts))


def find_cut(counted: splits.TimeCounts | Failure, job: Job) -> Any:
    """Returns the cut of `splits.find_cut`, or the failure that is in its way."""
    if isinstance(counted, Failure):
        return counted
    try:
        return splits.find_cut(counted, float(job.settings.exam), job.settings.time or "")
    except errors.EvergreenError as error:
        return Failure.of(error)


def write_piece(piece: Piece, job: Job, cut: Any = None) -> None:
    """Writes the rows of a piece into a TFRecord file for each split that has any, and its outcome beside them.

    Args:
      piece: what to read.
      job: what all pieces have in common.
      cut: what `find_cut` returned; None where the exam is not cut by time.
    """
    outcome = Outcome(cut=cut.decode() if isinstance(cut, bytes) else cut)
    if isinstance(cut, Failure):
        outcome = Outcome(failure=cut)
    else:
        try:
            outcome.rows = _write_rows(piece, job, cut, outcome.kinds)
        except errors.EvergreenError as error:
            outcome = Outcome(failure=Failure.of(error))
    write_outcome(job, piece, outcome)


def outcome_path(job: Job, index: int) -> str:
    """Returns where the outcome of a piece is written."""
    return f"{job.uri}/{STAGING}/outcome-{index:05d}.json"


def write_outcome(job: Job, piece: Piece, outcome: Outcome) -> None:
    """Writes the outcome of a piece, whole or not at all."""
    from tfx.dsl.io import fileio

    staged = f"{job.uri}/{STAGING}/{uuid.uuid4().hex}"
    with fileio.open(staged, "w") as file:
        file.write(json.dumps(asdict(outcome)))
    fileio.rename(staged, outcome_path(job, piece.index), overwrite=True)


def shard_path(job: Job, split: str, index: int) -> str:
    """Returns the name of a piece's file of a split: as TFX names them, without `.gz` for they are not packed."""
    return f"{job.uri}/Split-{split}/data_tfrecord-{index:05d}-of-{job.pieces:05d}"


def _write_rows(piece: Piece, job: Job, cut: Any, kinds: dict[str, str]) -> dict[str, int]:
    rows: Counter[str] = Counter()
    needed = job.settings.key_columns
    with contextlib.ExitStack() as stack:
        shards = [stack.enter_context(_Shard(job, split, piece.index)) for split in SPLITS]
        for path, batch in _read(piece, job, None):
            if job.format == "tfrecord":
                tfrecord_source.merge_kinds(path, kinds, batch.kinds)
            keys = {name: _key(path, batch, name, job) for name in needed}
            if batch.records is None:
                serialized = tf_example.serialize({n: columns.narrow(array) for n, array in batch.values.items()})
                records = serialized.to_pylist()
            else:
                records, serialized = batch.records, pa.array(batch.records, pa.large_binary())
            codes = splits.assign(keys, serialized, job.settings, cut).tolist()
            for record, code in zip(records, codes, strict=True):
                shards[code].write(record)
            rows.update(SPLITS[code] for code in codes)
        if job.format == "tfrecord":
            tfrecord_source.check_needed(piece.parts[0].path, kinds, needed)
    return dict(rows)


def _read(piece: Piece, job: Job, only: list[str] | None) -> Iterator[tuple[str, batches.Batch]]:
    for part in piece.parts:
        if job.format == "parquet":
            found = parquet_source.read(part, job.kinds, only)
        elif job.format == "csv":
            found = csv_source.read(part, job.kinds, job.settings.delimiter, only)
        else:
            found = tfrecord_source.read(part, job.settings.key_columns if only is None else only)
        for batch in found:
            yield part.path, batch


def _key(path: str, batch: batches.Batch, name: str, job: Job) -> pa.Array:
    """The column that decides a split: one value a row."""
    if name not in batch.values:
        return pa.nulls(batch.rows, columns.TYPES.get(job.kinds.get(name, ""), pa.int64()))
    values = columns.single_values(batch.values[name])
    if values is None:
        raise errors.DataRejected(
            f"column `{name}` has several values in a row",
            f"`data.time` or `data.split_key` names it ({path})",
            "name a column that has one value in each row",
        )
    return values


class _Shard:
    """A TFRecord file that appears under its name when it is whole, and only if a row was written."""

    def __init__(self, job: Job, split: str, index: int):
        self._staged = f"{job.uri}/{STAGING}/{uuid.uuid4().hex}"
        self._path = shard_path(job, split, index)
        self._writer: Any = None

    def write(self, record: bytes) -> None:
        if self._writer is None:
            import tensorflow as tf

            self._writer = tf.io.TFRecordWriter(self._staged)
        self._writer.write(record)

    def __enter__(self) -> _Shard:
        return self

    def __exit__(self, error_type: Any, *details: Any) -> None:
        from tfx.dsl.io import fileio

        if self._writer is not None:
            self._writer.close()
            if error_type is None:
                fileio.rename(self._staged, self._path, overwrite=True)
