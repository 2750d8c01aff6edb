"""Answers of a SavedModel to the rows of an Examples artifact, with the labels and the columns that slices need.

TensorFlow is imported inside the functions. Everything is in memory: an examination holds one span, not a window.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from evergreen.components import loaded
from evergreen.components.errors import ConfigError, DataRejected

BATCH = 4096
SIGNATURE = "serving_default"
OUTPUT = "predictions"

_PLACE = re.compile(r"\s*\[\[|\s*\d+ (successful operations|derived errors)")
_ARROW_TYPES = {"bytes_list": pa.string(), "int64_list": pa.int64(), "float_list": pa.float64()}


@dataclasses.dataclass(frozen=True)
class Answers:
    """What a model answered.

    Attributes:
      table: a row for each example, in the order of the files: `split` (string), `row` (int64, within its split),
        `label` and `prediction` (float64), then the columns asked for (string, int64 or float64; null where the
        example has none).
      error: why the model could not answer, in one line; empty when it could. Its predictions are NaN then.
    """

    table: pa.Table
    error: str = ""

    @property
    def not_finite(self) -> int:
        """Rows whose prediction is NaN or infinite."""
        return int(np.count_nonzero(~np.isfinite(self.table["prediction"].to_numpy())))


def split_files(examples_uri: str, split: str) -> list[str]:
    """Lists a split's TFRecord files in the order in which everybody reads them.

    Args:
      examples_uri: of the Examples artifact.
      split: the split's name.

    Returns:
      Sorted paths; none where the split has no files.
    """
    from tfx.dsl.io import fileio

    return sorted(fileio.glob(os.path.join(examples_uri, f"Split-{split}", "[!._]*")))


def answer(examples_uri: str, splits: Sequence[str], label: str, columns: Sequence[str], model_dir: str) -> Answers:
    """Lets a model answer rows.

    A model that cannot be loaded or called is a finding, not a crash: `Answers.error` says what happened.

    Args:
      examples_uri: of the Examples artifact.
      splits: the splits to read, in this order.
      label: the raw feature that holds the label, a number.
      columns: further raw features to hand back, such as those to slice by.
      model_dir: a SavedModel whose signature `serving_default` takes a batch of serialized examples, [batch] string,
        and gives one number for each.

    Returns:
      The answers.

    Raises:
      ConfigError: no example has the label or one of the columns, or the label is a string.
      DataRejected: a row has no label, or a column is of one type here and of another there.
    """
    files = {split: split_files(examples_uri, split) for split in splits}
    kinds = _kinds([path for paths in files.values() for path in paths], [label, *columns])
    if kinds.get(label) == "bytes_list":
        raise ConfigError(
            f"The label `{label}` is a string", "Expected a number.", "Name a numeric column in `evaluate.label`."
        )
    model = _Model(model_dir)
    parts = []
    for split in splits:
        row = 0
        for batch in _batches(files[split]):
            values = _columns(batch, kinds, split)
            size = len(values[label])
            parts.append(
                pa.table(
                    {
                        "split": pa.array([split] * size, pa.string()),
                        "row": pa.array(np.arange(row, row + size)),
                        "label": _labels(values[label], label, split),
                        "prediction": model(batch, size),
                        **{name: values[name] for name in columns},
                    }
                )
            )
            row += size
    return Answers(pa.concat_tables(parts) if parts else _empty(), model.error)


class _Model:
    """A signature that turns failures into `error` and NaN."""

    def __init__(self, model_dir: str):
        import tensorflow as tf

        self.error = ""
        self._failures = (tf.errors.OpError, OSError, ValueError, TypeError, KeyError, AttributeError)
        try:
            self._loaded = loaded.saved_model(model_dir)
            self._signature = self._loaded.signatures[SIGNATURE]
            self._input = next(iter(self._signature.structured_input_signature[1]))
        except self._failures as failure:
            self._fail(failure)

    def __call__(self, batch: Any, size: int) -> np.ndarray:
        if not self.error:
            try:
                outputs = self._signature(**{self._input: batch})
                output = outputs[OUTPUT] if OUTPUT in outputs or len(outputs) > 1 else next(iter(outputs.values()))
                values = output.numpy().astype(np.float64).reshape(-1)
                if len(values) != size:
                    raise ValueError(f"expected one number for each row, received shape {list(output.shape)}")
                return values
            except self._failures as failure:
                self._fail(failure)
        return np.full(size, np.nan)

    def _fail(self, failure: Exception) -> None:
        # TensorFlow says what is wrong after the traces of where, and marks the place behind it.
        lines = [line.strip() for line in str(failure).splitlines() if line.strip() and not _PLACE.match(line)]
        self.error = lines[-1][:300] if lines else type(failure).__name__


def _batches(files: Sequence[str]) -> Iterator[Any]:
    """Yields the files' records in order, string tensors [at most BATCH]."""
    if files:
        yield from _records(files).batch(BATCH).prefetch(2)


