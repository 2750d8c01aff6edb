"""The report of one quantization and gate 3's verdict in it: plain data in, plain data out, no TensorFlow.

The report is a JSON object:

    {"format": 2, "passed": true, "reason": "", "chosen": "dynamic_int8", "span": 4, "rows": 5231, "threshold": 0.5,
     "inputs": "raw" | "transformed", "inputs_reason": "",     why they are not raw: the operator that does not convert
     "max_drop": {"auc": 0.005}, "when_none": "withdraw",
     "reference": {"auc": 0.68},                    the SavedModel on the same rows
     "saved_model_ms": {"1": {"p50": 0.8, "p99": 1.1, "calls": 120}, ...},   by rows of a call
     "variants": [{"variant": "float16", "made_for": "publishing" | "comparison", "passed": true, "reasons": [],
                   "bytes": 926792, "ratio": 0.503, "metrics": {"auc": 0.68}, "loss": {"auc": 0.0},
                   "largest_difference": 1e-4, "mean_difference": 1e-5, "flips": 3, "batch": "dynamic" | "one row",
                   "latency_ratio": 1.02,           one row on one thread, the median, over float32's
                   "saved_model_ratio": 0.1,        the same over the SavedModel's
                   "first_answer_ms": 3.1, "arena_bytes": 40960, "multiply_adds": 252672,
                   "left_in_float": [], "selective": [...],       see `evergreen.components.quantizer.selective`
                   "parts": {...}, "latency_ms": {...}, "operators": {...}, "float_operators": [...],
                   "weights": [...], "activations": [...]}]}

`parts` is of `assemble.parts`, `latency_ms` of `runtime.Run`, `operators`, `float_operators` and `weights` of
`anatomy`, `activations` of `convert.activation_errors`. A number that could not be had is null.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from evergreen.components.quantizer.measure import Measurement
from evergreen.components.quantizer.settings import BASELINE, QuantizeSettings

Report = dict[str, Any]
_LEAST = 1e-9  # a bound of 0 is broken by anything


# What only the report's own file holds: the property in ML Metadata is for listings.
DETAILS = ("parts", "latency_ms", "operators", "float_operators", "weights", "activations", "selective")


def variant_row(
    variant: str,
    settings: QuantizeSettings,
    size: int | None,
    baseline_size: int | None,
    measurement: Measurement | None,
    failure: str = "",
    dynamic_batch: bool = True,
    details: Mapping[str, Any] | None = None,
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
      details: further entries of the row; `latency_ratio` among them is judged.
    """
    details = details or {}
    reasons = [failure] if failure else []
    if measurement is not None:
        reasons += losses_beyond(measurement, settings.max_drop, settings.max_abs_difference)
    reasons += costs_beyond(settings, size, details.get("latency_ratio"), measured=measurement is not None)
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
        **details,
    }


def costs_beyond(
    settings: QuantizeSettings, size: int | None, latency_ratio: float | None, measured: bool
) -> list[str]:
    """The sentences of why a variant is too large or too slow; none when it is not.

    Args:
      settings: the bounds.
      size: bytes of the file; None where there is none, which is a failure told elsewhere.
      latency_ratio: to float32; None where it is not known.
      measured: whether the variant got so far that its latency should be known.
    """
    reasons = []
    if settings.max_bytes is not None and size is not None and size > settings.max_bytes:
        reasons.append(f"{size:,} bytes, more than {settings.max_bytes:,} (`quantize.max_bytes`) allows")
    if settings.max_latency_ratio is not None and measured:
        if latency_ratio is None:
            reasons.append("its latency beside float32's is not known, so its bound is not proven")
        elif latency_ratio > settings.max_latency_ratio:
            reasons.append(
                f"takes {latency_ratio:.2f} times as long as float32, more than {settings.max_latency_ratio:g} allows"
            )
    return reasons


def losses_beyond(
    measurement: Measurement, max_drop: Mapping[str, float], max_abs_difference: float | None = None
) -> list[str]:
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
    if max_abs_difference is not None and measurement.largest_difference > max_abs_difference:
        reasons.append(
            f"an answer differs by {measurement.largest_difference:.3g}, more than {max_abs_difference:g} allows"
        )
    return reasons


