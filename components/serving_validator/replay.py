"""Asks a server about rows, every signature by gRPC and by REST, and compares the answers with what they should be."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from evergreen.components import progress
from evergreen.components.model_layout import Signature as Names
from evergreen.components.model_server import compare, rows
from evergreen.components.model_server.client import Client
from evergreen.components.model_server.rest import RestClient
from evergreen.components.model_server.signatures import Signature
from evergreen.components.serving_validator import report

MODEL, LITE_MODEL, VERSION = "candidate", "candidate_lite", 1
GRPC, REST = "gRPC", "REST"
TRAINERS = "the Trainer's model"

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Lite:
    """The chosen TFLite variant.

    Attributes:
      folder: holds its `model.tflite`.
      variant: its name.
      raw: whether it takes raw features; else what the SavedModel transforms them into.
      difference: how far its answers to the exam were from the SavedModel's; None where nobody measured.
    """

    folder: str
    variant: str
    raw: bool
    difference: float | None


class Replay:
    """The rows, and what became of asking about them.

    Args:
      exam: the rows with the Trainer's model's answers.
      tolerance: of every comparison.

    Attributes:
      reasons: why the gate closes; none so far where it is open.
      notes: what a person should know besides.
      models: what the report keeps of each model.
    """

    def __init__(self, exam: rows.Rows, tolerance: float):
        self.exam = exam
        self.tolerance = tolerance
        self.reasons: list[str] = []
        self.notes: list[str] = []
        self.models: list[dict[str, Any]] = []
        self._features = set().union(*(rows.feature_names(row) for row in exam.serialized))

    def saved_model(self, by_grpc: Client, by_rest: RestClient) -> None:
        """Asks every signature of the SavedModel that rows can be made for.

        Args:
          by_grpc: a client.
          by_rest: a client of the same server.

        Raises:
          ServerError: the server refused a request or did not answer.
        """
        found = self._begin(report.SAVED_MODEL)
        signatures = by_grpc.metadata(MODEL, VERSION)
        # The default one first: it is the one that people time.
        for name in sorted(signatures, key=lambda one: (one != Names.SERVING_DEFAULT, one)):
            try:
                inputs, whole = self._inputs(signatures[name])
            except ValueError as error:
                self.notes.append(f"the signature `{name}` was not asked: {error}")
                continue
            expected = None
            if name in (Names.SERVING_DEFAULT, Names.PREDICT_RAW):
                expected = self._expected(signatures[name])
            asked = _Asked(MODEL, name, inputs, whole, 0.0, singly=name == Names.SERVING_DEFAULT)
            found += self._ask(asked, by_grpc, by_rest, expected)

    def tflite(self, by_grpc: Client, by_rest: RestClient, lite: Lite) -> None:
        """Asks a TFLite variant.

        Args:
          by_grpc: a client.
          by_rest: a client of the same server.
          lite: the variant.

        Raises:
          ServerError: the server refused a request or did not answer.
        """
        found = self._begin(f"TFLite {lite.variant}")
        signature = by_grpc.metadata(LITE_MODEL, VERSION)[Names.SERVING_DEFAULT]
        if lite.raw:
            given, whole = rows.dense(self.exam.serialized, signature.inputs)
        else:
            examples = {Names.EXAMPLES: rows.strings(self.exam.serialized)}
            given = by_grpc.ask(MODEL, examples, VERSION, None, Names.TRANSFORM_FEATURES).outputs
            whole = np.ones(len(self.exam.numbers), bool)
        if any(
            tensor.dtype.kind in "iu" and given[name].dtype.kind == "f" for name, tensor in signature.inputs.items()
        ):
            self.notes.append(f"TFLite {lite.variant} was loaded and not asked: it takes integers by scale")
            return
        inputs = {name: given[name].astype(tensor.dtype) for name, tensor in signature.inputs.items()}
        scaled = any(tensor.dtype.kind in "iu" for tensor in signature.outputs.values())
        expected = None if lite.difference is None or scaled else self._expected(signature)
        # The Quantizer measured these very rows.
        asked = _Asked(LITE_MODEL, Names.SERVING_DEFAULT, inputs, whole, lite.difference or 0.0, singly=True)
        found += self._ask(asked, by_grpc, by_rest, expected)

    def _begin(self, model: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        self.models.append({"model": model, "signatures": found})
        return found

    def _inputs(self, signature: Signature) -> tuple[Arrays, np.ndarray]:
        """Makes a signature's inputs of the rows, and says which rows are whole in them.

        Raises:
          ValueError: they cannot be made.
        """
        if self._features & set(signature.inputs):
            return rows.dense(self.exam.serialized, signature.inputs)
        if len(signature.inputs) == 1:
            ((name, tensor),) = signature.inputs.items()
            if tensor.dtype.kind == "O" and (tensor.shape is None or len(tensor.shape) == 1):
                return {name: rows.strings(self.exam.serialized)}, np.ones(len(self.exam.numbers), bool)
        raise ValueError("its inputs are not features of the rows")

    def _expected(self, signature: Signature) -> Arrays | None:
        """Returns the recorded answers under the output that the Evaluator read."""
        names = list(signature.outputs)
        if Names.PREDICTIONS in names:
            return {Names.PREDICTIONS: self.exam.expected}
        return {names[0]: self.exam.expected} if len(names) == 1 else None

    def _ask(
        self, asked: _Asked, by_grpc: Client, by_rest: RestClient, expected: Arrays | None
    ) -> list[dict[str, Any]]:
        """Asks by both APIs; where nothing is expected, REST's answers are held against gRPC's."""
        found, compared = [], TRAINERS
        clients: tuple[tuple[str, Client | RestClient], ...] = ((GRPC, by_grpc), (REST, by_rest))
        for api, client in clients:
            progress.report(None, f"{api}: {asked.signature} of {asked.model}")
            what = f"{api}, {'TFLite, ' if asked.model == LITE_MODEL else ''}`{asked.signature}`"
            outputs = client.ask(asked.model, asked.inputs, VERSION, None, asked.signature).outputs
            if expected is None:
                self._count(what, outputs)
                expected, compared, largest = outputs, GRPC, None
            else:
                self._compare(what, expected, outputs, asked)
                largest = compare.largest(expected, outputs)
            seconds = self._singly(what, client, asked, outputs) if asked.singly else []
            found.append(report.asked(asked.signature, api, "" if largest is None else compared, largest, seconds))
        return found

    def _compare(self, what: str, expected: Arrays, outputs: Arrays, asked: _Asked) -> None:
        """Compares the rows that are whole."""
        numbers = [number for number, whole in zip(self.exam.numbers, asked.whole, strict=True) if whole]
        wanted = {name: values[asked.whole] for name, values in expected.items()}
        given = {
            name: values[asked.whole] if len(values) == len(asked.whole) else values for name, values in outputs.items()
        }
        self.reasons += [
            f"{what}: {sentence}"
            for sentence in compare.differences(wanted, given, self.tolerance, numbers, asked.known)
        ]

    def _count(self, what: str, outputs: Arrays) -> None:
        """Refuses answers that are not one for each row."""
        count = len(self.exam.numbers)
        for name, values in outputs.items():
            if values.ndim == 0 or len(values) != count:
                self.reasons.append(f"{what}: `{name}` has the shape {list(values.shape)}, expected {count} rows")

    def _singly(self, what: str, client: Client | RestClient, asked: _Asked, outputs: Arrays) -> list[float]:
        """Asks about each row alone, compares that with all in one request, and returns the seconds of each."""
        answers, seconds = [], []
        for row in range(len(self.exam.numbers)):
            one = {name: values[row : row + 1] for name, values in asked.inputs.items()}
            began = time.perf_counter()
            answers.append(client.ask(asked.model, one, VERSION, None, asked.signature).outputs)
            seconds.append(time.perf_counter() - began)
        joined = {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}
        wrong = compare.differences(outputs, joined, self.tolerance, self.exam.numbers)
        self.reasons += [f"{what}, a row alone beside many in one request: {sentence}" for sentence in wrong]
        return seconds


@dataclasses.dataclass(frozen=True)
class _Asked:
    """One question.

    Attributes:
      model: its name on the server.
      signature: of the model.
      inputs: by name, [rows, ...].
      whole: which rows can be compared with what is expected, bool, [rows].
      known: how far answers may be from what is expected besides, measured before.
      singly: whether to ask about each row alone, too, and to time that.
    """

    model: str
    signature: str
    inputs: Mapping[str, np.ndarray]
    whole: np.ndarray
    known: float
    singly: bool
