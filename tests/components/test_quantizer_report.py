"""Gate 3: which variants pass, which is chosen, and when the gate closes."""

import json
import math

import pytest

from evergreen.components.quantizer import report
from evergreen.components.quantizer.measure import Measurement
from evergreen.components.quantizer.settings import QuantizeSettings


def measured(auc=0.7, not_finite=0):
    """What the interpreter gave, the SavedModel's AUC being 0.7."""
    return Measurement({"auc": auc}, {"auc": 0.7 - auc}, 0.01, 0.001, 2, not_finite)


def quantized(settings, sizes, aucs, failures=None):
    """A whole report over variants of the given sizes and AUCs, the SavedModel's being 0.7."""
    failures = failures or {}
    rows = [
        report.variant_row(
            name,
            settings,
            sizes.get(name),
            sizes.get("float32"),
            measured(aucs[name]) if name in aucs else None,
            failures.get(name, ""),
        )
        for name in report.needs_baseline(settings)
    ]
    return report.build(settings, rows, {"auc": 0.7}, span=4, rows_measured=100, threshold=0.5)


SIZES = {"float32": 1000, "float16": 500, "dynamic_int8": 250}
BOUND = {"auc": 0.005}


def test_the_smallest_that_passed_is_chosen():
    result = quantized(QuantizeSettings(max_drop=BOUND), SIZES, dict.fromkeys(SIZES, 0.699))
    assert (result["passed"], result["chosen"]) == (True, "dynamic_int8")
    assert [row["ratio"] for row in result["variants"]] == [1.0, 0.5, 0.25]


def test_a_variant_that_loses_too_much_is_dropped_with_its_reason():
    aucs = {"float32": 0.7, "float16": 0.7, "dynamic_int8": 0.69}
    result = quantized(QuantizeSettings(max_drop=BOUND), SIZES, aucs)
    assert (result["passed"], result["chosen"]) == (True, "float16")
    assert result["variants"][2]["reasons"] == ["auc 0.6900 loses 0.0100, more than 0.005 allows"]
    assert report.left_out(result) == [
        "the variant dynamic_int8 is left out: auc 0.6900 loses 0.0100, more than 0.005 allows"
    ]


def test_a_gain_and_a_loss_at_the_bound_pass():
    aucs = {"float32": 0.7, "float16": 0.72, "dynamic_int8": 0.45}
    result = quantized(QuantizeSettings(max_drop={"auc": 0.25}), SIZES, aucs)
    assert result["chosen"] == "dynamic_int8"


@pytest.mark.parametrize("key", [{"required": ("dynamic_int8",)}, {"publish": "dynamic_int8"}])
def test_a_variant_that_must_pass_closes_the_gate(key):
    aucs = {"float32": 0.7, "float16": 0.7, "dynamic_int8": 0.5}
    result = quantized(QuantizeSettings(max_drop=BOUND, **key), SIZES, aucs)
    assert (result["passed"], result["chosen"]) == (False, None)
    assert "dynamic_int8: auc 0.5000 loses 0.2000" in result["reason"]


def test_the_configured_variant_is_chosen_over_a_smaller_one():
    result = quantized(QuantizeSettings(max_drop=BOUND, publish="float16"), SIZES, dict.fromkeys(SIZES, 0.7))
    assert result["chosen"] == "float16"


def test_float32_is_published_only_when_asked_for():
    settings = QuantizeSettings(("float16",), BOUND)
    result = quantized(settings, {"float32": 400, "float16": 500}, {"float32": 0.7, "float16": 0.7})
    assert result["chosen"] == "float16"
    assert [row["made_for"] for row in result["variants"]] == ["comparison", "publishing"]
    asked = QuantizeSettings(("float16", "float32"), BOUND)
    assert quantized(asked, {"float32": 400, "float16": 500}, {"float32": 0.7, "float16": 0.7})["chosen"] == "float32"


def test_none_passing_leaves_the_gate_open_unless_required():
    failures = dict.fromkeys(SIZES, "conversion failed: no such op")
    result = quantized(QuantizeSettings(max_drop=BOUND), {}, {}, failures)
    assert (result["passed"], result["chosen"]) == (True, None)
    assert result["variants"][1]["reasons"] == ["conversion failed: no such op"]
    assert result["variants"][1]["ratio"] is None


def test_predictions_that_are_not_finite_are_never_passed():
    nothing = measured(math.nan, not_finite=3)
    row = report.variant_row("float16", QuantizeSettings(), 500, 1000, nothing)
    assert (row["passed"], row["reasons"]) == (False, ["3 predictions are NaN or infinite"])
    assert json.loads(json.dumps(row, allow_nan=False))["metrics"] == {"auc": None}


