"""From the window's TFRecord files to batches of transformed rows.

The rows are read, parsed and transformed once, in big batches, and kept in memory as one matrix for each dtype; each
epoch draws a new permutation of the row numbers and gathers its batches by it. That costs a step a fraction of a
millisecond, and shuffles all rows, not a buffer of them. A training that ends before its first epoch does needs only
the rows that this epoch's permutation draws: no others are parsed, transformed and kept, so that its time and memory
follow its steps and not the window. Rows that do not fit the memory budget are read, parsed and transformed anew each
epoch, and shuffled by file and in a buffer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from evergreen.components.errors import DataRejected
from evergreen.components.trainer.request import Part
from evergreen.components.trainer.transform_graph import Materialized, TransformGraph

READ_BATCH = 4096
EVALUATION_BATCH = 4096
SHUFFLE_BUFFER = 65536
_READERS = 2
_PARSERS = os.cpu_count() or 1
_PREFETCH = 4
# The rows are held twice while the batches are joined; the rest is for the model and its gradients.
_SHARE_OF_MEMORY = 1 / 4


@dataclass(frozen=True)
class Draw:
    """What a training takes of its rows.

    Attributes:
      rows: how many it takes in all, a multiple of its batches.
      seed: of the order in which it takes them.
    """

    rows: int
    seed: int


@dataclass
class Dataset:
    """Rows of a training or of a validation, and how to read them in batches.

    Attributes:
      rows: how many there are.
      rows_by_part: (span, split) to how many rows it gave.
      cached_bytes: memory that the rows take; 0 where they are read from the files each time.
      batches: makes a tf.data.Dataset of (features, label) for a batch size, a seed (None for the files' order) and a
        step to begin at; see `training` and `evaluation`.
      columns: the numbers in memory by feature, of the rows that are there; None where rows are read from the files.
    """

    rows: int
    rows_by_part: dict[tuple[int, str], int]
    cached_bytes: int
    batches: Callable[[int, int | None, int], tf.data.Dataset]
    columns: dict[str, np.ndarray] | None = None

    def training(self, batch_size: int, seed: int, start: int = 0) -> tf.data.Dataset:
        """Returns shuffled batches without end, each epoch in another order, the same for the same seed.

        Args:
          batch_size: rows in a batch.
          seed: of the order.
          start: the step to begin at. Rows in memory go on where that step would; rows that are read from files begin
            an epoch of their own.
        """
        return _ready(self.batches(batch_size, seed, start))

    def evaluation(self, batch_size: int = EVALUATION_BATCH) -> tuple[tf.data.Dataset, int]:
        """Returns every row once, in the files' order, and the number of batches, the last of which may be small."""
        return _ready(self.batches(batch_size, None, 0)), -(-self.rows // batch_size)


def open_rows(
    parts: Sequence[Part],
    graph: TransformGraph | Materialized,
    features: Sequence[str],
    label: str,
    budget: int | None = None,
    draw: Draw | None = None,
) -> Dataset:
    """Reads rows into memory, or prepares to stream them where they do not fit.

    Args:
      parts: the files.
      graph: what parses and transforms a row.
      features: the transformed features that the model reads.
      label: the transformed feature that holds the label.
      budget: bytes that the rows may take; None for a share of the machine's memory.
      draw: what a training will take of them, where that is known: the same batches come out, and what is not drawn is
        not kept, so there is nothing to evaluate on.

    Returns:
      The rows.

    Raises:
      DataRejected: a part has not as many rows as were written.
    """
    names = [*features, label]
    budget = memory_budget() if budget is None else budget
    drawn = None if draw is None else _drawn(parts, draw)
    loaded = _load(parts, graph, names, budget, drawn)
    if loaded is None:
        return _streamed(parts, graph, names)
    tables, counts, size = loaded
    rows = sum(counts.values())
    columns = {name: values for table in tables for name, values in table.columns().items()}
    batches = _cached_batches(tables, label, rows) if drawn is None else _drawn_batches(tables, label, drawn)
    return Dataset(rows, counts, size, batches, columns)


def memory_budget() -> int:
    """Returns how many bytes the cached rows may take: a share of what the machine or the container has."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(limit, encoding="ascii") as file:
                total = min(total, int(file.read()))
        except (OSError, ValueError):  # no cgroup, or "max"
            continue
    return int(total * _SHARE_OF_MEMORY)


def _ready(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Prefetches, and keeps tf.data from tuning itself: its thread makes the end of an iterator wait for seconds."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.prefetch(_PREFETCH).with_options(options)


@tf.autograph.experimental.do_not_convert
def _records(file: tf.Tensor) -> tf.data.Dataset:
    """Reads a TFRecord file, compressed where its name says so."""
    compression = tf.where(tf.strings.regex_full_match(file, r".*\.gz"), "GZIP", "")
    return tf.data.TFRecordDataset(file, compression_type=compression)


@dataclass(frozen=True)
class _Table:
    """Features side by side in one tensor, so that one gather gives a batch of them all.

    Attributes:
      names: the features.
      widths: how many of the tensor's columns each has, where there are several.
      values: [rows, sum of the widths], or [rows, ...] of a single feature.
    """

    names: tuple[str, ...]
    widths: tuple[int, ...]
    values: tf.Tensor

    def gather(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns some rows of each feature."""
        found = tf.gather(self.values, index)
        if len(self.names) == 1:
            return {self.names[0]: found}
        return dict(zip(self.names, tf.split(found, self.widths, axis=1), strict=True))

    def columns(self) -> dict[str, np.ndarray]:
        """Returns the numbers by feature: views, as a copy would double the memory. Strings are left out."""
        if self.values.dtype == tf.string:
            return {}
        if len(self.names) == 1:
            return {self.names[0]: np.asarray(self.values)}
        ends = np.cumsum(self.widths)
        return dict(zip(self.names, np.split(np.asarray(self.values), ends[:-1], axis=1), strict=True))


def _tables(chunks: dict[str, list[np.ndarray]]) -> list[_Table]:
    """Joins the batches of each feature, and puts those [batch, width] of one dtype side by side.

    Args:
      chunks: batches by feature; emptied, so that no more than one copy of the rows is held besides.

    Returns:
      The tables.
    """
    groups: dict[tuple[np.dtype, str], list[str]] = {}
    for name, batches in chunks.items():
        groups.setdefault((batches[0].dtype, "" if batches[0].ndim == 2 else name), []).append(name)
    tables = []
    for (dtype, alone), names in groups.items():
        if alone:
            tables.append(_Table((alone,), (), tf.constant(np.concatenate(chunks.pop(alone)))))
            continue
        widths = tuple(int(chunks[name][0].shape[1]) for name in names)
        values = np.empty((sum(map(len, chunks[names[0]])), sum(widths)), dtype)
        for name, end, width in zip(names, np.cumsum(widths), widths, strict=True):
            np.concatenate(chunks.pop(name), out=values[:, end - width : end])
        tables.append(_Table(tuple(names), widths, tf.constant(values)))
    return tables


def _order(rows: int, seed: int, epoch: int | tf.Tensor) -> tf.Tensor:
    """Returns an epoch's permutation of the row numbers, int32, [rows]."""
    return tf.random.experimental.stateless_shuffle(tf.range(rows), seed=tf.stack([np.int64(seed), epoch]))


def _drawn(parts: Sequence[Part], draw: Draw) -> np.ndarray | None:
    """Returns the numbers of the rows that a training takes, in its order; None for all of them, or where nobody knows.

    Args:
      parts: the files.
      draw: what it takes.

    Returns:
      int32, [draw.rows].
    """
    counts = [part.rows for part in parts]
    rows = sum(count or 0 for count in counts)
    if None in counts or draw.rows >= rows:
        return None
    return np.asarray(_order(rows, draw.seed, np.int64(0))[: draw.rows])


def _load(
    parts: Sequence[Part],
    graph: TransformGraph | Materialized,
    names: list[str],
    budget: int,
    drawn: np.ndarray | None = None,
) -> tuple[list[_Table], dict[tuple[int, str], int], int] | None:
    """Reads, parses and transforms every row, or those that are drawn; None as soon as they exceed the budget.

    Returns:
      The rows, how many each part gave, and their bytes.
    """
    files = [(file, number) for number, part in enumerate(parts) for file in part.files]
    if not files:
        return [], {}, 0
    paths, numbers = [file for file, _ in files], [number for _, number in files]

    @tf.autograph.experimental.do_not_convert
    def batches(file: tf.Tensor, number: tf.Tensor) -> tf.data.Dataset:
        return _records(file).batch(READ_BATCH).map(lambda batch: (batch, number))

    read = tf.data.Dataset.from_tensor_slices((paths, numbers)).interleave(
        batches, cycle_length=_READERS, num_parallel_calls=_READERS, deterministic=True
    )
    parse = graph.parser(names)
    counts = [0] * len(parts)
    transformed = _all_rows(read, parse, counts) if drawn is None else _some_rows(read, parse, counts, drawn)
    chunks: dict[str, list[np.ndarray]] = {name: [] for name in names}
    size = 0
    for batch in transformed:
        for name, tensor in batch.items():
            array = tensor.numpy()
            chunks[name].append(array)
            size += _memory(array)
        if size > budget:
            return None
    return _tables(chunks) if sum(counts) else [], _by_part(parts, counts), size


def _all_rows(read: tf.data.Dataset, parse: Callable[..., Any], counts: list[int]) -> Iterator[dict[str, tf.Tensor]]:
    """Yields batches of transformed rows, and counts them by part."""

    @tf.autograph.experimental.do_not_convert
    def transform(batch: tf.Tensor, number: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
        return parse(batch), number, tf.size(batch)

    for batch, number, size in _ready(read.map(transform, num_parallel_calls=_PARSERS, deterministic=True)):
        counts[int(number)] += int(size)
        yield batch


def _some_rows(
    read: tf.data.Dataset, parse: Callable[..., Any], counts: list[int], drawn: np.ndarray
) -> Iterator[dict[str, tf.Tensor]]:
    """Yields batches of those transformed rows that are drawn, in the files' order; counts all of them by part."""
    last = int(drawn.max(initial=0)) + 1  # is not drawn, nor is any row behind it
    mask = np.zeros(last + 1, bool)
    mask[drawn] = True
    is_drawn = tf.constant(mask)

    @tf.autograph.experimental.do_not_convert
    def pick(first: tf.Tensor, batch: Any) -> tuple[tf.Tensor, Any]:
        records, number = batch
        size = tf.size(records, tf.int64)
        wanted = tf.gather(is_drawn, tf.minimum(tf.range(first, first + size), last))
        return first + size, (tf.boolean_mask(records, wanted), number, size)

    kept, rows = [], 0
    for records, number, size in _ready(read.scan(np.int64(0), pick)):
        counts[int(number)] += int(size)
        kept.append(records)
        rows += int(tf.size(records))
        if rows >= READ_BATCH:
            yield parse(tf.concat(kept, 0))
            kept, rows = [], 0
    if rows:
        yield parse(tf.concat(kept, 0))


def _by_part(parts: Sequence[Part], counts: Sequence[int]) -> dict[tuple[int, str], int]:
    """Adds up the rows of each span's split, and compares them with what was written.

    A compressed file that was cut off where a record ends reads like a whole one.
    """
    found: dict[tuple[int, str], int] = {}
    for part, count in zip(parts, counts, strict=True):
        if part.rows is not None and part.rows != count:
            raise DataRejected(
                "the rows of the window cannot be read",
                f"span {part.span} has {count:,} rows of its split {part.split}, and {part.rows:,} were written",
                "Restore the files, or deliver the span again, so that it is read anew.",
            )
        found[part.span, part.split] = found.get((part.span, part.split), 0) + count
    return found


def _memory(array: np.ndarray) -> int:
    """Estimates an array's bytes; of strings the contents too."""
    if array.dtype != object:
        return int(array.nbytes)
    return int(array.nbytes) + sum(len(value) + 33 for value in array.flat)


def _cached_batches(
    tables: Sequence[_Table], label: str, rows: int
) -> Callable[[int, int | None, int], tf.data.Dataset]:
    gather = _gatherer(tables, label)

    def batches(batch_size: int, seed: int | None, start: int) -> tf.data.Dataset:
        if seed is None:
            return tf.data.Dataset.range(rows).batch(batch_size).map(gather)
        first, skipped = divmod(start * batch_size, rows)

        @tf.autograph.experimental.do_not_convert
        def permutation(epoch: tf.Tensor) -> tf.Tensor:
            return _order(rows, seed, epoch)[tf.where(epoch == first, skipped, 0) :]

        # A batch may hold the end of one epoch and the beginning of the next: no row is left out.
        order = tf.data.Dataset.counter(np.int64(first)).map(permutation).rebatch(batch_size, drop_remainder=True)
        return order.map(gather, num_parallel_calls=1, deterministic=True)

    return batches


def _drawn_batches(
    tables: Sequence[_Table], label: str, drawn: np.ndarray
) -> Callable[[int, int | None, int], tf.data.Dataset]:
    """As `_cached_batches`, of the rows that one epoch begins with; the order is settled, whatever the seed."""
    gather = _gatherer(tables, label)
    # The k-th of the rows that are there is the one with the k-th smallest number.
    places = np.empty(len(drawn), np.int32)
    places[np.argsort(drawn, kind="stable")] = np.arange(len(drawn), dtype=np.int32)

    def batches(batch_size: int, seed: int | None, start: int) -> tf.data.Dataset:
        if seed is None:
            raise ValueError("Invalid value for argument `seed`. Expected an integer: not every row is here.")
        # What is read ahead of the last step begins again, and nobody sees it.
        order = tf.data.Dataset.from_tensors(places[start * batch_size :])
        order = order.concatenate(tf.data.Dataset.from_tensors(places).repeat())
        return order.rebatch(batch_size, drop_remainder=True).map(gather, num_parallel_calls=1, deterministic=True)

    return batches


def _gatherer(tables: Sequence[_Table], label: str) -> Callable[[tf.Tensor], tuple[dict[str, tf.Tensor], tf.Tensor]]:
    @tf.autograph.experimental.do_not_convert
    def gather(index: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        batch = {name: values for table in tables for name, values in table.gather(index).items()}
        return batch, batch.pop(label)

    return gather


def _streamed(parts: Sequence[Part], graph: TransformGraph | Materialized, names: list[str]) -> Dataset:
    label = names[-1]
    files = [file for part in parts for file in part.files]

    @tf.autograph.experimental.do_not_convert
    def transform(examples: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        batch = graph.parse_and_apply(examples, names)
        for tensor in batch.values():  # as batches from memory are, so that a step is traced once for both
            tensor.set_shape([examples.shape[0], *tensor.shape[1:]])
        return batch, batch.pop(label)

    def batches(batch_size: int, seed: int | None, start: int) -> tf.data.Dataset:
        paths = tf.data.Dataset.from_tensor_slices(files)
        seed = seed if seed is None else seed + start
        if seed is None:
            records = paths.flat_map(_records).batch(batch_size)
        else:
            records = (
                paths.shuffle(len(files), seed=seed, reshuffle_each_iteration=True)
                .interleave(_records, cycle_length=min(len(files), 16), num_parallel_calls=_READERS, deterministic=True)
                .shuffle(SHUFFLE_BUFFER, seed=seed, reshuffle_each_iteration=True)
                .repeat()
                .batch(batch_size, drop_remainder=True)
            )
        return records.map(transform, num_parallel_calls=_PARSERS, deterministic=True)

    counts = _by_part(parts, [count_rows(part.files) for part in parts])
    return Dataset(sum(counts.values()), counts, 0, batches)


def count_rows(files: Iterable[str]) -> int:
    """Counts the records of TFRecord files.

    Args:
      files: paths.

    Returns:
      How many records they hold together.
    """
    paths = list(files)
    if not paths:
        return 0
    batches = tf.data.Dataset.from_tensor_slices(paths).flat_map(_records).batch(READ_BATCH)
    return int(batches.reduce(np.int64(0), lambda total, batch: total + tf.shape(batch, tf.int64)[0]))


def non_finite(columns: dict[str, np.ndarray]) -> dict[str, int]:
    """Counts the rows that hold NaN or infinity, for the message about a training that gave NaN.

    Args:
      columns: rows by feature.

    Returns:
      Feature to how many of its rows; only features that have some.
    """
    found = {}
    for name, column in columns.items():
        if column.dtype.kind == "f":
            bad = ~np.isfinite(column.reshape(len(column), -1)).all(axis=1)
            if bad.any():
                found[name] = int(bad.sum())
    return found
