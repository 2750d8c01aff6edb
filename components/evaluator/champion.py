"""What ChampionExam found out, as the Evaluator reads it back: the champion's answers, or why there are none."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from evergreen.components.errors import EvergreenError
from evergreen.components.evaluator import tables

EXAM = "exam"


@dataclasses.dataclass(frozen=True)
class Champion:
    """The model in production, on the newest span.

    Attributes:
      evaluation_uri: where its answers are; empty without a champion.
      model_id: its Model artifact.
      model_uri: where that is.
      on_span: its metrics on the whole span; empty without a champion.
      error: why it could not answer; empty when it could.
    """

    evaluation_uri: str = ""
    model_id: int = 0
    model_uri: str = ""
    on_span: dict[str, float] = dataclasses.field(default_factory=dict)
    error: str = ""

    @classmethod
    def read(cls, evaluations: list[Any]) -> Champion:
        """Reads ChampionExam's output.

        Args:
          evaluations: its ModelEvaluation artifact in a list; or an empty list, which is no champion.

        Returns:
          The champion.
        """
        if not evaluations or not evaluations[0].get_int_custom_property("champion"):
            return cls()
        found = evaluations[0]
        return cls(
            found.uri,
            found.get_int_custom_property("model_id"),
            found.get_string_custom_property("model_uri"),
            json.loads(found.get_string_custom_property("metrics")),
            found.get_string_custom_property("error"),
        )

    @property
    def exists(self) -> bool:
        """Whether there is a champion at all."""
        return bool(self.evaluation_uri)

    @property
    def usable(self) -> bool:
        """Whether it can be compared with."""
        return self.exists and not self.error

    @property
    def notes(self) -> list[str]:
        """What a reader of the verdict should know about it."""
        if not self.exists:
            return ["There is no champion to compare with."]
        if self.error:
            return [f"The champion (model {self.model_id}) cannot be compared with: {self.error}"]
        return []

    def facts(self) -> dict[str, Any] | None:
        """Returns what comparison.json says about it; None without a champion."""
        if not self.exists:
            return None
        return {
            "model_id": self.model_id,
            "model_uri": self.model_uri,
            "on_span": self.on_span,
            "error": self.error,
        }

    def exam_predictions(self, table: pa.Table) -> pa.ChunkedArray:
        """Reads its answers to the exam rows.

        Args:
          table: the challenger's answers to them, with `row` and `label`.

        Returns:
          The champion's predictions in the order of `table`, float64, [rows].

        Raises:
          EvergreenError: it answered other rows.
        """
        path = os.path.join(self.evaluation_uri, tables.PREDICTIONS_FILE)
        answered = tables.read(path, ["split", "row", "label", "prediction"])
        answered = answered.filter(pc.equal(answered["split"], EXAM))
        if not answered["row"].equals(table["row"]) or not answered["label"].equals(table["label"]):
            raise EvergreenError(
                "The champion answered other exam rows than the challenger",
                f"{self.evaluation_uri} holds {answered.num_rows} exam rows; the examples have {table.num_rows}, or "
                "their labels differ.",
                "Give ChampionExam and the Evaluator the same Examples artifact.",
            )
        return answered["prediction"]