def test_a_bound_on_a_metric_that_has_no_value_is_not_proven():
    row = report.variant_row("float16", QuantizeSettings(max_drop=BOUND), 500, 1000, measured(math.nan))
    assert row["reasons"] == ["auc cannot be computed on these rows, so its bound is not proven"]


def test_nothing_to_quantize_is_no_failure_unless_required():
    why = "not quantized: the model came from run_fn"
    assert report.nothing_to_do(QuantizeSettings(), 4, why)["passed"]
    closed = report.nothing_to_do(QuantizeSettings(required=("float16",)), 4, why)
    assert not closed["passed"]
    assert closed["reason"] == f"{why}, and `quantize.required` names float16"


def test_none_passing_closes_the_gate_where_that_is_configured():
    failures = dict.fromkeys(SIZES, "conversion failed: no such op")
    result = quantized(QuantizeSettings(max_drop=BOUND, when_none="refuse"), {}, {}, failures)
    assert (result["passed"], result["chosen"]) == (False, None)
    assert "`quantize.when_none` is refuse" in result["reason"]
    passing = quantized(QuantizeSettings(when_none="refuse"), SIZES, dict.fromkeys(SIZES, 0.7))
    assert passing["passed"]


def bounded(size=500, ratio=1.0, difference=0.01, **bounds):
    found = Measurement({"auc": 0.7}, {"auc": 0.0}, difference, 0.001, 2, 0)
    settings = QuantizeSettings(**bounds)
    return report.variant_row("float16", settings, size, 1000, found, details={"latency_ratio": ratio})["reasons"]


@pytest.mark.parametrize(
    ("bounds", "over", "words"),
    [
        ({"max_bytes": 500}, {"size": 501}, "501 bytes, more than 500"),
        ({"max_latency_ratio": 1.0}, {"ratio": 1.5}, "takes 1.50 times as long as float32, more than 1 allows"),
        ({"max_abs_difference": 0.01}, {"difference": 0.02}, "an answer differs by 0.02, more than 0.01 allows"),
    ],
)
def test_each_bound_has_its_sentence(bounds, over, words):
    assert bounded(**bounds) == []
    (reason,) = bounded(**bounds, **over)
    assert words in reason


def test_a_latency_that_is_not_known_is_not_proven():
    assert "is not known" in bounded(ratio=None, max_latency_ratio=2.0)[0]


def test_the_fastest_is_chosen_where_that_is_preferred():
    rows = [
        report.variant_row(name, QuantizeSettings(), size, 1000, measured(), details={"latency_ratio": ratio})
        for name, size, ratio in (("float16", 500, 0.9), ("dynamic_int8", 250, 1.1))
    ]
    chosen = {
        prefer: report.build(QuantizeSettings(prefer=prefer), rows, {"auc": 0.7}, 4, 100, 0.5)["chosen"]
        for prefer in ("smallest", "fastest")
    }
    assert chosen == {"smallest": "dynamic_int8", "fastest": "float16"}


def test_excess_is_a_multiple_of_the_bound_that_is_broken_most():
    settings = QuantizeSettings(max_drop={"auc": 0.01}, max_abs_difference=0.1)
    found = Measurement({"auc": 0.68}, {"auc": 0.02}, 0.05, 0.001, 2, 0)
    assert report.excess(found, settings) == pytest.approx(2.0)
    assert report.excess(measured(math.nan, not_finite=1), settings) == math.inf
    assert report.excess(found, QuantizeSettings()) == 0


def test_the_user_is_told_what_the_variants_could_not_do():
    details = {"selective_result": "int8 could not be saved by leaving its 2 worst layers in float"}
    settings = QuantizeSettings(variants=("int8",), max_bytes=100)
    row = report.variant_row("int8", settings, 500, 1000, measured(), details=details)
    about = {"inputs": "transformed", "inputs_reason": "the preprocessing cannot be converted: tf.StringLower"}
    result = report.build(settings, [row], {"auc": 0.7}, 4, 100, 0.5, about)
    assert report.left_out(result) == [
        "the TFLite variants take transformed features: the preprocessing cannot be converted: tf.StringLower",
        "the variant int8 is left out: 500 bytes, more than 100 (`quantize.max_bytes`) allows",
        "int8 could not be saved by leaving its 2 worst layers in float",
    ]


def test_the_summary_leaves_out_what_only_the_file_holds():
    row = report.variant_row("float16", QuantizeSettings(), 500, 1000, measured(), details={"weights": [1], "flips": 3})
    whole = report.build(QuantizeSettings(), [row], {"auc": 0.7}, 4, 100, 0.5)
    (short,) = report.summary(whole)["variants"]
    assert set(row) - set(short) == {"weights"}
