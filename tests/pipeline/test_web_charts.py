"""What pictures are drawn from: positions, shares and words for who cannot see them."""

import pytest

from evergreen.pipeline.web import charts


def test_a_training_has_a_plot_for_each_metric_with_both_kinds_of_rows():
    loss, auc = charts.curves([{"step": 10, "loss": 0.5}, {"step": 20, "loss": 0.25, "val_loss": 0.3, "auc": 0.75}])
    assert (loss["title"], loss["x"]) == ("loss", [10, 20])
    assert loss["series"] == [
        {"label": "training", "values": [0.5, 0.25], "color": 0},
        {"label": "validation", "values": [None, 0.3], "color": 1},
    ]
    assert "training: from 0.5 to 0.25, lowest 0.25, highest 0.5." in loss["summary"]
    assert [one["label"] for one in auc["series"]] == ["training"]


def test_nothing_is_plotted_of_values_that_are_no_numbers():
    assert charts.plot("auc", [0, 1], {"a": [None, float("nan")]}) is None
    kept = charts.plot("auc", [0, 1], {"a": [None, 1.0], "b": [None, float("inf")]})
    assert kept is not None and [(one["label"], one["color"]) for one in kept["series"]] == [("a", 0)]


def test_shares_fill_the_whole():
    first, second = charts.shares({"fit": 9.0, "export": 1.0})
    assert (first["start"], first["share"], second["start"], second["share"]) == pytest.approx((0, 90, 90, 10))


def test_bytes_are_stacked_by_part_to_the_scale_of_the_largest_variant():
    whole, half = charts.sizes(
        [
            {"variant": "float32", "bytes": 200, "parts": {"graph": 50, "weights": 150, "tables": 0}},
            {"variant": "float16", "bytes": 100},
            {"variant": "int8", "bytes": None},
        ]
    )
    assert [(part["name"], part["start"], part["share"]) for part in whole["parts"]] == [
        ("weights", 0, 75),
        ("graph", 75, 25),
    ]
    assert [(part["name"], part["share"]) for part in half["parts"]] == [("file", 50)]


def test_gains_lie_on_one_axis_and_small_slices_do_not_stretch_it():
    better, worse, small, none = charts.intervals(
        [
            {"value": 0.02, "lower": 0.01, "upper": 0.04},
            {"value": -0.02, "lower": -0.04, "upper": -0.01},
            {"value": 0.5, "lower": None, "upper": None},
            {"value": None, "lower": None, "upper": None},
        ]
    )
    assert none is None
    assert better is not None and worse is not None and small is not None
    assert better == {"value": pytest.approx(74), "lower": pytest.approx(62), "upper": pytest.approx(98)}
    assert worse["upper"] < 50 < better["lower"]
    assert small == {"value": pytest.approx(98), "lower": None, "upper": None}
