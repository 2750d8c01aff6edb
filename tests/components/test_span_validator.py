"""Gate 1 on real statistics: what bad data gets, and what it does not get."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import span_world

pytestmark = pytest.mark.tensorflow

ROWS = 2000
SETTINGS = {"time": "time", "exam": 0.25, "validation": 0.02, "min_rows": 1000, "on_anomalies": "reject"}
SCHEMA = """
default_environment: "TRAINING" default_environment: "SERVING"
feature { name: "time" type: INT presence { min_fraction: 1 min_count: 1 } shape { dim { size: 1 } } }
feature {
  name: "carrier" type: BYTES presence { min_fraction: 1 min_count: 1 } shape { dim { size: 1 } }
  domain: "carriers" distribution_constraints { min_domain_mass: 0.97 }
  drift_comparator { infinity_norm { threshold: 0.2 } }
}
feature { name: "tail" type: BYTES presence { min_fraction: 0.9 min_count: 1 } value_count { min: 1 max: 1 } }
feature {
  name: "distance" type: FLOAT presence { min_fraction: 1 min_count: 1 } shape { dim { size: 1 } }
  float_domain { min: 0 max: 5000 }
  drift_comparator { jensen_shannon_divergence { threshold: 0.3 } }
}
feature { name: "hour" type: INT presence { min_fraction: 1 min_count: 1 } int_domain { min: 0 max: 23 } }
feature { name: "late" type: INT presence { min_fraction: 1 min_count: 1 } not_in_environment: "SERVING" }
string_domain { name: "carriers" value: "AA" value: "UA" value: "DL" }
"""


def flights(rows: int = ROWS, seed: int = 0) -> pd.DataFrame:
    """Good data; `tail` is missing in 6% of the rows, where a tenth may be."""
    generator = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "time": np.arange(rows),
            "carrier": generator.choice(["AA", "UA", "DL"], rows),
            "tail": np.where(generator.random(rows) < 0.06, None, "N1"),
            "distance": generator.uniform(100, 2500, rows),
            "hour": generator.integers(0, 24, rows),
            "late": generator.integers(0, 2, rows),
        }
    )


class Gate:
    """Runs the three components on a frame."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.schema = span_world.schema_artifact(SCHEMA, folder / "schema")
        self.runs = 0

    def statistics(self, frame: pd.DataFrame, **settings: Any) -> tuple[Any, Any]:
        self.runs += 1
        folder = self.folder / str(self.runs)
        folder.mkdir()
        frame.to_parquet(folder / "a.parquet", index=False)
        examples = span_world.ingest(folder, ["a.parquet"], folder / "examples", {**SETTINGS, **settings})
        return examples, span_world.compute_statistics(examples, folder / "statistics", self.schema)

    def validate(self, frame: pd.DataFrame, previous: Any = None, **settings: Any) -> Any:
        from tfx.types import standard_artifacts

        from evergreen.components.span_validator.executor import Executor

        examples, statistics = self.statistics(frame, **settings)
        anomalies = span_world.artifact(standard_artifacts.ExampleAnomalies, self.folder / str(self.runs) / "anomalies")
        inputs = {"statistics": [statistics], "schema": [self.schema], "examples": [examples]}
        if previous is not None:
            inputs["previous_statistics"] = previous
        parameters = {"settings": json.dumps({**SETTINGS, **settings})}
        Executor(Executor.Context(tmp_dir=str(self.folder), unique_id="1")).Do(
            inputs, {"anomalies": [anomalies]}, parameters
        )
        return anomalies


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Gate:
    return Gate(tmp_path_factory.mktemp("gate"))


def reasons(anomalies: Any) -> list[tuple[str, str, str]]:
    listed = json.loads(anomalies.get_string_custom_property("reasons"))
    return [(entry["feature"], entry["reason"], entry["split"]) for entry in listed]


def accepted(anomalies: Any) -> bool:
    word = anomalies.get_string_custom_property("verdict")
    number = anomalies.get_int_custom_property("accepted")
    assert (word, number) in (("accepted", 1), ("rejected", 0))
    return bool(number)


def test_good_data_is_accepted_though_a_small_split_breaks_a_bound_by_chance(gate: Gate) -> None:
    from tensorflow_metadata.proto.v0 import anomalies_pb2

    frame = flights()
    frame.loc[frame.index[-6:], "carrier"] = "ZZ"  # 0.3% of the span, and all of the exam
    anomalies = gate.validate(frame, exam=0.003)
    diff = anomalies_pb2.Anomalies.FromString((Path(anomalies.uri) / "Split-exam/SchemaDiff.pb").read_bytes())
    assert "carrier" in diff.anomaly_info
    assert accepted(anomalies), reasons(anomalies)
    assert anomalies.span == 7
    assert anomalies.get_int_custom_property("version") == 2
    assert anomalies.get_int_custom_property("rows") == ROWS
    written = json.loads((Path(anomalies.uri) / "verdict.json").read_text())
    assert sum(written["splits"].values()) == ROWS
    assert written["drift_against"] is None


def test_the_stock_layout_is_kept_for_each_split(gate: Gate) -> None:
    from tensorflow_metadata.proto.v0 import anomalies_pb2

    frame = flights()
    frame.loc[frame.index[-3:], "hour"] = 99
    anomalies = gate.validate(frame, exam="span")
    assert json.loads(anomalies.split_names) == ["train", "validation", "exam"]
    diffs = {
        split: anomalies_pb2.Anomalies.FromString((Path(anomalies.uri) / f"Split-{split}/SchemaDiff.pb").read_bytes())
        for split in ("train", "validation", "exam")
    }
    assert list(diffs["exam"].anomaly_info) == ["hour"]
    assert diffs["train"].data_missing
    assert reasons(anomalies) == [("hour", "INT_TYPE_BIG_INT", "span")]


