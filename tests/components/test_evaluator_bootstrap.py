"""The paired bootstrap: its bounds hold as often as they say, and wider ones for rows that share their fate."""

import math
import time

import numpy as np
import pytest

from evergreen.components.evaluator import bootstrap


def _models(rows, generator, quality=(0.5, 0.5), common=1.0):
    """Labels and two scores; `quality` is how much each knows."""
    labels = (generator.random(rows) < 0.3).astype(np.float64)
    shared = common * generator.normal(size=rows)
    return labels, *(q * labels + shared + 0.3 * generator.normal(size=rows) for q in quality)


def _paired(labels, challenger, champion, names=("auc",), samples=300, confidence=0.95, **more):
    return bootstrap.paired(names, labels, challenger, champion, samples=samples, confidence=confidence, **more)


def test_the_same_model_gains_nothing_for_sure():
    labels, scores, _ = _models(500, np.random.default_rng(0))
    bounds = _paired(labels, scores, scores, ["auc", "mean_squared_error", "r2"])
    assert set(bounds.values()) == {bootstrap.Bounds(0.0, 0.0)}


def test_a_better_model_is_better_whatever_the_direction():
    generator = np.random.default_rng(0)
    labels = generator.normal(size=3000)
    good, bad = labels + 0.1 * generator.normal(size=3000), labels + generator.normal(size=3000)
    for name in ("mean_squared_error", "mean_absolute_error", "r2"):
        assert _paired(labels, good, bad, [name])[name].lower > 0
        assert _paired(labels, bad, good, [name])[name].upper < 0


def test_deterministic_and_the_same_in_any_chunk(monkeypatch):
    labels, challenger, champion = _models(400, np.random.default_rng(0))
    blocks = np.arange(400) // 20

    def both():
        found = [_paired(labels, challenger, champion, blocks=b)["auc"] for b in (None, blocks)]
        return [value for one in found for value in (one.lower, one.upper)]

    whole = both()
    assert both() == whole
    monkeypatch.setattr(bootstrap, "_CELLS", 400 * 7)
    assert both() == pytest.approx(whole)


def test_bounds_hold_as_often_as_they_say():
    """Two equal models on 200 samples of rows: each 90% bound should miss the truth, 0, about 20 times."""
    generator = np.random.default_rng(7)
    above = below = 0
    for _ in range(200):
        labels, challenger, champion = _models(300, generator)
        bounds = _paired(labels, challenger, champion, samples=200, confidence=0.9)["auc"]
        above += bounds.lower > 0
        below += bounds.upper < 0
    assert 8 <= above <= 36
    assert 8 <= below <= 36


def test_rows_that_share_their_fate_need_blocks():
    """Each day favours one model or the other: thirty days are thirty witnesses, not three thousand."""
    generator = np.random.default_rng(3)
    day = np.repeat(np.arange(30), 100)
    labels = generator.normal(size=3000)
    favour = generator.normal(size=30)[day]
    challenger, champion = labels + 1 + 0.3 * favour, labels + 1 - 0.3 * favour
    rows = _paired(labels, challenger, champion, ["mean_squared_error"])["mean_squared_error"]
    days = _paired(labels, challenger, champion, ["mean_squared_error"], blocks=day)["mean_squared_error"]
    assert days.upper - days.lower > 5 * (rows.upper - rows.lower)


def test_blocks_of_single_rows_are_rows_and_a_single_block_says_nothing():
    labels, challenger, champion = _models(300, np.random.default_rng(0))
    rows = _paired(labels, challenger, champion)
    assert _paired(labels, challenger, champion, blocks=np.arange(300)) == rows
    assert _paired(labels, challenger, champion, blocks=np.zeros(300, int)) == rows
    assert bootstrap.block_count(np.zeros(300, int), 300) == bootstrap.block_count(None, 300) == 300
    assert bootstrap.block_count(np.arange(300) // 100, 300) == 3


def test_undefined_where_one_class_is_too_rare_to_be_drawn():
    labels = np.zeros(50)
    bounds = _paired(labels, np.arange(50.0), np.arange(50.0))["auc"]
    assert math.isnan(bounds.lower) and math.isnan(bounds.upper)


@pytest.mark.parametrize("decimals", [15, 1], ids=["few ties", "many ties"])
def test_blocks_added_up_give_the_bounds_of_their_rows(monkeypatch, decimals):
    generator = np.random.default_rng(5)
    labels, challenger, champion = _models(3000, generator)
    challenger, champion = (np.round(1 / (1 + np.exp(-scores)), decimals) for scores in (challenger, champion))
    blocks = generator.integers(0, 40, 3000) * 3
    names = ["auc", "log_loss", "calibration", "accuracy", "precision", "recall", "r2", "root_mean_squared_error"]
    found = _paired(labels, challenger, champion, names, blocks=blocks)
    monkeypatch.setattr(bootstrap.metrics, "_CELLS", 40 * 7)  # many chunks of rows
    again = _paired(labels, challenger, champion, names, blocks=blocks)
    monkeypatch.setattr(bootstrap.metrics, "MOST_BLOCKS", 1)
    by_row = _paired(labels, challenger, champion, names, blocks=blocks)
    for name in names:
        expected = pytest.approx((by_row[name].lower, by_row[name].upper), rel=1e-9)
        assert (found[name].lower, found[name].upper) == expected
        assert (again[name].lower, again[name].upper) == expected


def test_a_resample_of_blocks_costs_as_much_as_it_has_blocks():
    generator = np.random.default_rng(5)
    labels, challenger, champion = _models(40_000, generator)
    blocks = np.arange(40_000) % 50

    def seconds(samples):
        began = time.process_time()
        _paired(labels, challenger, champion, ["auc", "log_loss"], samples=samples, blocks=blocks)
        return time.process_time() - began

    # By rows 100 times the resamples took 100 times as long.
    assert seconds(2000) < 10 * seconds(20) + 1
