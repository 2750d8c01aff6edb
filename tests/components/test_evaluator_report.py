"""comparison.json, its table and its line."""

import json
import math

import pytest

from evergreen.components.evaluator import gate, report
from evergreen.components.evaluator.bootstrap import Bounds
from evergreen.components.evaluator.settings import EvaluateSettings

SETTINGS = EvaluateSettings(label="late", metrics=("auc", "log_loss"), max_regression={"auc": 0.005})
OVERALL = gate.Measured(
    "overall",
    7012,
    {"auc": 0.684, "log_loss": 0.41},
    {"auc": 0.672, "log_loss": 0.43},
    {"auc": Bounds(0.007, 0.02), "log_loss": Bounds(0.01, 0.03)},
)
SLICES = [
    gate.Measured(
        "carrier=UA",
        900,
        {"auc": 0.7, "log_loss": 0.4},
        {"auc": 0.71, "log_loss": 0.41},
        {"auc": Bounds(-0.03, 0.01), "log_loss": Bounds(0.0, 0.02)},
        {"carrier": "UA"},
    ),
    gate.Measured(
        "carrier=OO",
        3,
        {"auc": math.nan, "log_loss": 0.9},
        {"auc": math.nan, "log_loss": 0.2},
        {},
        {"carrier": "OO"},
    ),
]


CHAMPION = {"model_id": 3, "on_span": {}, "error": ""}


def _comparison(overall=OVERALL, by_slice=SLICES, champion=CHAMPION):
    verdict = gate.judge(SETTINGS, overall, by_slice)
    return report.build(SETTINGS, 4, overall, by_slice, verdict, champion=champion, units=7012)


def test_it_is_json_and_turns_losses_into_gains():
    found = json.loads(json.dumps(_comparison(), allow_nan=False))
    assert found["blessed"] is True
    loss = found["overall"]["metrics"]["log_loss"]
    assert loss["gain"] == pytest.approx({"value": 0.02, "lower": 0.01, "upper": 0.03})
    assert loss["difference"] == pytest.approx(-0.02)
    assert [(one["key"], one["rows"], one["gated"]) for one in found["slices"]] == [
        ({"carrier": "UA"}, 900, True),
        ({"carrier": "OO"}, 3, False),
    ]
    assert found["slices"][1]["metrics"]["auc"]["challenger"] is None


def test_table_shows_every_metric_overall_and_one_by_slice():
    rows = report.render_table(_comparison())
    assert {len(row) for row in rows} == {7}
    assert rows[0][-1] == "Bounds (95% each)"
    assert rows[1] == ["overall", "7,012", "auc", "0.6840", "0.6720", "+0.0120", "+0.0070 to +0.0200"]
    assert rows[2][:3] == ["", "", "log_loss"]
    assert rows[3] == ["carrier=UA", "900", "auc", "0.7000", "0.7100", "-0.0100", "-0.0300 to +0.0100"]
    assert rows[4] == ["carrier=OO *", "3", "auc", "undefined", "", "", ""]
    assert report.render_table(_comparison(), "log_loss")[4][2:6] == ["log_loss", "0.9000", "0.2000", "-0.7000"]


def test_summary():
    assert report.summary(_comparison()) == (
        "passed: auc 0.6840 on 7,012 exam rows, champion 0.6720 (gain +0.0120, at least +0.0070)"
    )
    alone = gate.Measured("overall", 10, {"auc": 0.6, "log_loss": 0.6})
    assert report.summary(_comparison(alone, [], None)) == "passed: auc 0.6000 on 10 exam rows, no champion"
    broken = {"model_id": 3, "on_span": {}, "error": "no such column"}
    assert report.summary(_comparison(alone, [], broken)).endswith("not comparable with the champion")
