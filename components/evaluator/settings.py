"""The section `evaluate` as ChampionExam and the Evaluator take it. Imports no TensorFlow."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

from evergreen.components.errors import ConfigError
from evergreen.components.evaluator import metrics

# The columns of predictions.parquet that are not the data's own.
RESERVED_COLUMNS = ("split", "row", "label", "prediction", "champion_prediction")


@dataclasses.dataclass(frozen=True)
class Bootstrap:
    """How certain the comparison with the champion must be.

    Attributes:
      samples: how many resamples.
      confidence: of each bound of the difference, one-sided.
      block: columns whose equal values are drawn together; none draws rows. See `bootstrap`.
    """

    samples: int = 1000
    confidence: float = 0.95
    block: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class EvaluateSettings:
    """Gate 2's settings, with the defaults of the YAML.

    Attributes:
      label: the raw feature that is predicted, a number.
      metrics: what is measured: those of `evaluate.metrics`, then those that only a bound names.
      slices: each a tuple of columns; every combination of their values is a slice.
      min_slice_rows: a slice with fewer rows is shown and vetoes nothing.
      min: by metric, the worst value that passes on the whole exam: the largest one where lower is better.
      max_regression: by metric, how much worse than the champion the challenger may be on the whole exam.
      slice_max_regression: the same for each slice of enough rows; empty (the default) shows slices without a veto.
      bootstrap: how certain the comparison must be.
      threshold: the probability from which on a row counts as positive.
    """

    label: str
    metrics: tuple[str, ...]
    slices: tuple[tuple[str, ...], ...] = ()
    min_slice_rows: int = 500
    min: Mapping[str, float] = dataclasses.field(default_factory=dict)
    max_regression: Mapping[str, float] = dataclasses.field(default_factory=dict)
    slice_max_regression: Mapping[str, float] = dataclasses.field(default_factory=dict)
    bootstrap: Bootstrap = Bootstrap()
    threshold: float = 0.5

    @classmethod
    def from_json(cls, text: str) -> EvaluateSettings:
        """Reads the section.

        Args:
          text: the section as a JSON object; unknown keys are pipeline/config's business and are ignored.

        Returns:
          The settings.

        Raises:
          ConfigError: no label, no metric, an unknown metric, or a slice column with a reserved name.
        """
        given = json.loads(text)
        if not given.get("label"):
            raise ConfigError(
                "`evaluate.label` is missing", "Expected the name of the label column.", "Add it to evergreen.yaml."
            )
        bounds = {key: dict(given.get(key) or {}) for key in ("min", "max_regression", "slice_max_regression")}
        wanted = tuple(
            dict.fromkeys([*(given.get("metrics") or ()), *(name for bound in bounds.values() for name in bound)])
        )
        if not wanted:
            raise ConfigError(
                "`evaluate.metrics` is empty",
                f"Expected some of: {', '.join(metrics.names())}.",
                "Name what is to be measured in evergreen.yaml.",
            )
        for name in wanted:
            metrics.get(name)
        made = cls(
            label=given["label"],
            metrics=wanted,
            slices=tuple(tuple(one) for one in given.get("slices") or ()),
            min_slice_rows=int(given.get("min_slice_rows", cls.min_slice_rows)),
            min=bounds["min"],
            max_regression=bounds["max_regression"],
            slice_max_regression=bounds["slice_max_regression"],
            bootstrap=_bootstrap(given.get("bootstrap") or {}),
            threshold=float(given.get("threshold", cls.threshold)),
        )
        _check_columns(made.columns)
        return made

    @property
    def columns(self) -> tuple[str, ...]:
        """The raw features, besides the label, that the examination reads: those of slices and blocks, each once."""
        return tuple(dict.fromkeys([name for one in self.slices for name in one] + list(self.bootstrap.block)))


def _bootstrap(given: Mapping[str, Any]) -> Bootstrap:
    block = given.get("block") or ()
    return Bootstrap(
        samples=int(given.get("samples", Bootstrap.samples)),
        confidence=float(given.get("confidence", Bootstrap.confidence)),
        block=(block,) if isinstance(block, str) else tuple(block),
    )


def _check_columns(columns: Iterable[str]) -> None:
    for name in columns:
        if name in RESERVED_COLUMNS:
            raise ConfigError(
                f"`evaluate` cannot slice by a column named `{name}`",
                f"predictions.parquet has columns of its own: {', '.join(RESERVED_COLUMNS)}.",
                "Rename the column in the data, or drop it from `evaluate.slices` and `evaluate.bootstrap.block`.",
            )
