"""Gate 2's rules."""

import math

import pytest

from evergreen.components.evaluator import gate
from evergreen.components.evaluator.bootstrap import Bounds
from evergreen.components.evaluator.settings import EvaluateSettings


def _settings(**more):
    return EvaluateSettings(label="late", metrics=("auc", "log_loss", "calibration"), **more)


def _overall(auc=0.7, lower=0.01, upper=0.03, champion=True, rows=7000, **more):
    challenger = {"auc": auc, "log_loss": 0.5, "calibration": 1.1, **more}
    if not champion:
        return gate.Measured("overall", rows, challenger)
    return gate.Measured(
        "overall", rows, challenger, {"auc": 0.68, "log_loss": 0.5, "calibration": 1.0}, {"auc": Bounds(lower, upper)}
    )


def _slice(upper, rows=800, auc=0.5):
    return gate.Measured(
        "carrier=UA", rows, {"auc": auc}, {"auc": 0.7}, {"auc": Bounds(upper - 0.1, upper)}, {"carrier": "UA"}
    )


@pytest.mark.parametrize(
    ("bounds", "passes"),
    [
        ({"auc": 0.7}, True),
        ({"auc": 0.71}, False),
        ({"log_loss": 0.5}, True),
        ({"log_loss": 0.49}, False),
        ({"calibration": 0.88}, True),
        ({"calibration": 0.95}, False),
        ({"auc": 0.6, "log_loss": 0.4}, False),
    ],
)
def test_min_is_the_worst_value_that_passes_in_the_metric_s_own_direction(bounds, passes):
    verdict = gate.judge(_settings(min=bounds), _overall(champion=False), [])
    assert verdict.blessed is passes


def test_an_undefined_metric_passes_no_bound():
    verdict = gate.judge(_settings(min={"auc": 0.1}), _overall(auc=math.nan, champion=False), [])
    assert not verdict.blessed
    assert verdict.reasons == [
        "auc is undefined on the exam (7,000 rows), which does not meet the bound 0.1 (evaluate.min.auc)."
    ]


@pytest.mark.parametrize(("lower", "passes"), [(0.01, True), (0.0, True), (-0.005, True), (-0.0051, False)])
def test_closed_until_the_regression_is_shown_to_be_small(lower, passes):
    verdict = gate.judge(_settings(max_regression={"auc": 0.005}), _overall(lower=lower), [])
    assert verdict.blessed is passes


def test_reasons_hold_the_numbers():
    settings = _settings(min={"auc": 0.6}, max_regression={"auc": 0.005})
    refused = gate.judge(settings, _overall(auc=0.672, lower=-0.019), [])
    assert refused.reasons == [
        "auc is 0.6720, the champion's 0.6800: it may be worse by as much as 0.0190 (95% sure), "
        "more than the 0.005 allowed (evaluate.max_regression.auc)."
    ]
    passed = gate.judge(settings, _overall(lower=-0.001), [], notes=["a note"])
    assert passed.reasons == [
        "auc is 0.7000 on the exam (7,000 rows), which meets the bound 0.6 (evaluate.min.auc).",
        "auc is 0.7000, the champion's 0.6800: it may be worse by as much as 0.0010 (95% sure), "
        "within the 0.005 allowed (evaluate.max_regression.auc).",
        "a note",
    ]


def test_a_regression_that_cannot_be_told_closes():
    verdict = gate.judge(_settings(max_regression={"auc": 0.005}), _overall(lower=math.nan), [])
    assert not verdict.blessed and "undefined on 7,000 rows" in verdict.reasons[0]


def test_the_first_model_is_held_to_min_only():
    settings = _settings(min={"auc": 0.6}, max_regression={"auc": 0.0}, slice_max_regression={"auc": 0.0})
    assert gate.judge(settings, _overall(champion=False), [_slice(-0.5)]).blessed


def test_slices_are_shown_only_unless_they_have_bounds_of_their_own():
    settings = _settings(min={"auc": 0.6}, max_regression={"auc": 0.005})
    assert gate.judge(settings, _overall(), [_slice(-0.5, auc=0.1)]).blessed


@pytest.mark.parametrize(
    ("upper", "rows", "passes"), [(-0.03, 800, False), (-0.02, 800, True), (0.1, 800, True), (-0.5, 499, True)]
)
def test_a_slice_vetoes_when_it_is_large_and_the_harm_is_sure(upper, rows, passes):
    verdict = gate.judge(_settings(slice_max_regression={"auc": 0.02}), _overall(), [_slice(upper, rows)])
    assert verdict.blessed is passes
    if not passes:
        assert verdict.reasons[0].startswith("auc in the slice carrier=UA (800 rows) is 0.5000, the champion's 0.7000")


def test_what_cannot_be_judged_is_refused_for_that_alone():
    verdict = gate.judge(_settings(min={"auc": 0.6}), _overall(), [], failed="NaN everywhere.", notes=["n"])
    assert not verdict.blessed and verdict.reasons == ["NaN everywhere.", "n"]


def test_no_bound_at_all_is_said():
    assert "No bound applies" in gate.judge(_settings(), _overall(), []).reasons[0]
