"""The rows that calibrate and measure: raw and transformed, and the SavedModel's answers. TensorFlow loads lazily."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from evergreen.components import model_layout
from evergreen.components.errors import EvergreenError
from evergreen.components.evaluator import tables
from evergreen.components.evaluator.predict import split_files

EXAM, TRAIN = "exam", "train"
BATCH = 4096

Features = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Exam:
    """The exam rows, in the order of the files.

    Attributes:
      raw: raw features as `predict_raw` takes them, [rows, 1] or their fixed shape; strings as bytes.
      transformed: what the transform graph makes of them.
      labels: float64, [rows].
    """

    raw: Features
    transformed: Features
    labels: np.ndarray


def exam(graph: Any, examples_uri: str, label: str, names: Iterable[str]) -> Exam:
    """Reads the exam split and applies the transform graph to it.

    Args:
      graph: the `TransformGraph`.
      examples_uri: of the newest span's Examples artifact.
      label: the raw feature that holds the label.
      names: the transformed features wanted; those that the graph does not give are left out.
    """
    import tensorflow as tf

    wanted = [name for name in names if name in graph.specs]
    needed = graph.parsing_spec(wanted)
    spec = {**needed, label: graph.raw_spec[label]}

    # AutoGraph would rewrite the source of tft and of Keras under it, for nothing.
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def read(serialized: Any) -> Any:
        parsed = tf.io.parse_example(serialized, spec)
        labels = parsed[label]
        raw = {name: _dense(parsed[name], needed[name]) for name in needed if _is_dense(needed[name])}
        return raw, graph.apply(parsed, wanted), labels.values if isinstance(labels, tf.SparseTensor) else labels

    raws, transformed, labels = [], [], [np.empty(0)]
    for batch in _batches(examples_uri, EXAM):
        one, other, given = read(tf.constant(batch))
        raws.append({name: _array(value) for name, value in one.items()})
        transformed.append({name: value.numpy() for name, value in other.items()})
        labels.append(given.numpy().astype(np.float64).reshape(-1))
    return Exam(_joined(raws), _joined(transformed), np.concatenate(labels))


def calibration(graph: Any, examples_uri: str, names: Iterable[str], count: int, seed: int) -> Features:
    """Draws rows of the train split, each with the same chance, and applies the transform graph to them.

    Args:
      graph: the `TransformGraph`.
      examples_uri: of the newest span's Examples artifact.
      names: the transformed features wanted.
      count: how many rows at most.
      seed: the same one draws the same rows.

    Returns:
      Arrays of [rows, ...]; empty where the split has no rows.
    """
    import tensorflow as tf

    random = np.random.default_rng(seed)
    keys, kept = np.empty(0), np.empty(0, object)
    # The rows of the smallest random numbers: a uniform draw that never holds more than a batch besides them.
    for batch in _batches(examples_uri, TRAIN):
        keys = np.concatenate([keys, random.random(len(batch))])
        kept = np.concatenate([kept, batch])
        smallest = np.argsort(keys, kind="stable")[:count]
        keys, kept = keys[smallest], kept[smallest]
    if not len(kept):
        return {}
    transformed = graph.parse_and_apply(tf.constant(kept), sorted(names))
    return {name: value.numpy() for name, value in transformed.items()}


def reference(evaluation_uri: str) -> tuple[np.ndarray, np.ndarray]:
    """The SavedModel's answers on the exam rows, as gate 2 recorded them.

    Args:
      evaluation_uri: of the ModelEvaluation artifact.

    Returns:
      Labels and predictions in the order of the rows, float64, [rows].
    """
    path = os.path.join(evaluation_uri, tables.PREDICTIONS_FILE)
    table = tables.read(path, ["split", "row", "label", "prediction"]).sort_by("row")
    answers = table.filter(np.asarray(table["split"]) == EXAM)
    return answers["label"].to_numpy().astype(np.float64), answers["prediction"].to_numpy().astype(np.float64)


def check_same_rows(labels: np.ndarray, recorded: np.ndarray) -> None:
    """Refuses to compare answers to different rows.

    Args:
      labels: of the rows that were read, [rows].
      recorded: the labels beside the recorded answers, [rows].

    Raises:
      EvergreenError: when there are none, or they differ in number or in order.
    """
    if not len(labels):
        raise EvergreenError(
            "There are no exam rows to measure the variants on",
            f"The split `{EXAM}` of the newest span is empty.",
            "Set `data.exam` so that the newest span has exam rows.",
        )
    if labels.shape != recorded.shape or not np.allclose(labels, recorded):
        raise EvergreenError(
            "The exam rows are not those that gate 2 judged",
            f"{len(labels)} rows were read and {len(recorded)} predictions are recorded, or their labels differ.",
            "Give the Quantizer the Examples artifact that the Evaluator had.",
        )


def _batches(examples_uri: str, split: str) -> Iterator[np.ndarray]:
    """Yields a split's serialized examples, bytes objects, [at most BATCH]."""
    import tensorflow as tf

    # The Evaluator's own listing: its order of the rows is the order of the recorded answers.
    files = split_files(examples_uri, split)
    compression = "GZIP" if files and files[0].endswith(".gz") else ""
    for batch in tf.data.TFRecordDataset(files, compression_type=compression).batch(BATCH):
        yield batch.numpy()


def _is_dense(spec: Any) -> bool:
    import tensorflow as tf

    return isinstance(spec, (tf.io.FixedLenFeature, tf.io.VarLenFeature))


def _dense(parsed: Any, spec: Any) -> Any:
    """Returns a parsed raw feature as `predict_raw` takes it; of several values the first counts."""
    import tensorflow as tf

    if isinstance(parsed, tf.SparseTensor):
        missing = {
            tf.string: model_layout.MISSING_STRING,
            tf.int64: model_layout.MISSING_INT,
            tf.float32: model_layout.MISSING_FLOAT,
        }[parsed.dtype]
        column = tf.sparse.slice(parsed, [0, 0], [parsed.dense_shape[0], 1])
        column = tf.SparseTensor(column.indices, column.values, [parsed.dense_shape[0], 1])
        return tf.sparse.to_dense(column, tf.constant(missing, parsed.dtype))
    return parsed if spec.shape else tf.expand_dims(parsed, 1)


def _array(value: Any) -> np.ndarray:
    array = value.numpy()
    return array.astype(np.bytes_) if array.dtype == object else array


def _joined(parts: list[Features]) -> Features:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
