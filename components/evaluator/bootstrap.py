"""The paired bootstrap: how sure is it that one model is better than another on the rows at hand. Imports numpy only.

Both models answer the same rows, so both are measured on the same resample each time and only their difference is
looked
at: what makes a day hard for both cancels out.

Resample blocks, not rows, where rows come in groups that share their fate. Flights of one day share their weather: two
thousand flights of a day are far from two thousand independent witnesses, and bounds from resampled rows are too
narrow. `evaluate.bootstrap.block` names the column (or columns) whose equal values belong together, such as `date`.
With only a handful of blocks (a week of days) the bounds are rough; finer blocks, such as `[date, origin]`, are then
the better compromise. The default is rows, because no column's name can be guessed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from evergreen.components.evaluator import metrics

SEED = 20130101
FEW_BLOCKS = 10
_CELLS = 1 << 19  # Weights in memory at once: 4 MiB, which a core's cache still serves well.


@dataclasses.dataclass(frozen=True)
class Bounds:
    """What the bootstrap says about the challenger's gain over the champion; positive is better, whatever the metric.

    Attributes:
      lower: the gain is above this, with the confidence asked for; NaN where too few resamples define the metric.
      upper: the gain is below this, with the same confidence (each bound on its own, one-sided).
    """

    lower: float
    upper: float


def paired(
    metric_names: Sequence[str],
    labels: np.ndarray,
    challenger: np.ndarray,
    champion: np.ndarray,
    *,
    samples: int,
    confidence: float,
    blocks: np.ndarray | None = None,
    threshold: float = 0.5,
) -> dict[str, Bounds]:
    """Bounds the gain of the challenger over the champion, metric by metric, from the same resamples.

    Exact, in chunks: time grows with rows × samples, or with rows + blocks × samples where these are drawn; memory does
    not. The seed is fixed: the same rows give the same bounds.

    Args:
      metric_names: the metrics.
      labels: float, [rows].
      challenger: its predictions, float, [rows].
      champion: its predictions of the same rows, float, [rows].
      samples: how many resamples.
      confidence: of each bound, such as 0.95: a difference that is really below `lower` shows up so in one of twenty.
      blocks: integers, [rows]: rows with the same number are drawn together; None, or a single block, draws each row
        on its own.
      threshold: the probability from which on a row counts as positive.

    Returns:
      By metric.
    """
    labels = np.asarray(labels, np.float64)
    units = block_count(blocks, len(labels))
    member = None if blocks is None or units == len(labels) else np.unique(blocks, return_inverse=True)[1].reshape(-1)
    added_up = member is not None and units <= metrics.MOST_BLOCKS
    pairs = {
        name: tuple(
            metrics.prepare(
                name, labels, np.asarray(predictions, np.float64), threshold, blocks=member if added_up else None
            )
            for predictions in (challenger, champion)
        )
        for name in metric_names
    }
    gains: dict[str, list[np.ndarray]] = {name: [] for name in metric_names}
    for weights in _resamples(units, samples, None if added_up else member):
        for name, (of_challenger, of_champion) in pairs.items():
            gains[name].append(np.asarray(metrics.gain(name, of_challenger(weights), of_champion(weights))))
    return {name: _bounds(np.concatenate(parts), confidence) for name, parts in gains.items()}


def block_count(blocks: np.ndarray | None, rows: int) -> int:
    """How many units are drawn: blocks, or rows where there is no more than one block."""
    count = 1 if blocks is None else len(np.unique(blocks))
    return count if count > 1 else rows


def _resamples(units: int, samples: int, member: np.ndarray | None) -> Iterator[np.ndarray]:
    """Yields how often each unit was drawn, float64 [units, some of the samples], until all samples are drawn.

    Args:
      units: what is drawn.
      samples: how often as many are drawn.
      member: each row's unit, [rows]: the rows' weights are given instead of the units'.
    """
    generator = np.random.default_rng(SEED)
    rows = units if member is None else len(member)
    chunk = max(1, min(samples, _CELLS // max(rows, 1)))
    for start in range(0, samples, chunk):
        size = min(chunk, samples - start)
        drawn = np.empty((units, size))
        for column in range(size):
            drawn[:, column] = np.bincount(generator.integers(0, units, units), minlength=units)
        yield drawn if member is None else drawn[member]


def _bounds(gains: np.ndarray, confidence: float) -> Bounds:
    defined = gains[np.isfinite(gains)]
    if len(defined) < len(gains) / 2:
        return Bounds(np.nan, np.nan)
    lower, upper = np.quantile(defined, [1 - confidence, confidence])
    return Bounds(float(lower), float(upper))
