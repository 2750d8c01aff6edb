"""The metrics that `evaluate.metrics` may name: what each computes, and which direction is better. Imports numpy only.

A metric is written once, over weighted rows: with all weights 1 it is the plain value, with the counts of a resample
it is the value on that resample. So the number that TFMA reports, the gate's number and the bootstrap's cannot drift
apart. Where rows are drawn in blocks, what a block brings to the metric is added up once, and a resample costs as much
as it has blocks, however many rows these hold.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np

from evergreen.components.errors import ConfigError

LOG_LOSS_CLIP = 1e-7
MOST_BLOCKS = 1024  # The AUC needs the pairs of any two blocks: a number for each, and their products for each row.
_CELLS = 1 << 19  # Numbers in memory at once: 4 MiB, which a core's cache still serves well.

# Takes weights, float64 [rows or blocks, resamples]; gives the metric on each resample, float64 [resamples].
OfWeights = Callable[[np.ndarray], np.ndarray]
Terms = Callable[[np.ndarray, np.ndarray, float], "list[np.ndarray]"]
Finish = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
      name: as in `evaluate.metrics`.
      best: "high", "low", or "one" where 1 is perfect and both sides of it are worse.
      binary: whether labels must be 0 or 1.
      prepare: takes labels [rows], predictions [rows], the threshold and each row's block [rows] (None: every row for
        itself), and gives the function of the weights.
    """

    name: str
    best: str
    binary: bool
    prepare: Callable[[np.ndarray, np.ndarray, float, np.ndarray | None], OfWeights]


def names() -> list[str]:
    """Returns every valid name, in alphabetical order."""
    return sorted(_METRICS)


def get(name: str) -> Metric:
    """Returns a metric by its name.

    Raises:
      ConfigError: there is no such metric; the error lists those that there are.
    """
    if name not in _METRICS:
        raise ConfigError(
            f"There is no metric `{name}`",
            f"`evaluate` names it; expected one of: {', '.join(names())}.",
            "Correct the name in evergreen.yaml.",
        )
    return _METRICS[name]


def higher_is_better(name: str) -> bool:
    """Tells whether a larger value of the metric is a better one; for calibration, where 1 is best, see `gain`."""
    return get(name).best == "high"


def gain(name: str, value: np.ndarray | float, reference: np.ndarray | float) -> np.ndarray | float:
    """How much better `value` is than `reference`, in the metric's own unit: positive is better, whatever the
    direction.

    Args:
      name: the metric.
      value: float or array.
      reference: float or array of the same shape.

    Returns:
      Float or array of that shape.
    """
    best = get(name).best
    if best == "high":
        return value - reference
    if best == "low":
        return reference - value
    return np.abs(reference - 1) - np.abs(value - 1)


def check_labels(metric_names: Iterable[str], labels: np.ndarray) -> None:
    """Refuses metrics of a yes-or-no label on a label that is something else.

    Args:
      metric_names: the metrics asked for.
      labels: float, [rows].

    Raises:
      ConfigError: a metric needs labels of 0 and 1, and there are others.
    """
    wanting = [name for name in metric_names if get(name).binary]
    if not wanting:
        return
    strange = labels[(labels != 0) & (labels != 1)]
    if len(strange):
        raise ConfigError(
            f"`{wanting[0]}` does not suit the label",
            f"It needs labels of 0 and 1; received {strange[0]:g} (and {len(strange) - 1} more that are neither).",
            "Choose metrics of a value, such as mean_absolute_error, or another `evaluate.label`.",
        )


def compute(
    metric_names: Iterable[str], labels: np.ndarray, predictions: np.ndarray, threshold: float = 0.5
) -> dict[str, float]:
    """Computes metrics on all rows.

    Args:
      metric_names: which.
      labels: float, [rows].
      predictions: float, [rows]; probabilities, or values where the label is one.
      threshold: the probability from which on a row counts as positive.

    Returns:
      By name; NaN where the metric is undefined (no rows, one class only, a prediction that is not finite).
    """
    labels, predictions = np.asarray(labels, np.float64), np.asarray(predictions, np.float64)
    ones = np.ones((len(labels), 1))
    return {name: float(prepare(name, labels, predictions, threshold)(ones)[0]) for name in metric_names}


def prepare(
    name: str,
    labels: np.ndarray,
    predictions: np.ndarray,
    threshold: float = 0.5,
    blocks: np.ndarray | None = None,
) -> OfWeights:
    """Does once what does not depend on the weights (sorting, each row's loss).

    Args:
      name: the metric.
      labels: float64, [rows].
      predictions: float64, [rows].
      threshold: the probability from which on a row counts as positive.
      blocks: each row's block, integers from 0, at most `MOST_BLOCKS`, [rows]; None: every row for itself.

    Returns:
      A function of weights, float64 [rows, resamples] or [blocks, resamples], that gives the metric on each resample,
      float64 [resamples].
    """
    metric = get(name)
    if not len(labels) or not np.isfinite(predictions).all():
        return lambda weights: np.full(weights.shape[1], np.nan)
    return metric.prepare(labels, predictions, threshold, blocks)


