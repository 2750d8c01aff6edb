"""Measuring a variant's answers beside the SavedModel's."""

import math

import numpy as np
import pytest

from evergreen.components.evaluator import metrics
from evergreen.components.quantizer import measure

LABELS = np.array([0.0, 0.0, 1.0, 1.0])
REFERENCE = np.array([0.1, 0.4, 0.6, 0.9])


def measured(predictions, labels=LABELS, reference=REFERENCE, names=("auc",)):
    values = metrics.compute(names, labels, reference, 0.5)
    return measure.compare(np.asarray(predictions, np.float32), reference, labels, values, 0.5)


def test_equal_answers_lose_nothing():
    same = measured(REFERENCE)
    assert same.metrics["auc"] == pytest.approx(1.0)
    assert same.loss["auc"] == pytest.approx(0.0)
    assert (same.flips, same.not_finite) == (0, 0)
    assert same.largest_difference == pytest.approx(0, abs=1e-7)


def test_differences_and_flips():
    other = measured([0.1, 0.55, 0.45, 0.9])
    assert other.largest_difference == pytest.approx(0.15)
    assert other.mean_difference == pytest.approx(0.075)
    assert other.flips == 2
    assert other.loss["auc"] == pytest.approx(0.25)


def test_a_rising_error_is_a_loss_and_decisions_need_a_class():
    labels = np.array([1.0, 2.0, 3.0])
    worse = measured([1.5, 2.5, 3.5], labels, labels.copy(), names=("mean_absolute_error",))
    assert worse.loss["mean_absolute_error"] == pytest.approx(0.5)
    assert worse.flips is None


def test_infinite_answers_are_counted_and_measured_no_further():
    broken = measured([0.1, math.inf, math.nan, 0.9])
    assert broken.not_finite == 2
    assert math.isnan(broken.loss["auc"])
