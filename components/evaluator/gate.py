"""Gate 2's rules: from measurements to a verdict in sentences. Pure; imports neither TensorFlow nor TFX.

The gate closes when

- a prediction of the challenger is not a finite number;
- a metric of `min` is worse on the whole exam than its bound, or undefined;
- there is a champion, and the lower bound of the challenger's gain in a metric of `max_regression` is below minus the
  regression allowed: closed until shown to be harmless, so few rows or a wide bound close it;
- in a slice of at least `min_slice_rows` rows, the upper bound of the gain in a metric of `slice_max_regression` is
  below minus the regression allowed: open until shown to be harmful. There are many slices and each has few rows;
  asking each to prove its innocence would refuse good models by chance. Without `slice_max_regression` slices are
  shown only, and bounds for the whole exam never apply to a slice.

A champion that cannot answer the new rows (it needs a column that the data no longer has, say) does not keep its place
for ever: it is left out with a note, and `min` alone decides. `min` is therefore worth setting.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evergreen.components.evaluator import bootstrap, metrics
from evergreen.components.evaluator.settings import EvaluateSettings


@dataclasses.dataclass(frozen=True)
class Measured:
    """What is known of one slice.

    Attributes:
      name: for people: `carrier=UA`, or `overall`.
      rows: of the exam in it.
      challenger: metrics by name; NaN where undefined.
      champion: the same of the champion on the same rows; empty without one.
      bounds: of the challenger's gain, by metric; empty without a champion or with too few rows.
      key: the slice's columns and their values; empty for the whole exam.
    """

    name: str
    rows: int
    challenger: Mapping[str, float]
    champion: Mapping[str, float] = dataclasses.field(default_factory=dict)
    bounds: Mapping[str, bootstrap.Bounds] = dataclasses.field(default_factory=dict)
    key: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Check:
    """One rule applied: `passed`, and why in a sentence with its numbers."""

    passed: bool
    sentence: str


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Gate 2's decision.

    Attributes:
      blessed: whether the gate is open.
      checks: every rule that was applied.
      notes: what the reader should know beside the rules, such as that there was no champion.
    """

    blessed: bool
    checks: tuple[Check, ...]
    notes: tuple[str, ...]

    @property
    def reasons(self) -> list[str]:
        """Why: the rules that failed, or all of them where none did; then the notes."""
        decisive = [check.sentence for check in self.checks if check.passed == self.blessed]
        return [*decisive, *self.notes]


def judge(
    settings: EvaluateSettings,
    overall: Measured,
    by_slice: Sequence[Measured],
    *,
    failed: str = "",
    notes: Sequence[str] = (),
) -> Verdict:
    """Applies the rules.

    Args:
      settings: the bounds.
      overall: the whole exam.
      by_slice: the slices.
      failed: why the challenger's predictions cannot be judged at all; empty when they can.
      notes: to hand on.

    Returns:
      The verdict.
    """
    if failed:
        return Verdict(False, (Check(False, failed),), tuple(notes))
    checks = list(_absolute(settings, overall))
    if overall.champion:
        checks += _overall_regressions(settings, overall)
        checks += (check for one in by_slice for check in _slice_regressions(settings, one))
    if not checks:
        notes = [*notes, "No bound applies (`min`, or `max_regression` with a champion), so nothing was refused."]
    return Verdict(all(check.passed for check in checks), tuple(checks), tuple(notes))


def number(value: float | None) -> str:
    """Writes a metric for people: four decimals, or fewer for a large value; `undefined` for None and NaN."""
    if value is None or math.isnan(value):
        return "undefined"
    return f"{value:.4f}" if abs(value) < 100 else f"{value:,.1f}"


def percent(share: float) -> str:
    """Writes a share of 1 as `97.5%`."""
    return f"{100 * share:g}%"


def _absolute(settings: EvaluateSettings, overall: Measured) -> Iterator[Check]:
    for name, bound in settings.min.items():
        value = overall.challenger[name]
        passed = bool(metrics.gain(name, value, bound) >= 0)
        relation = "which meets" if passed else "which does not meet"
        yield Check(
            passed,
            f"{name} is {number(value)} on the exam ({overall.rows:,} rows), {relation} the bound {bound:g} "
            f"(evaluate.min.{name}).",
        )


def _overall_regressions(settings: EvaluateSettings, overall: Measured) -> Iterator[Check]:
    for name, allowed in settings.max_regression.items():
        bounds = overall.bounds.get(name)
        pair = f"{name} is {number(overall.challenger[name])}, the champion's {number(overall.champion[name])}"
        rule = f"the {allowed:g} allowed (evaluate.max_regression.{name})."
        if bounds is None or math.isnan(bounds.lower):
            yield Check(False, f"{pair}: the difference is undefined on {overall.rows:,} rows, so it may exceed {rule}")
            continue
        sure = f"({percent(settings.bootstrap.confidence)} sure)"
        passed = bounds.lower >= -allowed
        if bounds.lower >= 0:
            yield Check(passed, f"{pair}: it is not worse {sure}.")
        else:
            relation = "within" if passed else "more than"
            yield Check(passed, f"{pair}: it may be worse by as much as {-bounds.lower:.4f} {sure}, {relation} {rule}")


def _slice_regressions(settings: EvaluateSettings, one: Measured) -> Iterator[Check]:
    if one.rows < settings.min_slice_rows:
        return
    for name, allowed in settings.slice_max_regression.items():
        bounds = one.bounds.get(name)
        if bounds is None or math.isnan(bounds.upper) or bounds.upper >= -allowed:
            continue
        yield Check(
            False,
            f"{name} in the slice {one.name} ({one.rows:,} rows) is {number(one.challenger[name])}, the champion's "
            f"{number(one.champion[name])}: it is worse by at least {-bounds.upper:.4f} "
            f"({percent(settings.bootstrap.confidence)} sure), more than the {allowed:g} allowed "
            f"(evaluate.slice_max_regression.{name}).",
        )
