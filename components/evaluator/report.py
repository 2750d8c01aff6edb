"""comparison.json: what gate 2 measured and decided, as data, as a table and as a line. Pure; imports no TensorFlow.

    {"format": 1, "span": 4, "blessed": true, "reasons": [...], "notes": [...],
     "checks": [{"passed": true, "sentence": "..."}],
     "champion": {"model_id": 12, "model_uri": "...", "on_span": {"auc": 0.66}, "error": ""} | null,
     "bootstrap": {"samples": 1000, "confidence": 0.95, "block": ["date"], "units": 8},
     "min_slice_rows": 500, "metrics": ["auc", ...],
     "overall": {"slice": "overall", "key": {}, "rows": 7012, "gated": true,
        "metrics": {"auc": {"challenger": 0.68, "champion": 0.67, "difference": 0.01,
            "gain": {"value": 0.01, "lower": 0.004, "upper": 0.02}}}},
     "slices": [the same for each slice; `gain` without bounds where there are too few rows]}

A number that is undefined is null. `difference` is challenger minus champion; `gain` is positive where the challenger
is better, whatever the metric's direction, and each of its bounds holds with the confidence, one-sided.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from evergreen.components.evaluator import metrics
from evergreen.components.evaluator.gate import Measured, Verdict, number, percent
from evergreen.components.evaluator.settings import EvaluateSettings

FORMAT = 1
Comparison = dict[str, Any]


def build(
    settings: EvaluateSettings,
    span: int,
    overall: Measured,
    by_slice: Sequence[Measured],
    verdict: Verdict,
    *,
    champion: Mapping[str, Any] | None = None,
    units: int = 0,
) -> Comparison:
    """Puts measurements and verdict together.

    Args:
      settings: what was asked for.
      span: whose exam it was.
      overall: the whole exam.
      by_slice: the slices.
      verdict: gate 2's.
      champion: `model_id`, `model_uri`, `on_span` and, where it could not answer, `error`; None without a champion.
      units: how many rows or blocks the bootstrap drew from.

    Returns:
      A value that JSON can hold (no NaN).
    """
    return {
        "format": FORMAT,
        "span": span,
        "blessed": verdict.blessed,
        "reasons": verdict.reasons,
        "notes": list(verdict.notes),
        "checks": [{"passed": check.passed, "sentence": check.sentence} for check in verdict.checks],
        "champion": dict(champion) if champion else None,
        "bootstrap": {
            "samples": settings.bootstrap.samples,
            "confidence": settings.bootstrap.confidence,
            "block": list(settings.bootstrap.block),
            "units": units,
        },
        "min_slice_rows": settings.min_slice_rows,
        "metrics": list(settings.metrics),
        "overall": _slice(settings, overall),
        "slices": [_slice(settings, one) for one in by_slice],
    }


def defined(values: Mapping[str, float]) -> dict[str, float]:
    """Leaves out metrics that are undefined, which JSON has no number for."""
    return {name: value for name, value in values.items() if math.isfinite(value)}


def render_table(comparison: Comparison, metric: str | None = None) -> list[list[str]]:
    """Lays the comparison out for people.

    Args:
      comparison: of `build`, or read from comparison.json.
      metric: the one to show by slice; the first configured by default. Overall, all are shown.

    Returns:
      Rows of text cells, the header first: slice, rows, metric, challenger, champion, gain, its bounds. Slices that
      are too small to veto are marked `*`.
    """
    confidence = comparison["bootstrap"]["confidence"]
    rows = [["Slice", "Rows", "Metric", "Challenger", "Champion", "Gain", f"Bounds ({percent(confidence)} each)"]]
    overall = comparison["overall"]
    for index, name in enumerate(comparison["metrics"]):
        rows.append(_cells(overall, name, first=index == 0))
    shown = metric or comparison["metrics"][0]
    rows += [_cells(one, shown, first=True) for one in comparison["slices"]]
    return rows


def summary(comparison: Comparison) -> str:
    """One line: the verdict, the first metric, and how it compares.

    Args:
      comparison: of `build`, or read from comparison.json.

    Returns:
      Such as `passed: auc 0.6840 on 7,012 exam rows, champion 0.6720 (gain +0.0120, at least +0.0070)`.
    """
    overall = comparison["overall"]
    name = comparison["metrics"][0]
    entry = overall["metrics"][name]
    line = f"{'passed' if comparison['blessed'] else 'refused'}: {name} {number(entry['challenger'])}"
    line += f" on {overall['rows']:,} exam rows"
    gain = entry["gain"]
    if comparison["champion"] is None:
        return f"{line}, no champion"
    if gain["value"] is None:
        return f"{line}, not comparable with the champion"
    line += f", champion {number(entry['champion'])}"
    at_least = f", at least {gain['lower']:+.4f}" if gain["lower"] is not None else ""
    return f"{line} (gain {gain['value']:+.4f}{at_least})"


def _slice(settings: EvaluateSettings, one: Measured) -> dict[str, Any]:
    entries = {}
    for name in settings.metrics:
        value, reference = one.challenger.get(name, math.nan), one.champion.get(name, math.nan)
        bounds = one.bounds.get(name)
        entries[name] = {
            "challenger": _json(value),
            "champion": _json(reference),
            "difference": _json(value - reference),
            "gain": {
                "value": _json(float(metrics.gain(name, value, reference))),
                "lower": _json(bounds.lower) if bounds else None,
                "upper": _json(bounds.upper) if bounds else None,
            },
        }
    gated = not one.key or one.rows >= settings.min_slice_rows
    return {"slice": one.name, "key": dict(one.key), "rows": one.rows, "gated": gated, "metrics": entries}


def _json(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _cells(one: Mapping[str, Any], name: str, *, first: bool) -> list[str]:
    entry = one["metrics"][name]
    gain = entry["gain"]
    bounds = "" if gain["lower"] is None else f"{gain['lower']:+.4f} to {gain['upper']:+.4f}"
    return [
        (one["slice"] + ("" if one["gated"] else " *")) if first else "",
        f"{one['rows']:,}" if first else "",
        name,
        number(entry["challenger"]),
        "" if entry["champion"] is None else number(entry["champion"]),
        "" if gain["value"] is None else f"{gain['value']:+.4f}",
        bounds,
    ]
