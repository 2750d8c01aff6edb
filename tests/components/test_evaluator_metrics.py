"""The metrics: known answers, scikit-learn's answers, and what is undefined."""

import math

import numpy as np
import pytest

from evergreen.components.errors import ConfigError
from evergreen.components.evaluator import metrics

LABELS = np.array([0, 0, 1, 1, 0, 1], np.float64)
SCORES = np.array([0.1, 0.4, 0.35, 0.8, 0.4, 0.4])


def _binary(rows, seed=0, decimals=2):
    generator = np.random.default_rng(seed)
    labels = (generator.random(rows) < 0.3).astype(np.float64)
    return labels, np.round(np.clip(0.3 * labels + generator.random(rows) * 0.7, 0.001, 0.999), decimals)


def test_auc_counts_pairs_and_ties_by_half():
    # Of the nine pairs: 0.35 beats 0.1; 0.8 beats all three; 0.4 beats 0.1 and ties with two.
    assert metrics.compute(["auc"], LABELS, SCORES)["auc"] == pytest.approx((1 + 3 + 1 + 2 * 0.5) / 9)


def test_known_values_at_a_threshold():
    values = metrics.compute(["accuracy", "precision", "recall"], LABELS, SCORES, threshold=0.4)
    assert values == pytest.approx({"accuracy": 3 / 6, "precision": 2 / 4, "recall": 2 / 3})


def test_equal_to_scikit_learn():
    learn = pytest.importorskip("sklearn.metrics")
    labels, scores = _binary(2000)
    values = metrics.compute(metrics.names(), labels, scores)
    decisions = scores >= 0.5
    assert values == pytest.approx(
        {
            "auc": learn.roc_auc_score(labels, scores),
            "accuracy": learn.accuracy_score(labels, decisions),
            "precision": learn.precision_score(labels, decisions),
            "recall": learn.recall_score(labels, decisions),
            "log_loss": learn.log_loss(labels, scores),
            "brier": learn.brier_score_loss(labels, scores),
            "mean_squared_error": learn.mean_squared_error(labels, scores),
            "root_mean_squared_error": math.sqrt(learn.mean_squared_error(labels, scores)),
            "mean_absolute_error": learn.mean_absolute_error(labels, scores),
            "r2": learn.r2_score(labels, scores),
            "calibration": scores.mean() / labels.mean(),
        }
    )


def test_r2_keeps_its_digits_far_from_zero():
    labels = 1e8 + np.arange(10.0)
    assert metrics.compute(["r2"], labels, labels + 1)["r2"] == pytest.approx(1 - 10 / 82.5)


@pytest.mark.parametrize("name", metrics.names())
def test_a_weight_of_two_is_the_row_twice(name):
    labels, scores = _binary(200)
    counts = np.random.default_rng(1).integers(0, 4, 200)
    weighted = metrics.prepare(name, labels, scores)(counts[:, None].astype(np.float64))[0]
    repeated = metrics.compute([name], np.repeat(labels, counts), np.repeat(scores, counts))[name]
    assert weighted == pytest.approx(repeated)


def test_confident_and_wrong_is_a_large_but_finite_loss():
    assert metrics.compute(["log_loss"], np.array([1.0]), np.array([0.0]))["log_loss"] == pytest.approx(
        16.118, abs=1e-3
    )


@pytest.mark.parametrize("name", metrics.names())
def test_undefined_without_rows_or_with_a_prediction_that_is_not_finite(name):
    assert math.isnan(metrics.compute([name], np.array([]), np.array([]))[name])
    for broken in (np.nan, np.inf):
        assert math.isnan(metrics.compute([name], LABELS, np.where(SCORES == 0.8, broken, SCORES))[name])


def test_auc_of_one_class_is_undefined():
    assert math.isnan(metrics.compute(["auc"], np.ones(4), SCORES[:4])["auc"])


def test_gain_is_positive_where_the_model_is_better():
    assert metrics.gain("auc", 0.7, 0.6) == pytest.approx(0.1)
    assert metrics.gain("log_loss", 0.7, 0.6) == pytest.approx(-0.1)
    assert metrics.gain("calibration", 0.95, 1.2) == pytest.approx(0.15)
    assert metrics.higher_is_better("auc") and not metrics.higher_is_better("brier")


def test_unknown_metric_lists_those_that_there_are():
    with pytest.raises(ConfigError) as refused:
        metrics.get("acu")
    assert "`acu`" in str(refused.value) and "auc, brier, calibration" in str(refused.value)


def test_a_metric_of_yes_and_no_refuses_a_label_of_minutes():
    metrics.check_labels(["mean_absolute_error", "r2"], np.array([3.0, 12.0]))
    with pytest.raises(ConfigError, match="does not suit the label") as refused:
        metrics.check_labels(["r2", "auc"], np.array([0.0, 12.0, 3.0]))
    assert "received 12 (and 1 more" in str(refused.value)
