"""The report of one quantization and gate 3's verdict in it: plain data in, plain data out, no TensorFlow.

The report is a JSON object:

    {"format": 1, "passed": true, "reason": "", "chosen": "dynamic_int8", "span": 4, "rows": 5231, "threshold": 0.5,
     "max_drop": {"auc": 0.005},
     "reference": {"auc": 0.68},                    the SavedModel on the same rows
     "variants": [{"variant": "float16", "made_for": "publishing" | "comparison", "passed": true, "reasons": [],
                   "bytes": 926792, "ratio": 0.503, "metrics": {"auc": 0.68}, "loss": {"auc": 0.0},
                   "largest_difference": 1e-4, "mean_difference": 1e-5, "flips": 3, "batch": "dynamic" | "one row"}]}

A number that could not be had is null.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from evergreen.components.quantizer.measure import Measurement
from evergreen.components.quantizer.settings import BASELINE, QuantizeSettings

Report = dict[str, Any]


def variant_row(
    variant: str,
    settings: QuantizeSettings,
    size: int | None,
    baseline_size: int | None,
    measurement: Measurement | None,
    failure: str = "",
    dynamic_batch: bool = True,
) -> dict[str, Any]:
    """One variant's row of the report, with gate 3's judgement of it.

    Args:
      variant: its name.
      settings: the bounds, and which variants the user asked for.
      size: bytes of the file; None when it could not be converted.
      baseline_size: bytes of the float32 file; None when that one could not be converted.
      measurement: on the exam rows; None when the variant did not get that far.
      failure: why it did not.
      dynamic_batch: whether the interpreter took batches, or only single rows.
    """
    reasons = [failure] if failure else []
    if measurement is not None:
        reasons += losses_beyond(measurement, settings.max_drop)
    return {
        "variant": variant,
        "made_for": "publishing" if variant in settings.variants else "comparison",
        "passed": not reasons,
        "reasons": reasons,
        "bytes": size,
        "ratio": size / baseline_size if size and baseline_size else None,
        "metrics": _numbers(measurement.metrics) if measurement else {},
        "loss": _numbers(measurement.loss) if measurement else {},
        "largest_difference": _number(measurement.largest_difference) if measurement else None,
        "mean_difference": _number(measurement.mean_difference) if measurement else None,
        "flips": measurement.flips if measurement else None,
        "batch": "dynamic" if dynamic_batch else "one row",
    }


def losses_beyond(measurement: Measurement, max_drop: Mapping[str, float]) -> list[str]:
    """The sentences of why a variant does not pass; none when it does."""
    if measurement.not_finite:
        return [f"{measurement.not_finite} predictions are NaN or infinite"]
    reasons = []
    for metric, bound in max_drop.items():
        loss = measurement.loss[metric]
        if not math.isfinite(loss):
            reasons.append(f"{metric} cannot be computed on these rows, so its bound is not proven")
        elif loss > bound:
            reasons.append(f"{metric} {measurement.metrics[metric]:.4f} loses {loss:.4f}, more than {bound:g} allows")
    return reasons


def build(
    settings: QuantizeSettings,
    rows: Sequence[Mapping[str, Any]],
    reference: Mapping[str, float],
    span: int,
    rows_measured: int,
    threshold: float,
) -> Report:
    """The report with the verdict: which variant is chosen, and whether gate 3 is open.

    Args:
      settings: what must pass and what to publish.
      rows: of `variant_row`, in the order to show them.
      reference: the SavedModel's metrics on the same rows.
      span: the span whose exam rows were used.
      rows_measured: how many they were.
      threshold: of the decisions.
    """
    passed = [row for row in rows if row["passed"] and row["variant"] in settings.variants]
    failed = {row["variant"]: "; ".join(row["reasons"]) for row in rows if not row["passed"]}
    needed = [*settings.required, *([settings.publish] if settings.publish else [])]
    missing = [f"{name}: {failed[name]}" for name in dict.fromkeys(needed) if name in failed]
    # A tie of sizes goes to the one named first; the report must not depend on the order of conversion.
    smallest = min(passed, key=lambda row: row["bytes"])["variant"] if passed else None
    return {
        "format": 1,
        "passed": not missing,
        "reason": f"A variant that must pass does not: {'; '.join(missing)}" if missing else "",
        "chosen": None if missing else settings.publish or smallest,
        "span": span,
        "rows": rows_measured,
        "threshold": threshold,
        "max_drop": dict(settings.max_drop),
        "reference": _numbers(reference),
        "variants": list(rows),
    }


def nothing_to_do(settings: QuantizeSettings, span: int, why: str) -> Report:
    """The report when there is nothing to quantize: gate 3 is open, unless a variant is required.

    Args:
      settings: `required` closes the gate.
      span: the newest span.
      why: one sentence.
    """
    missing = ", ".join(settings.required)
    return {
        "format": 1,
        "passed": not missing,
        "reason": f"{why}, and `quantize.required` names {missing}" if missing else why,
        "chosen": None,
        "span": span,
        "rows": 0,
        "threshold": None,
        "max_drop": dict(settings.max_drop),
        "reference": {},
        "variants": [],
    }


def left_out(report: Mapping[str, Any]) -> list[str]:
    """What the user is warned of: a sentence for each variant that was asked for and did not pass."""
    return [
        f"the variant {row['variant']} is left out: {'; '.join(row['reasons'])}"
        for row in report["variants"]
        if not row["passed"] and row["made_for"] == "publishing"
    ]


def needs_baseline(settings: QuantizeSettings) -> tuple[str, ...]:
    """The variants to convert: those asked for, and float32 first, whose size is what the ratios are of."""
    return (BASELINE, *(variant for variant in settings.variants if variant != BASELINE))


def _numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in values.items()}


def _number(value: float) -> float | None:
    # JSON knows neither NaN nor infinity.
    return value if math.isfinite(value) else None
