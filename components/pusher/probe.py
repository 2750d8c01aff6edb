"""Rows that a server is asked about on behalf of a new version, and what of its answers is wrong.

The rows are exam rows of the newest span; what is right is what the Trainer's model answered when it was examined.
"""

from __future__ import annotations

import os
from typing import Any

import grpc
import numpy as np

from evergreen.components.errors import EvergreenError
from evergreen.components.model_server import compare
from evergreen.components.model_server.rows import Rows

SIGNATURE, OUTPUT = "serving_default", "predictions"
# What a server says that is only too busy for the moment.
BUSY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED)


def load(examples_uri: str, evaluation_uri: str, count: int) -> Rows | None:
    """Reads rows of the exam, spread over all of it.

    Args:
      examples_uri: of the newest span's Examples.
      evaluation_uri: of the ModelEvaluation that holds the answers.
      count: how many rows at most.

    Returns:
      The rows; None where none are wanted, or the artifacts are not there or have gone since.

    Raises:
      EvergreenError: the rows and the answers do not belong together.
    """
    from evergreen.components.evaluator import tables
    from evergreen.components.model_server import rows

    there = examples_uri and evaluation_uri and os.path.isdir(examples_uri)
    if not count or not there or not os.path.exists(os.path.join(evaluation_uri, tables.PREDICTIONS_FILE)):
        return None
    return rows.exam(examples_uri, evaluation_uri, count)


def one(rows: Rows, turn: int) -> Rows:
    """Returns one of the rows, another one each turn."""
    index = turn % len(rows.serialized)
    return Rows(rows.serialized[index : index + 1], rows.expected[index : index + 1], rows.numbers[index : index + 1])


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
    output = next(iter(outputs.values())) if len(outputs) == 1 else outputs.get(OUTPUT)
    try:
        values = np.asarray(() if output is None else output, np.float64).reshape(-1)
    except (TypeError, ValueError):  # words
        values = np.empty(0)
    if len(values) != len(rows.serialized):
        given = ", ".join(f"`{name}` {array.dtype}{list(array.shape)}" for name, array in sorted(outputs.items()))
        raise EvergreenError(
            "a server's answer does not fit", f"expected one number for each row, received {given or 'no output'}"
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


def difference(answers: np.ndarray, rows: Rows, tolerance: float) -> str:
    """Says how a server's answers differ from the Trainer's.

    Args:
      answers: float64, [rows].
      rows: the rows with what is right.
      tolerance: see `evergreen.components.model_server.compare`.

    Returns:
      A sentence with the worst row; empty where they agree.
    """
    found = compare.differences({OUTPUT: rows.expected}, {OUTPUT: answers}, tolerance, rows.numbers)
    return found[0] if found else ""
