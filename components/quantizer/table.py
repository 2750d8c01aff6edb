"""The quantization report as a table of text cells, for a terminal or a page; no TensorFlow, no terminal library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ABSENT = "–"


def render(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Lays a report out as a table.

    Args:
      report: as `evergreen.components.quantizer.report` describes it.

    Returns:
      The header's cells, and the cells of each row: the SavedModel first, then every variant. Without variants there
      are no rows, and `report["reason"]` says why.
    """
    metrics = list(report["reference"])
    header = ["variant", "size", "of float32", *metrics, "largest Δ", "mean Δ", "flips", "verdict"]
    if not report["variants"]:
        return header, []
    reference = [_number(report["reference"][name], ".4f") for name in metrics]
    rows = [["SavedModel", ABSENT, ABSENT, *reference, ABSENT, ABSENT, ABSENT, f"{report['rows']:,} exam rows"]]
    rows += [_variant(row, metrics, report["chosen"]) for row in report["variants"]]
    return header, rows


def _variant(row: Mapping[str, Any], metrics: list[str], chosen: str | None) -> list[str]:
    return [
        row["variant"],
        ABSENT if row["bytes"] is None else f"{row['bytes'] / 1000:,.1f} kB",
        _number(row["ratio"], ".3f"),
        *(_with_loss(row["metrics"].get(name), row["loss"].get(name)) for name in metrics),
        _number(row["largest_difference"], ".1e"),
        _number(row["mean_difference"], ".1e"),
        ABSENT if row["flips"] is None else f"{row['flips']:,}",
        _verdict(row, chosen),
    ]


def _with_loss(value: float | None, loss: float | None) -> str:
    if value is None or loss is None:
        return ABSENT
    # The sign is read as "worse" and "better", whichever way the metric points.
    word = "worse" if loss > 0 else "better"
    return f"{value:.4f}" if abs(loss) < 0.00005 else f"{value:.4f} ({abs(loss):.4f} {word})"


def _verdict(row: Mapping[str, Any], chosen: str | None) -> str:
    if not row["passed"]:
        return "dropped: " + "; ".join(row["reasons"])
    if row["variant"] == chosen:
        return "passed, chosen"
    return "passed" if row["made_for"] == "publishing" else "for comparison"


def _number(value: float | None, form: str) -> str:
    return ABSENT if value is None else format(value, form)
