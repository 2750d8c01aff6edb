"""From anomalies to a verdict and a table."""

from __future__ import annotations

import json

from evergreen.components.span_validator import verdict
from evergreen.components.span_validator.verdict import Reason

UNKNOWN, MISSING, DRIFT = "ENUM_TYPE_UNEXPECTED_STRING_VALUES", "SCHEMA_MISSING_COLUMN", "COMPARATOR_L_INFTY_HIGH"
ROWS = {"train": 60, "validation": 10, "exam": 30}


def anomaly(feature: str, reason: str, split: str = "span", error: bool = True) -> Reason:
    return Reason(feature, reason, f"{reason} of {feature} in {split}", split, error)


def test_a_share_exceeded_by_chance_in_a_small_split_is_no_reason() -> None:
    assert verdict.merge([], {"train": [], "validation": [anomaly("carrier", UNKNOWN, "validation")]}) == ()


def test_reasons_say_in_which_splits_the_spans_anomaly_is() -> None:
    span = [anomaly("carrier", UNKNOWN), anomaly("dest", MISSING), anomaly("temp", "X")]
    both = [anomaly("dest", MISSING, "train")]
    splits = {"train": both, "validation": both, "exam": [anomaly("carrier", UNKNOWN, "exam"), *both]}
    found = {reason.feature: reason for reason in verdict.merge(span, splits)}
    assert found["carrier"].split == "exam"
    assert found["dest"].split == "span"
    assert found["temp"].split == "span"
    assert found["carrier"].description == "ENUM_TYPE_UNEXPECTED_STRING_VALUES of carrier in span"


def test_for_a_feature_that_cannot_be_merged_the_splits_decide() -> None:
    splits = {"train": [anomaly("n", "T", "train")], "validation": [], "exam": [anomaly("n", "T", "exam")]}
    (found,) = verdict.merge([anomaly("n", MISSING)], splits, divided=["n"])
    assert (found.reason, found.split) == ("T", "train, exam")


def test_a_span_without_anomalies_and_with_enough_rows_is_accepted() -> None:
    decided = verdict.decide([], ROWS, min_rows=100, on_anomalies="reject")
    assert (decided.accepted, decided.word, decided.rows) == (True, "accepted", 100)


def test_anomalies_reject_or_warn() -> None:
    reasons = [anomaly("carrier", UNKNOWN)]
    assert verdict.decide(reasons, ROWS, 1, "reject").word == "rejected"
    warned = verdict.decide(reasons, ROWS, 1, "warn")
    assert warned.accepted
    assert warned.reasons == tuple(reasons)


def test_a_warning_of_tfdvs_does_not_reject() -> None:
    assert verdict.decide([anomaly("carrier", "W", error=False)], ROWS, 1, "reject").accepted


def test_too_few_rows_reject_even_where_anomalies_only_warn() -> None:
    decided = verdict.decide([], ROWS, 101, "warn")
    assert not decided.accepted
    (reason,) = decided.reasons
    assert (reason.reason, reason.feature, reason.split) == ("TOO_FEW_ROWS", "", "span")
    assert "100 rows" in reason.description
    assert "101" in reason.description


def test_verdict_json_holds_everything() -> None:
    decided = verdict.decide([anomaly("carrier", DRIFT, "train")], ROWS, 1, "reject", drift_against=6)
    written = json.loads(decided.to_json(7, 2))
    assert (written["span"], written["version"], written["verdict"], written["accepted"]) == (7, 2, "rejected", False)
    assert written["splits"] == ROWS
    assert written["drift_against"] == 6
    assert written["reasons"][0]["feature"] == "carrier"


def test_the_property_in_ml_metadata_stays_short() -> None:
    many = [Reason(f"f{n}", UNKNOWN, "x" * 10000, "span") for n in range(500)]
    decided = verdict.decide(many, ROWS, 1, "reject")
    listed = decided.listed_reasons()
    assert len(listed) < 64000
    assert set(json.loads(listed)[0]) == {"feature", "reason", "description", "split"}
    assert len(json.loads(decided.to_json(7, 2))["reasons"]) == 500


def test_the_table_is_laid_out_by_feature_and_cut_at_the_width() -> None:
    reasons = [anomaly("carrier", UNKNOWN, "exam"), Reason("", "TOO_FEW_ROWS", "line one\n  two " + "x" * 99, "span")]
    lines = verdict.table([reason.as_dict() for reason in reasons], width=100).splitlines()
    assert lines[0].split() == ["feature", "split", "anomaly", "description"]
    assert lines[1].startswith("carrier  exam   ENUM_TYPE_UNEXPECTED_STRING_VALUES  ENUM_TYPE")
    assert lines[2].startswith("(all)    span   TOO_FEW_ROWS")
    assert "line one two xxx" in lines[2]
    assert max(map(len, lines)) == 100
    assert verdict.table([]) == ""


def test_a_span_that_cannot_be_read_is_rejected_also_where_anomalies_only_warn() -> None:
    decided = verdict.decide([], {"train": 0}, 1, "warn", unreadable="a.parquet is empty")
    assert not decided.accepted
    (reason,) = decided.reasons
    assert (reason.reason, reason.description) == (verdict.UNREADABLE, "a.parquet is empty")
