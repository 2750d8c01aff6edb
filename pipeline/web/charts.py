"""Pictures as numbers: what the plots in the page are drawn from. Pure.

A `plot` is drawn in the browser by uPlot; bars, shares and intervals are drawn as SVG by the templates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from evergreen.pipeline.console import number

Values = dict[str, Any]
# Parts of a TFLite file, in the order in which a bar stacks them.
_PARTS = ("weights", "tables", "graph")


def plot(
    title: str,
    x: Sequence[float],
    series: Mapping[str, Sequence[float | None]],
    x_label: str = "",
    names: Sequence[str] | None = None,
) -> Values | None:
    """Describes a line plot.

    Args:
      title: what it shows.
      x: positions, ascending.
      series: values by name, as long as `x`; None where there is none.
      x_label: what `x` is.
      names: what stands at each position instead of its number.

    Returns:
      The plot with a `summary` for who cannot see it; None where there is not one point.
    """
    finite = {name: [_finite(v) for v in values] for name, values in series.items()}
    shown = {name: values for name, values in finite.items() if any(v is not None for v in values)}
    # A line keeps its colour where another one is not there.
    colors = {name: index for index, name in enumerate(finite)}
    if not shown:
        return None
    return {
        "title": title,
        "x": list(x),
        "xLabel": x_label,
        "names": list(names) if names is not None else None,
        "series": [{"label": name, "values": values, "color": colors[name]} for name, values in shown.items()],
        "summary": f"{title}. " + " ".join(_summary(name, values) for name, values in shown.items()),
    }


def _summary(name: str, values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return (
        f"{name}: from {number(known[0])} to {number(known[-1])}, "
        f"lowest {number(min(known))}, highest {number(max(known))}."
    )


def curves(points: Sequence[Mapping[str, Any]]) -> list[Values]:
    """Makes a plot for each metric of a training, on the training and the validation rows.

    Args:
      points: the report's `curve`: `step`, `loss`, metrics, and the same with `val_` before.
    """
    names = [name for point in points for name in point if name != "step"]
    metrics = list(dict.fromkeys(name.removeprefix("val_") for name in names))
    steps = [point.get("step", index) for index, point in enumerate(points)]
    plots = [
        plot(
            metric,
            steps,
            {
                "training": [point.get(metric) for point in points],
                "validation": [point.get(f"val_{metric}") for point in points],
            },
            "step",
        )
        for metric in metrics
    ]
    return [one for one in plots if one]


def shares(values: Mapping[str, float]) -> list[Values]:
    """Divides a whole into its parts: `name`, `value`, `start` and `share` (both of 100) each."""
    total = sum(values.values())
    parts, start = [], 0.0
    for name, value in values.items():
        share = 100 * value / total if total else 0.0
        parts.append({"name": name, "value": value, "start": start, "share": share})
        start += share
    return parts


def bars(values: Mapping[str, float]) -> list[Values]:
    """Compares values: `name`, `value` and `share` of the largest (of 100) each."""
    largest = max(values.values(), default=0) or 1
    return [{"name": name, "value": value, "share": 100 * value / largest} for name, value in values.items()]


def sizes(rows: Sequence[Mapping[str, Any]]) -> list[Values]:
    """Stacks each variant's bytes by part, or draws one bar where the parts are not known.

    Returns:
      `name`, `value` (bytes) and `parts` (`name`, `value`, `start`, `share`, of 100 for the largest variant) each.
    """
    made = [row for row in rows if row.get("bytes")]
    largest = max((row["bytes"] for row in made), default=1)
    found = []
    for row in made:
        parts = {part: row["parts"][part] for part in _PARTS if row["parts"].get(part)} if row.get("parts") else {}
        stacked = shares(parts or {"file": row["bytes"]})
        scale = row["bytes"] / largest
        for part in stacked:
            part["start"], part["share"] = part["start"] * scale, part["share"] * scale
        found.append({"name": row["variant"], "value": row["bytes"], "parts": stacked})
    return found


def latencies(rows: Sequence[Mapping[str, Any]]) -> list[Values]:
    """Compares the variants' median time for one row on one thread, milliseconds; empty where nothing was timed."""
    timed = {
        row["variant"]: row["latency_ms"]["1x1"]["p50"] for row in rows if (row.get("latency_ms") or {}).get("1x1")
    }
    return bars(timed)


def intervals(gains: Sequence[Mapping[str, float | None]]) -> list[Values | None]:
    """Places gains with their bounds on one axis with 0 in the middle.

    Args:
      gains: `value`, `lower` and `upper` each, None where undefined.

    Returns:
      The same as positions from 0 to 100, None where there is no value.
    """
    known = [abs(v) for gain in gains for v in gain.values() if v is not None and math.isfinite(v)]
    # An outlier of a few rows must not press all the others into a point.
    bounded = [
        abs(v)
        for gain in gains
        if gain.get("lower") is not None
        for v in gain.values()
        if v is not None and math.isfinite(v)
    ]
    reach = max(bounded or known, default=0) or 1

    def place(value: float | None) -> float | None:
        return None if value is None else 50 + 48 * max(-1.0, min(1.0, value / reach))

    return [
        None if gain.get("value") is None else {key: place(gain.get(key)) for key in ("value", "lower", "upper")}
        for gain in gains
    ]


def _finite(value: Any) -> float | None:
    return value if isinstance(value, (int, float)) and math.isfinite(value) else None
