"""What a variant's answers are worth beside the SavedModel's: pure functions of arrays, no TensorFlow."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from evergreen.components.evaluator import metrics as metric_functions


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One variant on the exam rows.

    Attributes:
      metrics: the value of each metric.
      loss: by metric, how much worse than the SavedModel on the same rows; negative where the variant is better.
      largest_difference: of the predictions from the SavedModel's, in the output's own unit.
      mean_difference: the same, the mean of the absolute differences.
      flips: rows whose decision at the threshold changed; None where the labels are not 0 and 1.
      not_finite: rows whose prediction is NaN or infinite; the numbers above are NaN when there are any.
    """

    metrics: dict[str, float]
    loss: dict[str, float]
    largest_difference: float
    mean_difference: float
    flips: int | None
    not_finite: int


def compare(
    predictions: np.ndarray,
    reference: np.ndarray,
    labels: np.ndarray,
    reference_metrics: Mapping[str, float],
    threshold: float,
) -> Measurement:
    """Measures a variant's predictions against the SavedModel's.

    Args:
      predictions: the variant's, float, [rows].
      reference: the SavedModel's on the same rows, float, [rows].
      labels: float, [rows].
      reference_metrics: the metrics to compute, with the SavedModel's value of each.
      threshold: the probability from which on a prediction counts as a yes.

    Returns:
      The measurement.
    """
    names = list(reference_metrics)
    not_finite = int(np.count_nonzero(~np.isfinite(predictions)))
    if not_finite:
        unknown = dict.fromkeys(names, math.nan)
        return Measurement(unknown, unknown, math.nan, math.nan, None, not_finite)
    values = metric_functions.compute(names, labels, predictions, threshold)
    difference = np.abs(predictions.astype(np.float64) - reference)
    flips = None
    if np.isin(labels, (0, 1)).all():
        flips = int(np.count_nonzero((predictions >= threshold) != (reference >= threshold)))
    return Measurement(
        metrics=values,
        loss={name: -float(metric_functions.gain(name, values[name], reference_metrics[name])) for name in names},
        largest_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        flips=flips,
        not_finite=0,
    )
