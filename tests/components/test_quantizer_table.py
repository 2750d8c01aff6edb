"""The quantization report as a person reads it."""

from evergreen.components.quantizer import table

REPORT = {
    "passed": True,
    "chosen": "dynamic_int8",
    "rows": 5231,
    "reference": {"auc": 0.68, "logloss": 0.5},
    "variants": [
        {
            "variant": "float32",
            "made_for": "comparison",
            "passed": True,
            "reasons": [],
            "bytes": 1843132,
            "ratio": 1.0,
            "metrics": {"auc": 0.68, "logloss": 0.5},
            "loss": {"auc": 0.0, "logloss": 0.0},
            "largest_difference": 1.2e-7,
            "mean_difference": 1.6e-8,
            "flips": 0,
        },
        {
            "variant": "float16",
            "made_for": "publishing",
            "passed": False,
            "reasons": ["conversion failed: no"],
            "bytes": None,
            "ratio": None,
            "metrics": {},
            "loss": {},
            "largest_difference": None,
            "mean_difference": None,
            "flips": None,
        },
        {
            "variant": "dynamic_int8",
            "made_for": "publishing",
            "passed": True,
            "reasons": [],
            "bytes": 468832,
            "ratio": 0.25437,
            "metrics": {"auc": 0.678, "logloss": 0.499},
            "loss": {"auc": 0.002, "logloss": -0.001},
            "largest_difference": 0.0035,
            "mean_difference": 0.00056,
            "flips": 1204,
        },
    ],
}


def test_rows_line_up_with_the_header():
    header, rows = table.render(REPORT)
    assert header == ["variant", "size", "of float32", "auc", "logloss", "largest Δ", "mean Δ", "flips", "verdict"]
    assert [len(row) for row in rows] == [len(header)] * 4


def test_each_row_says_what_it_cost():
    _, (saved_model, float32, float16, int8) = table.render(REPORT)
    assert saved_model == ["SavedModel", "–", "–", "0.6800", "0.5000", "–", "–", "–", "5,231 exam rows"]
    assert float32[-1] == "for comparison"
    assert float16 == ["float16", *["–"] * 7, "dropped: conversion failed: no"]
    assert int8 == [
        *["dynamic_int8", "468.8 kB", "0.254", "0.6780 (0.0020 worse)", "0.4990 (0.0010 better)"],
        *["3.5e-03", "5.6e-04", "1,204", "passed, chosen"],
    ]


def test_nothing_quantized_has_no_rows():
    assert table.render({"reference": {}, "variants": [], "chosen": None})[1] == []