def drop(name: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda frame: frame.drop(columns=name)


def put(name: str, value: Any, last: int = ROWS) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        changed = frame[name].astype(object).copy()
        changed.iloc[-last:] = value
        return frame.assign(**{name: changed})

    return change


@pytest.mark.parametrize(
    ("change", "feature", "reason", "split"),
    [
        (drop("distance"), "distance", "SCHEMA_MISSING_COLUMN", "span"),
        (drop("late"), "late", "SCHEMA_MISSING_COLUMN", "span"),
        (put("distance", "far"), "distance", "UNEXPECTED_DATA_TYPE", "span"),
        (put("carrier", "ZZ", 300), "carrier", "ENUM_TYPE_UNEXPECTED_STRING_VALUES", "exam"),
        (put("tail", None, 400), "tail", "FEATURE_TYPE_LOW_FRACTION_PRESENT", "exam"),
        (put("distance", 9000.0, 1), "distance", "FLOAT_TYPE_BIG_FLOAT", "exam"),
        (lambda frame: frame.assign(extra=1), "extra", "SCHEMA_NEW_COLUMN", "span"),
    ],
    ids=[
        "missing column",
        "missing label",
        "string for number",
        "new category",
        "missing values",
        "range",
        "new column",
    ],
)
def test_bad_data_is_rejected_with_the_feature_and_the_reason(
    gate: Gate, change: Callable[[pd.DataFrame], pd.DataFrame], feature: str, reason: str, split: str
) -> None:
    anomalies = gate.validate(change(flights()))
    assert not accepted(anomalies)
    assert (feature, reason, split) in reasons(anomalies)
    assert {found[0] for found in reasons(anomalies)} == {feature}


def test_too_few_rows_are_rejected_and_warnings_are_kept(gate: Gate) -> None:
    few = gate.validate(flights(999), on_anomalies="warn")
    assert not accepted(few)
    assert reasons(few) == [("", "TOO_FEW_ROWS", "span")]
    warned = gate.validate(put("carrier", "ZZ", 300)(flights()), on_anomalies="warn")
    assert accepted(warned)
    assert reasons(warned) == [("carrier", "ENUM_TYPE_UNEXPECTED_STRING_VALUES", "exam")]


def test_drift_is_measured_against_the_earlier_span(gate: Gate) -> None:
    _, before = gate.statistics(flights(seed=1))
    assert accepted(gate.validate(flights(), previous=[before]))
    assert accepted(gate.validate(flights(), previous=[]))
    shifted = flights().assign(distance=lambda frame: frame["distance"] / 10)
    shifted["carrier"] = np.where(np.arange(ROWS) % 2, "AA", shifted["carrier"])
    anomalies = gate.validate(shifted, previous=[before])
    assert not accepted(anomalies)
    assert sorted(reasons(anomalies)) == [
        ("carrier", "COMPARATOR_L_INFTY_HIGH", "train"),
        ("distance", "COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH", "train"),
    ]
    assert json.loads((Path(anomalies.uri) / "verdict.json").read_text())["drift_against"] == 7


def test_drift_without_training_rows_is_measured_on_the_exam(gate: Gate) -> None:
    _, before = gate.statistics(flights(seed=1), exam="span")
    shifted = flights().assign(distance=lambda frame: frame["distance"] / 10)
    anomalies = gate.validate(shifted, previous=[before], exam="span")
    assert reasons(anomalies) == [("distance", "COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH", "exam")]


def test_merged_statistics_equal_those_of_all_rows(gate: Gate) -> None:
    from evergreen.components.span_validator import executor, merged_statistics

    divided = executor._load(gate.statistics(flights())[1])
    whole = executor._load(gate.statistics(flights(), exam="span")[1])["exam"]
    merged, left_out = merged_statistics.merge(list(divided.values()))
    assert left_out == []
    assert merged.num_examples == whole.num_examples == ROWS
    expected = {merged_statistics.feature_name(feature): feature for feature in whole.features}
    assert len(merged.features) == len(expected)
    for feature in merged.features:
        same = expected[merged_statistics.feature_name(feature)]
        kind = same.WhichOneof("stats")
        found, wanted = getattr(feature, kind), getattr(same, kind)
        for field in ("num_non_missing", "num_missing", "min_num_values", "max_num_values", "tot_num_values"):
            assert getattr(found.common_stats, field) == getattr(wanted.common_stats, field), (feature, field)
        if kind == "num_stats":
            assert (found.min, found.max, found.num_zeros) == (wanted.min, wanted.max, wanted.num_zeros)
            assert found.mean == pytest.approx(wanted.mean)
        else:
            assert found.unique == wanted.unique
            counts = [{b.label: b.sample_count for b in stats.rank_histogram.buckets} for stats in (found, wanted)]
            assert counts[0] == counts[1]


def test_statistics_of_different_types_are_left_to_the_splits(gate: Gate) -> None:
    from evergreen.components.span_validator import executor, merged_statistics

    one = executor._load(gate.statistics(flights(50)[["time", "hour"]])[1])["train"]
    other = executor._load(gate.statistics(put("hour", "noon", 50)(flights(50)[["time", "hour"]]))[1])["train"]
    merged, left_out = merged_statistics.merge([one, other])
    assert left_out == ["hour"]
    assert [merged_statistics.feature_name(feature) for feature in merged.features] == ["time"]