def excess(measurement: Measurement, settings: QuantizeSettings) -> float:
    """How far a variant's answers are beyond the bounds, as a multiple of the bound that it breaks most.

    Returns:
      1 or less where no bound is broken; infinity where an answer is not finite.
    """
    if measurement.not_finite:
        return math.inf
    shares = [measurement.loss[metric] / max(bound, _LEAST) for metric, bound in settings.max_drop.items()]
    if settings.max_abs_difference is not None:
        shares.append(measurement.largest_difference / max(settings.max_abs_difference, _LEAST))
    return max((share if math.isfinite(share) else math.inf for share in shares), default=0.0)


def build(
    settings: QuantizeSettings,
    rows: Sequence[Mapping[str, Any]],
    reference: Mapping[str, float],
    span: int,
    rows_measured: int,
    threshold: float,
    about: Mapping[str, Any] | None = None,
) -> Report:
    """The report with the verdict: which variant is chosen, and whether gate 3 is open.

    Args:
      settings: what must pass and what to publish.
      rows: of `variant_row`, in the order to show them.
      reference: the SavedModel's metrics on the same rows.
      span: the span whose exam rows were used.
      rows_measured: how many they were.
      threshold: of the decisions.
      about: further entries of the report.
    """
    passed = [row for row in rows if row["passed"] and row["variant"] in settings.variants]
    failed = {row["variant"]: "; ".join(row["reasons"]) for row in rows if not row["passed"]}
    needed = [*settings.required, *([settings.publish] if settings.publish else [])]
    missing = [f"{name}: {failed[name]}" for name in dict.fromkeys(needed) if name in failed]
    reason = f"A variant that must pass does not: {'; '.join(missing)}" if missing else ""
    if not passed and not missing and settings.when_none == "refuse":
        reason = (
            f"No variant passes (`quantize.when_none` is refuse): {'; '.join(f'{n}: {r}' for n, r in failed.items())}"
        )
    return {
        "format": 2,
        "passed": not reason,
        "reason": reason,
        "chosen": None if reason else settings.publish or _preferred(passed, settings.prefer),
        "when_none": settings.when_none,
        "span": span,
        "rows": rows_measured,
        "threshold": threshold,
        "max_drop": dict(settings.max_drop),
        "reference": _numbers(reference),
        **(about or {}),
        "variants": list(rows),
    }


def summary(report: Report) -> Report:
    """Returns the report without what only its own file holds."""
    rows = [{key: value for key, value in row.items() if key not in DETAILS} for row in report["variants"]]
    return {**report, "variants": rows}


def nothing_to_do(settings: QuantizeSettings, span: int, why: str) -> Report:
    """The report when there is nothing to quantize: gate 3 is open, unless a variant is required.

    Args:
      settings: `required` closes the gate.
      span: the newest span.
      why: one sentence.
    """
    missing = ", ".join(settings.required)
    return {
        "format": 2,
        "passed": not missing,
        "reason": f"{why}, and `quantize.required` names {missing}" if missing else why,
        "chosen": None,
        "when_none": settings.when_none,
        "span": span,
        "rows": 0,
        "threshold": None,
        "max_drop": dict(settings.max_drop),
        "reference": {},
        "variants": [],
    }


def left_out(report: Mapping[str, Any]) -> list[str]:
    """What the user is warned of: features that are not raw, and each variant that was asked for and did not pass."""
    sentences = []
    if report.get("inputs") == "transformed":
        sentences.append(f"the TFLite variants take transformed features: {report['inputs_reason']}")
    for row in report["variants"]:
        if row["made_for"] != "publishing":
            continue
        if not row["passed"]:
            sentences.append(f"the variant {row['variant']} is left out: {'; '.join(row['reasons'])}")
        if row.get("selective_result"):
            sentences.append(row["selective_result"])
    return sentences


def needs_baseline(settings: QuantizeSettings) -> tuple[str, ...]:
    """The variants to convert: those asked for, and float32 first, whose size is what the ratios are of."""
    return (BASELINE, *(variant for variant in settings.variants if variant != BASELINE))


def _preferred(passed: Sequence[Mapping[str, Any]], prefer: str) -> str | None:
    """Picks the variant to publish.

    A tie goes to the one named first; where latencies are not known, the size decides.
    """
    if not passed:
        return None
    if prefer == "fastest" and all(row.get("latency_ratio") for row in passed):
        return str(min(passed, key=lambda row: row["latency_ratio"])["variant"])
    return str(min(passed, key=lambda row: row["bytes"])["variant"])


def _numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in values.items()}


def _number(value: float) -> float | None:
    # JSON knows neither NaN nor infinity.
    return value if math.isfinite(value) else None
