"""Rows to ask a server about: real ones of the exam, with what the Trainer's model answered to them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evergreen.components import model_layout
from evergreen.components.errors import EvergreenError
from evergreen.components.model_server import messages
from evergreen.components.model_server.signatures import Tensor

EXAM = "exam"
_MISSING = {
    "O": model_layout.MISSING_STRING,
    "f": model_layout.MISSING_FLOAT,
    "i": model_layout.MISSING_INT,
}


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows with their answers.

    Attributes:
      serialized: a tf.Example message each.
      expected: what the model answered to them, float64, [rows].
      numbers: which rows of the exam they are.
    """

    serialized: list[bytes]
    expected: np.ndarray
    numbers: list[int]


def exam(examples_uri: str, evaluation_uri: str, count: int) -> Rows:
    """Picks rows of the exam, evenly from its first to its last.

    Args:
      examples_uri: of the Examples artifact that the Evaluator had.
      evaluation_uri: of the Evaluator's ModelEvaluation: the model's answers to all rows of the exam.
      count: how many rows, at most.

    Returns:
      The rows.

    Raises:
      EvergreenError: there are none, or the answers are to other rows.
    """
    import tensorflow as tf

    from evergreen.components.evaluator import tables
    from evergreen.components.evaluator.predict import split_files

    path = os.path.join(evaluation_uri, tables.PREDICTIONS_FILE)
    table = tables.read(path, ["split", "row", "prediction"]).sort_by("row")
    answers = table.filter(np.asarray(table["split"]) == EXAM)["prediction"].to_numpy().astype(np.float64)
    numbers = sorted({int(row) for row in np.linspace(0, len(answers) - 1, min(count, len(answers)))})
    files = split_files(examples_uri, EXAM)
    compression = "GZIP" if files and files[0].endswith(".gz") else ""
    wanted, serialized, total = set(numbers), [], 0
    for batch in tf.data.TFRecordDataset(files, compression_type=compression).batch(4096):
        found = batch.numpy()
        serialized += [one for row, one in enumerate(found, total) if row in wanted]
        total += len(found)
    if not numbers:
        raise EvergreenError(
            "There are no exam rows to ask the server about",
            f"The split `{EXAM}` of the newest span is empty.",
            "Set `data.exam` so that the newest span has exam rows.",
        )
    if total != len(answers):
        raise EvergreenError(
            "The exam rows are not those that gate 2 judged",
            f"{total} rows were read and {len(answers)} answers are recorded.",
            "Give the Examples artifact that the Evaluator had.",
        )
    return Rows(serialized, answers[numbers], numbers)


def dense(serialized: Sequence[bytes], inputs: Mapping[str, Tensor]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Turns tf.Example messages into the dense tensors of a signature over raw features.

    What a row does not have is said as `model_layout` says it; of more values than there are places the first count.

    Args:
      serialized: the rows.
      inputs: the signature's inputs, [rows, ...] each.

    Returns:
      The tensors by input, and which rows are whole in them, bool, [rows].

    Raises:
      ValueError: an input is of a type that no feature has.
    """
    found = {}
    whole = np.ones(len(serialized), bool)
    for name, tensor in inputs.items():
        if tensor.dtype.kind not in _MISSING:
            raise ValueError(f"the input `{name}` is of type {tensor.dtype}, which no feature of a row has")
        width = int(np.prod(_sizes(tensor), dtype=np.int64))
        found[name] = np.full((len(serialized), width), _MISSING[tensor.dtype.kind], tensor.dtype)
    for row, content in enumerate(serialized):
        features = messages.Example.FromString(content).features.feature
        for name, column in found.items():
            values = _values(features[name]) if name in features else []
            whole[row] &= len(values) <= column.shape[1]
            column[row, : len(values)] = values[: column.shape[1]]
    return {name: column.reshape(-1, *_sizes(inputs[name])) for name, column in found.items()}, whole


def strings(values: Sequence[bytes]) -> np.ndarray:
    """Returns bytes as an array of objects, [rows]; NumPy's own type for bytes would cut zeros off their ends."""
    array = np.empty(len(values), object)
    array[:] = values
    return array


def feature_names(serialized: bytes) -> set[str]:
    """Returns the names of the features that a tf.Example message has."""
    return set(messages.Example.FromString(serialized).features.feature)


def _sizes(tensor: Tensor) -> tuple[int, ...]:
    """Returns the shape of one row's values; an open size is one place."""
    return tuple(max(1, size) for size in (tensor.shape or (-1, 1))[1:])


def _values(feature: Any) -> list[Any]:
    return [*feature.bytes_list.value, *feature.float_list.value, *feature.int64_list.value]
