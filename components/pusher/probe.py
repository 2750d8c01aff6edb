"""Rows that a server is asked about on behalf of a new version, and what of its answers is wrong.

The rows are exam rows of the newest span; what is right is what the Trainer's model answered when it was examined.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from evergreen.components.errors import EvergreenError

SIGNATURE, OUTPUT, EXAM = "serving_default", "predictions", "exam"


@dataclass(frozen=True)
class Rows:
    """Rows with what is right for them.

    Attributes:
      serialized: tf.Example messages.
      answers: float64, [rows]; the Trainer's own.
    """

    serialized: tuple[bytes, ...]
    answers: np.ndarray


def load(examples_uri: str, evaluation_uri: str, count: int) -> Rows | None:
    """Reads rows of the exam, spread over all of it.

    Args:
      examples_uri: of the newest span's Examples.
      evaluation_uri: of the ModelEvaluation that holds the answers.
      count: how many rows at most.

    Returns:
      The rows; None where there are none, or the artifacts have gone.
    """
    from evergreen.components.evaluator import tables
    from evergreen.components.evaluator.predict import split_files

    if not count or not examples_uri or not evaluation_uri:
        return None
    files = split_files(examples_uri, EXAM)
    path = os.path.join(evaluation_uri, tables.PREDICTIONS_FILE)
    if not files or not os.path.exists(path):
        return None
    table = tables.read(path, ["split", "row", "prediction"])
    exam = table.filter(np.asarray(table["split"]) == EXAM).sort_by("row")
    answers = exam["prediction"].to_numpy().astype(np.float64)
    wanted = np.unique(np.linspace(0, len(answers) - 1, min(count, len(answers))).astype(int)) if len(answers) else []
    serialized = _records(files, set(map(int, wanted)))
    if not serialized:
        return None
    return Rows(tuple(serialized[i] for i in sorted(serialized)), answers[sorted(serialized)])


def _records(files: list[str], wanted: set[int]) -> dict[int, bytes]:
    import tensorflow as tf

    compression = "GZIP" if files[0].endswith(".gz") else ""
    found = {}
    for row, record in enumerate(tf.data.TFRecordDataset(files, compression_type=compression).as_numpy_iterator()):
        if row in wanted:
            found[row] = record
            if len(found) == len(wanted):
                break
    return found


def ask(
    client: Any, model: str, rows: Rows, input_name: str, *, version: int | None = None, label: str | None = None
) -> np.ndarray:
    """Asks a server about the rows, by serialized tf.Example.

    Args:
      client: a `Client`.
      model: the model's name.
      rows: the rows.
      input_name: what `input_name` returned.
      version: which version is to answer, by its number,
      label: or by its label.

    Returns:
      float64, [rows].

    Raises:
      EvergreenError: the server refused, or gives no single number a row.
    """
    outputs = client.examples(model, rows.serialized, version, label, SIGNATURE, input_name)
    output = outputs[OUTPUT] if OUTPUT in outputs or len(outputs) > 1 else next(iter(outputs.values()))
    values = np.asarray(output, np.float64).reshape(-1)
    if len(values) != len(rows.serialized):
        raise EvergreenError(
            "a server's answer does not fit", f"expected one number for each row, received shape {list(output.shape)}"
        )
    return values


def input_name(client: Any, model: str, version: int) -> str:
    """Returns the name of the input that takes serialized tf.Example.

    Args:
      client: a `Client`.
      model: the model's name.
      version: a version that is available.

    Raises:
      EvergreenError: the server refused.
    """
    signature = client.metadata(model, version).get(SIGNATURE)
    return next(iter(signature.inputs), "examples") if signature else "examples"


def difference(answers: np.ndarray, expected: np.ndarray, tolerance: float) -> str:
    """Says how a server's answers differ from the Trainer's.

    Args:
      answers: float64, [rows].
      expected: the same of the Trainer's model.
      tolerance: how far one may be from the other, absolutely and as a share of it.

    Returns:
      A sentence with the worst row; empty where they are equal as far as that.
    """
    apart = np.abs(answers - expected)
    wrong = ~(apart <= tolerance + tolerance * np.abs(expected)) & ~(np.isnan(answers) & np.isnan(expected))
    if not wrong.any():
        return ""
    worst = int(np.argmax(np.where(wrong, np.nan_to_num(apart, nan=np.inf), -1.0)))
    return (
        f"{int(wrong.sum())} of {len(answers)} answers differ from the Trainer's own; row {worst}: received "
        f"{answers[worst]:.6g}, expected {expected[worst]:.6g} (tolerance {tolerance:g})"
    )