def _auc(labels: np.ndarray, predictions: np.ndarray, threshold: float, blocks: np.ndarray | None) -> OfWeights:
    """The share of pairs of a positive and a negative row that are in the right order; ties count half (exact)."""
    if blocks is not None:
        return _auc_of_blocks(labels > 0, predictions, blocks)
    positive = np.flatnonzero(labels > 0)
    negative = np.flatnonzero(labels <= 0)
    negative = negative[np.argsort(predictions[negative], kind="stable")]
    scores = predictions[negative]
    below = np.searchsorted(scores, predictions[positive], "left")
    up_to = np.searchsorted(scores, predictions[positive], "right")
    tied = bool((below != up_to).any())

    def of_weights(weights: np.ndarray) -> np.ndarray:
        # Row k holds the weight of the k lowest negatives, so that one look-up per positive counts all its pairs.
        lower = np.zeros((len(negative) + 1, weights.shape[1]))
        np.cumsum(weights[negative], axis=0, out=lower[1:])
        beaten = (lower[below] + lower[up_to]) / 2 if tied else lower[below]
        own = weights[positive]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.einsum("ij,ij->j", own, beaten) / (own.sum(axis=0) * lower[-1])

    return of_weights


def _auc_of_blocks(positive: np.ndarray, predictions: np.ndarray, blocks: np.ndarray) -> OfWeights:
    """The same from how many pairs any two blocks have, and how many of these are in the right order."""
    count = int(blocks.max()) + 1
    positives, negatives = (np.bincount(blocks[rows], minlength=count).astype(float) for rows in (positive, ~positive))
    order = np.argsort(predictions[positive], kind="stable")
    scores, own = predictions[positive][order], blocks[positive][order]
    others = blocks[~positive]
    # From which positive row on, in the order of their scores, a negative one is below it: half of it, then the whole.
    ends = [np.searchsorted(scores, predictions[~positive], side) for side in ("left", "right")]
    sorted_ends = [(end[by], others[by]) for end in ends for by in (np.argsort(end, kind="stable"),)]
    right = np.zeros((count, count))  # [block of the positive row, block of the negative one]
    below = np.zeros(count)
    step = max(1, _CELLS // count)
    for first in range(0, len(scores), step):
        last = min(first + step, len(scores))
        size = last - first
        added = np.zeros(size * count)
        for end, block in sorted_ends:
            low, high = np.searchsorted(end, [first, last], "left")
            added += 0.5 * np.bincount((end[low:high] - first) * count + block[low:high], minlength=size * count)
        beaten = below + np.cumsum(added.reshape(size, count), axis=0)
        below = beaten[-1]
        is_of = np.zeros((size, count))
        is_of[np.arange(size), own[first:last]] = 1
        right += is_of.T @ beaten

    def of_weights(weights: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            pairs = (positives @ weights) * (negatives @ weights)
            return np.einsum("ij,ij->j", weights, right @ weights) / pairs

    return of_weights


def _of_sums(terms: Terms, finish: Finish) -> Callable[[np.ndarray, np.ndarray, float, np.ndarray | None], OfWeights]:
    """A metric that is a function of weighted sums over the rows.

    Args:
      terms: gives the arrays [rows] to sum.
      finish: takes the sums, [terms, resamples], and gives the metric, [resamples].
    """

    def prepared(labels: np.ndarray, predictions: np.ndarray, threshold: float, blocks: np.ndarray | None) -> OfWeights:
        stacked = np.stack([np.asarray(term, np.float64) for term in terms(labels, predictions, threshold)])
        if blocks is not None:
            stacked = np.stack([np.bincount(blocks, weights=term) for term in stacked])

        def of_weights(weights: np.ndarray) -> np.ndarray:
            with np.errstate(invalid="ignore", divide="ignore"):
                return finish(stacked @ weights)

        return of_weights

    return prepared


def _mean(loss: Callable[[np.ndarray, np.ndarray, float], np.ndarray]) -> Callable[..., OfWeights]:
    return _of_sums(lambda y, p, t: [loss(y, p, t), np.ones_like(y)], lambda sums: sums[0] / sums[1])


def _log_loss(labels: np.ndarray, predictions: np.ndarray, threshold: float) -> np.ndarray:
    clipped = np.clip(predictions, LOG_LOSS_CLIP, 1 - LOG_LOSS_CLIP)
    return -np.where(labels > 0, np.log(clipped), np.log1p(-clipped))


def _squared_error(labels: np.ndarray, predictions: np.ndarray, threshold: float) -> np.ndarray:
    return (labels - predictions) ** 2


def _r2_terms(labels: np.ndarray, predictions: np.ndarray, threshold: float) -> list[np.ndarray]:
    # Moved to zero mean first, or the difference of two large sums would lose the digits that matter.
    centred = labels - labels.mean()
    return [_squared_error(labels, predictions, threshold), centred, centred**2, np.ones_like(labels)]


def _r2(sums: np.ndarray) -> np.ndarray:
    error, total, squares, rows = sums
    return 1 - error / (squares - total**2 / rows)


_METRICS = {
    metric.name: metric
    for metric in (
        Metric("auc", "high", True, _auc),
        Metric("accuracy", "high", True, _mean(lambda y, p, t: (p >= t) == (y > 0))),
        Metric("precision", "high", True, _of_sums(lambda y, p, t: [(p >= t) * y, p >= t], lambda s: s[0] / s[1])),
        Metric("recall", "high", True, _of_sums(lambda y, p, t: [(p >= t) * y, y], lambda s: s[0] / s[1])),
        Metric("log_loss", "low", True, _mean(_log_loss)),
        Metric("brier", "low", True, _mean(_squared_error)),
        Metric("mean_squared_error", "low", False, _mean(_squared_error)),
        Metric(
            "root_mean_squared_error",
            "low",
            False,
            _of_sums(lambda y, p, t: [_squared_error(y, p, t), np.ones_like(y)], lambda s: np.sqrt(s[0] / s[1])),
        ),
        Metric("mean_absolute_error", "low", False, _mean(lambda y, p, t: np.abs(y - p))),
        Metric("r2", "high", False, _of_sums(_r2_terms, _r2)),
        Metric("calibration", "one", False, _of_sums(lambda y, p, t: [p, y], lambda s: s[0] / s[1])),
    )
}
