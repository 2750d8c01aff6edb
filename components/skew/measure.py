"""TFDV's skew between two sets of rows, feature by feature. TFDV is imported inside the functions.

A feature is compared by the schema's `skew_comparator`. One without any is compared by a default: the L-infinity
distance (the largest difference of one value's share) where its values are words, the Jensen-Shannon divergence where
they are numbers. Where the schema has comparators, it says what matters, and what a default finds is only shown.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evergreen.components.span_validator.merged_statistics import feature_name

DEFAULT_THRESHOLD = 0.1
# Fewer rows differ from any others by chance alone.
MIN_ROWS = 100
SERVING = "SERVING"
OK, OVER, HIGH, NEVER_SENT, TOO_FEW = "ok", "over", "high", "never sent", "too few rows"
_MEASURES = {
    "L_INFTY": "L-infinity",
    "JENSEN_SHANNON_DIVERGENCE": "Jensen-Shannon",
    "NORMALIZED_ABSOLUTE_DIFFERENCE": "normalized difference",
}


@dataclass(frozen=True)
class Skew:
    """One feature, served against learnt.

    Attributes:
      feature: its name.
      measure: how they are compared.
      value: how far they are apart; None where the feature was never sent.
      threshold: the most that it may be.
      default: whether the threshold is ours, because the schema has none.
      missing_served: the share of served rows without it.
      missing_learnt: the same of the rows that the model learnt from.
      verdict: OK, OVER, HIGH (over a default that does not count), NEVER_SENT or TOO_FEW.
    """

    feature: str
    measure: str
    value: float | None
    threshold: float
    default: bool
    missing_served: float
    missing_learnt: float
    verdict: str

    @property
    def over(self) -> bool:
        """Whether the model is asked for something that it did not learn."""
        return self.verdict in (OVER, NEVER_SENT)


def measure(served: Sequence[bytes], learnt_files: Sequence[str], schema: Any, leave_out: Sequence[str]) -> list[Skew]:
    """Compares rows that were served with rows that were learnt.

    Args:
      served: serialized tf.Example messages, at least one.
      learnt_files: TFRecords of tf.Example, gzip where they end in `.gz`.
      schema: the schema; its features outside of the environment SERVING are left out.
      leave_out: further features to leave out, such as the label.

    Returns:
      A line for each feature of the schema that the learnt rows have, the worst first.
    """
    import tensorflow_data_validation as tfdv
    from tensorflow_metadata.proto.v0 import anomalies_pb2

    from evergreen.components.statistics_gen import executor

    options = tfdv.StatsOptions(schema=schema)
    learnt = executor.compute(list(learnt_files), options)
    with tempfile.TemporaryDirectory() as folder:
        served_statistics = executor.compute([_written(served, folder)], options)
    wanted, defaults = _with_comparators(schema, leave_out)
    anomalies = tfdv.validate_statistics(learnt, wanted, serving_statistics=served_statistics)
    before, after = (_missing(one.datasets[0]) for one in (learnt, served_statistics))
    measured: dict[str, list[tuple[str, Any]]] = {}
    for info in anomalies.drift_skew_info:
        for one in info.skew_measurements:
            name = anomalies_pb2.DriftSkewInfo.Measurement.Type.Name(one.type)
            measured.setdefault(".".join(info.path.step), []).append((_MEASURES.get(name, name), one))
    curated = any(feature.name not in defaults for feature in wanted.feature)
    found = []
    for feature in wanted.feature:
        name = feature.name
        if before.get(name, 1.0) >= 1.0:
            continue  # nobody learnt anything from it
        gone = after.get(name, 1.0)
        if gone >= 1.0:
            verdict = NEVER_SENT if len(served) >= MIN_ROWS else TOO_FEW
            found.append(Skew(name, "-", None, _threshold(feature), name in defaults, 1.0, before[name], verdict))
            continue
        for words, one in measured.get(name, []):
            verdict = (HIGH if curated and name in defaults else OVER) if one.value > one.threshold else OK
            verdict = TOO_FEW if len(served) < MIN_ROWS else verdict
            found.append(Skew(name, words, one.value, one.threshold, name in defaults, gone, before[name], verdict))
    return sorted(found, key=lambda skew: -(2.0 if skew.value is None else skew.value / max(skew.threshold, 1e-9)))


def _written(rows: Sequence[bytes], folder: str) -> str:
    import tensorflow as tf

    path = str(Path(folder) / "served.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for row in rows:
            writer.write(row)
    return path


def _with_comparators(schema: Any, leave_out: Sequence[str]) -> tuple[Any, set[str]]:
    """Returns the schema of what is compared, and the features whose comparator is the default."""
    from tensorflow_metadata.proto.v0 import schema_pb2

    wanted = schema_pb2.Schema()
    wanted.CopyFrom(schema)
    del wanted.feature[:]
    defaults = set()
    for feature in schema.feature:
        if feature.name in leave_out or SERVING in feature.not_in_environment:
            continue
        kept = wanted.feature.add()
        kept.CopyFrom(feature)
        # Presence and domains are gate 1's business; here they would only be anomalies that nobody reads.
        kept.ClearField("presence")
        if not kept.HasField("skew_comparator"):
            defaults.add(kept.name)
            comparator = kept.skew_comparator
            words = kept.type == schema_pb2.BYTES
            one = comparator.infinity_norm if words else comparator.jensen_shannon_divergence
            one.threshold = DEFAULT_THRESHOLD
    return wanted, defaults


def _threshold(feature: Any) -> float:
    comparator = feature.skew_comparator
    kinds = ("infinity_norm", "jensen_shannon_divergence", "normalized_abs_difference")
    return next((getattr(comparator, kind).threshold for kind in kinds if comparator.HasField(kind)), 0.0)


def _missing(dataset: Any) -> dict[str, float]:
    """Returns the share of rows that lack a feature, by its name."""
    rows = max(1, dataset.num_examples)
    shares = {}
    for feature in dataset.features:
        stats = getattr(feature, feature.WhichOneof("stats"))
        shares[feature_name(feature)] = 1 - stats.common_stats.num_non_missing / rows
    return shares
