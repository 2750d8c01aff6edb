"""Early stopping: the best weights so far, and when to measure no further."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from evergreen.components.errors import ConfigError
from evergreen.components.trainer.settings import EarlyStopping

# As tf_keras's EarlyStopping tells metrics that grow from those that fall.
_GROWING = ("acc", "accuracy", "auc", "precision", "recall", "r2_score", "prc")


class Watch:
    """Keeps the best weights measured, and says when to end.

    Args:
      settings: what is watched, and for how long.
      model: whose weights are kept.
    """

    def __init__(self, settings: EarlyStopping, model: Any):
        self.settings = settings
        self.model = model
        self.sign = 1.0 if settings.metric.endswith(_GROWING) else -1.0
        self.best = -math.inf
        self.best_step = 0
        self.weights: list[np.ndarray] | None = None
        self.without_gain = 0

    def hears(self, point: dict[str, float]) -> bool:
        """Takes a measurement; tells whether patience has run out.

        Args:
          point: metrics by name, and the `step` at which they were measured.

        Raises:
          ConfigError: the metric is not among them.
        """
        metric = self.settings.metric
        if metric not in point:
            raise ConfigError(
                f"trainer.early_stopping.metric {metric!r} is not measured",
                f"measured: {', '.join(name for name in point if name.startswith('val_')) or 'nothing on validation'}",
                "Name one of these; without validation rows (data.validation: 0) there are none.",
            )
        value = self.sign * point[metric]
        if value > self.best:
            self.best, self.best_step, self.without_gain = value, int(point["step"]), 0
            self.weights = self.model.get_weights()
        else:
            self.without_gain += 1
        return self.without_gain >= self.settings.patience

    def dump(self) -> tuple[dict[str, Any], list[np.ndarray]]:
        """Returns what a checkpoint holds of it: numbers, and the best weights."""
        # Infinity is no JSON, and nothing was measured then.
        best = None if math.isinf(self.best) else self.best
        return {"best": best, "step": self.best_step, "without": self.without_gain}, list(self.weights or [])

    def load(self, values: dict[str, Any], weights: list[np.ndarray]) -> None:
        """Takes what `dump` gave."""
        self.best = -math.inf if values["best"] is None else values["best"]
        self.best_step, self.without_gain = values["step"], values["without"]
        self.weights = weights or None

    def restore(self) -> int:
        """Gives the model its best weights; returns their step."""
        if self.weights is not None:
            self.model.set_weights(self.weights)
        return self.best_step
