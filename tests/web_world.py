"""A project with 25 runs whose last has files to show, full of names that a page must not take for markup."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

NASTY = "<script>window.hacked = 1</script>"
_STORE = Path(__file__).parents[1] / "benchmarks" / "lineage_store.py"
_YAML = """\
name: many
data: {path: data, pattern: '{SPAN}/*.csv', format: csv}
schema: schema.pbtxt
features: features:preprocessing_fn
trainer: {model: model:build_model}
evaluate: {label: y, metrics: [auc, log_loss]}
publish: {base_path: serving/many}
"""


def lineage_store() -> Any:
    """The module that writes synthetic stores; benchmarks are no package."""
    if "lineage_store" not in sys.modules:
        spec = importlib.util.spec_from_file_location("lineage_store", _STORE)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["lineage_store"] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
    return sys.modules["lineage_store"]


def version_of(number: int) -> int:
    """The version that a run published."""
    return int(lineage_store().FIRST_VERSION + number * 3600)


def make(root: Path, runs: int = 25) -> Path:
    """Makes the project: runs 9 and 19 are refused by gate 2, the last three versions lie in the base path.

    Args:
      root: an empty folder.
      runs: how many.

    Returns:
      Its evergreen.yaml.
    """
    (root / ".evergreen").mkdir()
    writer = lineage_store().Writer(root / ".evergreen" / "metadata.db")
    writer.write(runs)
    lineage_store().write_versions(root / "serving" / "many", writer, keep=3)
    _add_files(writer.store, root / "files", runs - 1)
    (root / "schema.pbtxt").write_text('feature { name: "x" type: FLOAT }')
    (root / "evergreen.yaml").write_text(_YAML)
    return root / "evergreen.yaml"


def _add_files(store: Any, folder: Path, run: int) -> None:
    files = {
        f"ExampleStatistics/{run}": {"Split-train/FeatureStats.pb": _statistics()},
        f"ExampleAnomalies/{run}": {
            "Split-train/SchemaDiff.pb": _drift(),
            "verdict.json": _json({"splits": {"train": 100}, "drift_against": run - 1, "reasons": [_REASON]}),
        },
        f"ModelEvaluation/{run}": {"comparison.json": _json(COMPARISON)},
        f"ModelRun/{run}": {"report.json": _json(_TRAINING)},
        f"QuantizationReport/{run}": {"report.json": _json(_VARIANTS)},
    }
    for name, contents in files.items():
        (artifact,) = [a for a in store.get_artifacts_by_type(name.split("/")[0]) if a.uri == f"/nowhere/{name}"]
        artifact.uri = str(folder / name)
        store.put_artifacts([artifact])
        for path, content in contents.items():
            file = folder / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _statistics() -> bytes:
    from tensorflow_metadata.proto.v0 import statistics_pb2 as pb

    data = pb.DatasetFeatureStatistics(num_examples=100)
    number = data.features.add(type=pb.FeatureNameStatistics.FLOAT)
    number.path.step.append("distance")
    number.num_stats.common_stats.num_non_missing = 80
    number.num_stats.mean, number.num_stats.std_dev, number.num_stats.max = 12.5, 3.25, 99.0
    for low in range(4):
        number.num_stats.histograms.add(type=1).buckets.add(low_value=low, high_value=low + 1, sample_count=20)
    standard = number.num_stats.histograms.add(type=0)
    for low in range(4):
        standard.buckets.add(low_value=low, high_value=low + 1, sample_count=low * 10)
    text = data.features.add(type=pb.FeatureNameStatistics.STRING)
    text.path.step.append(NASTY)
    text.string_stats.common_stats.num_non_missing = 100
    text.string_stats.unique = 2
    for label, count in (("</svg>" + NASTY, 70), ("b", 30)):
        text.string_stats.rank_histogram.buckets.add(label=label, sample_count=count)
    return pb.DatasetFeatureStatisticsList(datasets=[data]).SerializeToString()


def _drift() -> bytes:
    from tensorflow_metadata.proto.v0 import anomalies_pb2 as pb

    diff = pb.Anomalies()
    info = diff.drift_skew_info.add()
    info.path.step.append(NASTY)
    info.drift_measurements.add(type=pb.DriftSkewInfo.Measurement.L_INFTY, value=0.09, threshold=0.03)
    return diff.SerializeToString()


_REASON = {"feature": NASTY, "split": "train", "reason": "ENUM", "description": f'"{NASTY}" is new', "error": False}


def _entry(challenger: float, champion: float, bounded: bool = True) -> dict[str, Any]:
    gain = challenger - champion
    bounds = (gain - 0.01, gain + 0.01) if bounded else (None, None)
    return {
        "challenger": challenger,
        "champion": champion,
        "gain": {"value": gain, "lower": bounds[0], "upper": bounds[1]},
    }


def _part(name: str, rows: int, gated: bool, *values: float) -> dict[str, Any]:
    metrics = {metric: _entry(*values, gated) for metric in ("auc", "log_loss")}
    return {"slice": name, "rows": rows, "gated": gated, "metrics": metrics}


COMPARISON = {
    "metrics": ["auc", "log_loss"],
    "checks": [{"passed": True, "sentence": "auc is 0.73, which meets the bound."}],
    "champion": {"model_id": 1, "on_span": {"auc": 0.69}},
    "bootstrap": {"confidence": 0.95},
    "min_slice_rows": 500,
    "overall": _part("overall", 5000, True, 0.73, 0.70),
    "slices": [
        _part(f"carrier={NASTY}", 12, False, 0.9, 0.2),
        _part("carrier=AA", 900, True, 0.60, 0.66),
        _part("carrier=UA", 1900, True, 0.71, 0.70),
    ],
}
_TRAINING = {
    "steps": 600,
    "strategy": "single",
    "curve": [{"step": 300, "loss": 0.6}, {"step": 600, "loss": 0.5, "val_loss": 0.55}],
    "step_parts_ms": {"input": 1.0, "compute": 3.0, "communication": None},
    "seconds": {"fit": 9.0, "export": 1.0},
    "staleness": {"0": 10, "1": 30},
    "examples_per_second": 1234.5,
    "hyperparameters": {"units": [16, 8], NASTY: 1},
    "warm_start": {
        "warm": True,
        "reason": "",
        "embeddings": {NASTY: {"tokens": 9, "matched": 7, "fresh": 2, "gone": 1}},
    },
}
_TIMES = {"1x1": {"p50": 0.08, "p99": 0.2, "calls": 9}, "64x1": {"p50": 0.4, "p99": 0.5, "calls": 9}}
_VARIANTS = {
    "chosen": "float16",
    "reason": "",
    "reference": {"auc": 0.73},
    "variants": [
        {
            "variant": "float32",
            "made_for": "comparison",
            "passed": True,
            "bytes": 2000,
            "ratio": 1.0,
            "metrics": {"auc": 0.73},
            "parts": {"weights": 1500, "tables": 300, "graph": 200},
            "latency_ms": _TIMES,
        },
        {
            "variant": "float16",
            "made_for": "publishing",
            "passed": True,
            "bytes": 1000,
            "ratio": 0.5,
            "metrics": {"auc": 0.729},
            "parts": {"weights": 700, "tables": 200, "graph": 100},
            "latency_ms": _TIMES,
            "weights": [{"layer": f"model/{NASTY}", "snr_db": 70.0}],
        },
        {"variant": "int8", "made_for": "publishing", "passed": False, "bytes": None, "reasons": [NASTY]},
    ],
}
