"""What the schedule is worth: the live model's AUC on each next month against that of the first model, left alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import flights_quality
import numpy as np
from flights_quality import data

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
FULL_WINDOW = 3
# Colours that remain distinct to colour-blind readers: Okabe and Ito, "Color Universal Design", 2008.
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#777777"
_FATES = {"late": "late", "corrupt": "damaged", "again": "came twice"}


@dataclass(frozen=True)
class Worth:
    """AUC by month, on all rows of a month that no model had seen.

    Attributes:
      live: of the version that was live when the month began, by month.
      versions: that version, by month.
      first: of the first version.
      window: of the first version that rests on a whole window; empty where that is the first one or there is none.
    """

    live: Mapping[int, float]
    versions: Mapping[int, int]
    first: Mapping[int, float]
    window: Mapping[int, float]

    def gain(self, other: Mapping[int, float]) -> float:
        """Returns by how much the live model was better than another, averaged over the months in which it was newer.

        Args:
          other: the other's AUC by month, `first` or `window`.
        """
        months = [month for month in other if self.live[month] != other[month]]
        return float(np.mean([self.live[month] - other[month] for month in months])) if months else 0.0


def measure(base_path: Path, live: Mapping[int, int], months: int) -> Worth:
    """Loads every version that was live and scores it.

    Args:
      base_path: the base path.
      live: by month, the version that was live when it had ended and had been dealt with.
      months: how many months were replayed.

    Returns:
      The AUC of each month from the second on.
    """
    import tensorflow as tf

    schema = flights_quality.load_schema()
    models = {version: tf.saved_model.load(str(base_path / str(version))) for version in sorted(set(live.values()))}
    first = live[min(live)]
    whole = live.get(FULL_WINDOW, first)
    scores: dict[tuple[int, int], float] = {}
    for month in range(2, months + 1):
        table = data.load_month(month)
        rows, labels = flights_quality.examples(table, schema), table[data.LABEL].to_numpy()
        for version in {live[month - 1], first, whole}:
            answer = models[version].signatures["serving_default"]
            size = flights_quality.BATCH
            batches = [answer(examples=tf.constant(rows[at : at + size])) for at in range(0, len(rows), size)]
            found = np.concatenate([next(iter(batch.values())).numpy() for batch in batches])
            scores[version, month] = flights_quality.area(labels, found)
    later = range(2, months + 1)
    return Worth(
        live={month: scores[live[month - 1], month] for month in later},
        versions={month: live[month - 1] for month in later},
        first={month: scores[first, month] for month in later},
        window={} if whole == first else {month: scores[whole, month] for month in later if month > FULL_WINDOW},
    )


def draw(worth: Worth, fates: Mapping[int, str], title: str, path: Path) -> None:
    """Draws the picture.

    Args:
      worth: what was measured.
      fates: by month, how it arrived where that was not as usual.
      title: the title.
      path: the file, PNG or SVG.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 4.6), layout="constrained")
    lines: Sequence[tuple[Mapping[int, float], str, str, str, str]] = (
        (worth.live, "retrained by the schedule", _BLUE, "-", "o"),
        (worth.window, f"{MONTHS[0]} to {MONTHS[FULL_WINDOW - 1]} left alone", _GREY, "--", "s"),
        (worth.first, f"the first model, {MONTHS[0]}, left alone", _ORANGE, "--", "D"),
    )
    for scores, label, colour, style, marker in lines:
        if scores:
            axes.plot(list(scores), list(scores.values()), color=colour, linestyle=style, marker=marker, label=label)
    months = list(worth.live)
    axes.fill_between(
        months, [worth.live[m] for m in months], [worth.first[m] for m in months], color=_BLUE, alpha=0.08, linewidth=0
    )
    labels = [f"{MONTHS[month - 1]}\n{_FATES.get(fates.get(month, ''), '')}" for month in months]
    axes.set_xticks(months, labels, fontsize=9)
    axes.set_ylabel("AUC on the month, before training on it")
    axes.set_title(title, fontsize=11)
    axes.grid(True, axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