def _records(files: Sequence[str]) -> Any:
    import tensorflow as tf

    compression = "GZIP" if files[0].endswith(".gz") else ""
    return tf.data.TFRecordDataset(list(files), compression_type=compression)


def _kinds(files: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Finds each feature's kind (`bytes_list`, ...) in the first example that has it."""
    import tensorflow as tf

    found: dict[str, str] = {}
    seen: set[str] = set()
    for record in _records(files).as_numpy_iterator() if files else ():
        features = tf.train.Example.FromString(record).features.feature
        seen.update(features)
        for name in names:
            if name not in found and name in features and features[name].WhichOneof("kind"):
                found[name] = features[name].WhichOneof("kind")
        if len(found) == len(set(names)):
            return found
    if not seen:
        return dict.fromkeys(names, "float_list")  # No rows, so nothing will be parsed.
    missing = [name for name in names if name not in found]
    raise ConfigError(
        f"No row has a feature `{missing[0]}`",
        f"`evaluate` names it as the label, to slice by or as a block; the rows have: {', '.join(sorted(seen))}.",
        "Correct the name in evergreen.yaml.",
    )


def _columns(batch: Any, kinds: Mapping[str, str], split: str) -> dict[str, pa.Array]:
    """Parses only the features asked for; of one with several values the first counts."""
    import tensorflow as tf

    types = {"bytes_list": tf.string, "int64_list": tf.int64, "float_list": tf.float32}
    spec = {name: tf.io.VarLenFeature(types[kind]) for name, kind in kinds.items()}
    try:
        parsed = tf.io.parse_example(batch, spec)
    except tf.errors.InvalidArgumentError as failure:
        raise DataRejected(
            f"The rows of the split `{split}` do not fit together",
            failure.message.splitlines()[0],
            "See that each column has one type in all files of the span.",
        ) from failure
    size = int(tf.shape(batch)[0])
    return {name: _first_values(parsed[name], size, _ARROW_TYPES[kind]) for name, kind in kinds.items()}


def _first_values(sparse: Any, size: int, kind: pa.DataType) -> pa.Array:
    indices, values = sparse.indices.numpy(), sparse.values.numpy()
    first = indices[:, 1] == 0
    full = np.zeros(size, object if kind == pa.string() else kind.to_pandas_dtype())
    missing = np.ones(size, bool)
    missing[indices[first, 0]] = False
    full[~missing] = [v.decode("utf-8", "replace") for v in values[first]] if kind == pa.string() else values[first]
    return pa.array(full, kind, mask=missing)


def _labels(values: pa.Array, label: str, split: str) -> pa.Array:
    if values.null_count:
        raise DataRejected(
            f"{values.null_count} rows of the split `{split}` have no label",
            f"`{label}` is missing in them, and an examination needs to know what is right.",
            "Leave rows without a label out of the span.",
        )
    return values.cast(pa.float64())


def _empty() -> pa.Table:
    kinds = {"split": pa.string(), "row": pa.int64(), "label": pa.float64(), "prediction": pa.float64()}
    return pa.table({name: pa.array([], kind) for name, kind in kinds.items()})
