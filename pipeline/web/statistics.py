"""TFDV's statistics and drift of a span as plain values, read from its files without TFDV."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FILE = "FeatureStats.pb"
_DIFF = "SchemaDiff.pb"
# Gate 1 measures drift on the first of these that has rows.
_SPLITS = ("train", "exam", "validation")
_TOP = 10
_MEASURES = {"L_INFTY": "L∞", "JENSEN_SHANNON_DIVERGENCE": "Jensen-Shannon", "NORMALIZED_ABSOLUTE_DIFFERENCE": "NAD"}


@dataclass(frozen=True)
class Drift:
    """How far a feature's distribution moved from the span before.

    Attributes:
      measure: what was computed, such as `L∞`.
      value: the distance.
      threshold: what the schema allows.
    """

    measure: str
    value: float
    threshold: float

    @property
    def exceeded(self) -> bool:
        """Whether it is more than the schema allows."""
        return self.value > self.threshold


@dataclass(frozen=True)
class Feature:
    """One feature of one split.

    Attributes:
      name: its name.
      kind: `integer`, `float`, `text`, `bytes` or `other`.
      present: rows that have a value.
      missing: share of the rows without one, 0 to 1.
      mean: of numbers, like `deviation`, `smallest`, `median` and `largest`; None for others.
      deviation: standard deviation.
      smallest: the minimum.
      median: the median.
      largest: the maximum.
      distinct: distinct strings; None for numbers.
      bars: the histogram: what each bar holds in words, and its rows.
      drift: against the span before; None where none was measured.
    """

    name: str
    kind: str
    present: int
    missing: float
    mean: float | None = None
    deviation: float | None = None
    smallest: float | None = None
    median: float | None = None
    largest: float | None = None
    distinct: int | None = None
    bars: tuple[tuple[str, float], ...] = ()
    drift: Drift | None = None


@dataclass(frozen=True)
class SpanStatistics:
    """The statistics of a span's largest split.

    Attributes:
      split: which one.
      rows: its rows.
      features: in the order of their names.
    """

    split: str
    rows: int
    features: tuple[Feature, ...]


def read(statistics_uri: str, drift: dict[str, Drift]) -> SpanStatistics | None:
    """Reads an ExampleStatistics artifact.

    Args:
      statistics_uri: the artifact's folder.
      drift: by feature, of `read_drift`.

    Returns:
      The first split with rows of train, exam and validation; None where the files are gone or cannot be read.
    """
    from google.protobuf.message import DecodeError
    from tensorflow_metadata.proto.v0 import statistics_pb2

    for split in _SPLITS:
        try:
            content = Path(statistics_uri, f"Split-{split}", _FILE).read_bytes()
            datasets = statistics_pb2.DatasetFeatureStatisticsList.FromString(content).datasets
        except (OSError, DecodeError):
            continue
        if datasets and datasets[0].num_examples:
            rows = int(datasets[0].num_examples)
            features = (_feature(one, rows, drift) for one in datasets[0].features)
            return SpanStatistics(split, rows, tuple(sorted(features, key=lambda feature: feature.name)))
    return None


def read_drift(anomalies_uri: str, splits: Iterable[str] = _SPLITS) -> dict[str, Drift]:
    """Reads how far each feature drifted, from an ExampleAnomalies artifact.

    Args:
      anomalies_uri: the artifact's folder.
      splits: where to look.

    Returns:
      Drift by feature, for those that the schema sets a comparator for; empty where nothing was compared.
    """
    from google.protobuf.message import DecodeError
    from tensorflow_metadata.proto.v0 import anomalies_pb2

    found = {}
    for split in splits:
        try:
            diff = anomalies_pb2.Anomalies.FromString(Path(anomalies_uri, f"Split-{split}", _DIFF).read_bytes())
        except (OSError, DecodeError):
            continue
        for info in diff.drift_skew_info:
            for measured in info.drift_measurements:
                kind = anomalies_pb2.DriftSkewInfo.Measurement.Type.Name(measured.type)
                name = ".".join(info.path.step)
                found[name] = Drift(_MEASURES.get(kind, kind.lower()), measured.value, measured.threshold)
    return found


def read_verdict(anomalies_uri: str) -> dict[str, Any]:
    """Reads gate 1's verdict.json; empty where it is gone."""
    try:
        found = json.loads(Path(anomalies_uri, "verdict.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _feature(proto: Any, rows: int, drift: dict[str, Drift]) -> Feature:
    name = ".".join(proto.path.step) or proto.name
    kind = proto.WhichOneof("stats")
    if kind == "num_stats":
        return _number(name, proto, rows, drift.get(name))
    if kind == "string_stats":
        return _text(name, proto.string_stats, rows, drift.get(name))
    common = proto.bytes_stats.common_stats if kind == "bytes_stats" else proto.struct_stats.common_stats
    word = "bytes" if kind == "bytes_stats" else "other"
    return Feature(name, word, int(common.num_non_missing), _missing(common, rows), drift=drift.get(name))


def _number(name: str, proto: Any, rows: int, drift: Drift | None) -> Feature:
    stats = proto.num_stats
    # STANDARD (0): bars of equal width; the other is of quantiles, whose bars are all alike.
    standard = next((histogram for histogram in stats.histograms if histogram.type == 0), None)
    bars = (
        tuple((f"{b.low_value:.4g} to {b.high_value:.4g}", b.sample_count) for b in standard.buckets)
        if standard
        else ()
    )
    has = stats.common_stats.num_non_missing > 0
    return Feature(
        name=name,
        kind="integer" if proto.type == 0 else "float",
        present=int(stats.common_stats.num_non_missing),
        missing=_missing(stats.common_stats, rows),
        mean=stats.mean if has else None,
        deviation=stats.std_dev if has else None,
        smallest=stats.min if has else None,
        median=stats.median if has else None,
        largest=stats.max if has else None,
        bars=bars,
        drift=drift,
    )


def _text(name: str, stats: Any, rows: int, drift: Drift | None) -> Feature:
    ranked = [(bucket.label, bucket.sample_count) for bucket in stats.rank_histogram.buckets]
    bars = ranked or [(value.value, value.frequency) for value in stats.top_values]
    return Feature(
        name=name,
        kind="text",
        present=int(stats.common_stats.num_non_missing),
        missing=_missing(stats.common_stats, rows),
        distinct=int(stats.unique),
        bars=tuple(bars[:_TOP]),
        drift=drift,
    )


def _missing(common: Any, rows: int) -> float:
    return max(0.0, 1 - common.num_non_missing / rows) if rows else 0.0
