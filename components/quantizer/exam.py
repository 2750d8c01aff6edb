"""The exam rows as the core model wants them, and the SavedModel's answers to them. TensorFlow loads lazily."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from evergreen.components.errors import EvergreenError
from evergreen.components.evaluator import tables
from evergreen.components.evaluator.predict import split_files

SPLIT = "exam"
BATCH = 4096

Batch = tuple[dict[str, np.ndarray], np.ndarray]


def batches(examples_uri: str, transform_graph_uri: str, label: str, names: Iterable[str]) -> Iterator[Batch]:
    """Reads the exam split and applies the transform graph to it, in the order of the files.

    Args:
      examples_uri: of the newest span's Examples artifact.
      transform_graph_uri: of the TransformGraph artifact.
      label: the raw feature that holds the label.
      names: the transformed features wanted; those that the graph does not give are left out.

    Yields:
      The transformed features by name, dense, [batch, ...], and the labels, float64, [batch].
    """
    import tensorflow as tf

    from evergreen.components.trainer.transform_graph import TransformGraph

    graph = TransformGraph(transform_graph_uri)
    wanted = [name for name in names if name in graph.specs]
    spec = {**graph.parsing_spec(wanted), label: graph.raw_spec[label]}

    # AutoGraph would rewrite the source of tft and of Keras under it, for nothing.
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def transform(serialized: Any) -> Any:
        raw = tf.io.parse_example(serialized, spec)
        labels = raw[label]
        return graph.apply(raw, wanted), labels.values if isinstance(labels, tf.SparseTensor) else labels

    # The Evaluator's own listing: its order of the rows is the order of the recorded answers.
    files = split_files(examples_uri, SPLIT)
    compression = "GZIP" if files and files[0].endswith(".gz") else ""
    for batch in tf.data.TFRecordDataset(files, compression_type=compression).batch(BATCH):
        features, labels = transform(batch)
        yield {name: value.numpy() for name, value in features.items()}, labels.numpy().astype(np.float64).reshape(-1)


def reference(evaluation_uri: str) -> tuple[np.ndarray, np.ndarray]:
    """The SavedModel's answers on the exam rows, as gate 2 recorded them.

    Args:
      evaluation_uri: of the ModelEvaluation artifact.

    Returns:
      Labels and predictions in the order of the rows, float64, [rows].
    """
    path = os.path.join(evaluation_uri, tables.PREDICTIONS_FILE)
    table = tables.read(path, ["split", "row", "label", "prediction"]).sort_by("row")
    exam = table.filter(np.asarray(table["split"]) == SPLIT)
    return exam["label"].to_numpy().astype(np.float64), exam["prediction"].to_numpy().astype(np.float64)


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
            f"The split `{SPLIT}` of the newest span is empty.",
            "Set `data.exam` so that the newest span has exam rows.",
        )
    if labels.shape != recorded.shape or not np.allclose(labels, recorded):
        raise EvergreenError(
            "The exam rows are not those that gate 2 judged",
            f"{len(labels)} rows were read and {len(recorded)} predictions are recorded, or their labels differ.",
            "Give the Quantizer the Examples artifact that the Evaluator had.",
        )
