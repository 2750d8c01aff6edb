"""The pictures of a quantization report, as SVG: bytes by part, the worst weights, the worst activations, latencies."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

PARTS = {"weights": "#2f6f9f", "tables": "#e0a030", "graph": "#8a8a8a"}
WORST = 10
_BAR = "#2f6f9f"


def sizes(variants: Sequence[Mapping[str, Any]]) -> str:
    """Draws each variant's bytes by part, kilobytes.

    Args:
      variants: rows of the report.

    Returns:
      An SVG element; empty where no variant could be made.
    """
    rows = [row for row in variants if row.get("parts")]
    if not rows:
        return ""
    figure, axes = _figure(len(rows))
    left = [0.0] * len(rows)
    for part, color in PARTS.items():
        widths = [row["parts"][part] / 1000 for row in rows]
        axes.barh([row["variant"] for row in rows], widths, left=left, color=color, label=part)
        left = [begin + width for begin, width in zip(left, widths, strict=True)]
    axes.set_xlabel("kB")
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1), ncols=3, frameon=False, fontsize=8)
    return _svg(figure, axes)


def latencies(variants: Sequence[Mapping[str, Any]]) -> str:
    """Draws the median latency of one row and of a batch, on one thread and on two, as bars in milliseconds.

    Args:
      variants: rows of the report.

    Returns:
      An SVG element; empty where nothing was timed.
    """
    rows = [row for row in variants if row.get("latency_ms")]
    if not rows:
        return ""
    keys = list(dict.fromkeys(key for row in rows for key in row["latency_ms"]))
    figure, axes = _figure(len(rows) * len(keys) / 2)
    height = 0.8 / len(keys)
    for number, key in enumerate(keys):
        batch, _, threads = key.partition("x")
        places = [index + (number - (len(keys) - 1) / 2) * height for index in range(len(rows))]
        values = [row["latency_ms"].get(key, {}).get("p50", 0.0) for row in rows]
        axes.barh(places, values, height, label=f"{batch} rows, {threads} threads".replace("1 rows", "1 row"))
    axes.set_yticks(range(len(rows)), [row["variant"] for row in rows])
    axes.set_xscale("log")
    axes.set_xlabel("ms, median")
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1), ncols=4, frameon=False, fontsize=7)
    return _svg(figure, axes)


def worst_weights(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Picks the ten weight tensors with the lowest signal-to-noise ratio, the worst first; exact ones are none of them.

    Args:
      rows: the `weights` of a variant.
    """
    return sorted((row for row in rows if row["snr_db"] is not None), key=lambda row: row["snr_db"])[:WORST]


def weight_errors(rows: Sequence[Mapping[str, Any]]) -> str:
    """Draws the signal-to-noise ratio of a variant's ten worst weight tensors, dB.

    Args:
      rows: the `weights` of a variant.

    Returns:
      An SVG element; empty where all weights are exact.
    """
    worst = worst_weights(rows)
    return _bars([row["layer"] for row in worst], [row["snr_db"] for row in worst], "signal over rounding error, dB")


def activation_errors(rows: Sequence[Mapping[str, Any]]) -> str:
    """Draws the share of their signal that the ten worst layers lose to rounding, per cent.

    Args:
      rows: the `activations` of a variant.

    Returns:
      An SVG element; empty where none were measured.
    """
    shown = [row for row in rows[:WORST] if math.isfinite(row["error"])]
    return _bars([row["layer"] for row in shown], [100 * row["error"] for row in shown], "error over signal, %")


def _bars(names: Sequence[str], values: Sequence[float], label: str) -> str:
    if not values:
        return ""
    figure, axes = _figure(len(values))
    axes.barh(range(len(values)), values, color=_BAR)
    axes.set_yticks(range(len(values)), [_short(name) for name in names])
    axes.set_xlabel(label)
    return _svg(figure, axes)


def _short(layer: str) -> str:
    name = layer.partition(";")[0]
    return name if len(name) <= 36 else f"...{name[-33:]}"


def _figure(rows: float) -> tuple[Any, Any]:
    # A figure by itself: pyplot would choose a screen and keep every figure for ever.
    from matplotlib.figure import Figure

    height = 0.9 + 0.32 * rows
    figure = Figure(figsize=(7, height))
    # Fixed margins: matplotlib's own layout engines draw each picture twice.
    figure.subplots_adjust(left=0.38, right=0.97, top=1 - 0.25 / height, bottom=0.55 / height)
    return figure, figure.subplots()


def _svg(figure: Any, axes: Any) -> str:
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "evergreen"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]
