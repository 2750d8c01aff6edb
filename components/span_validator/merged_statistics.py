"""Statistics of a whole span from those of its splits, as far as the validation against a schema reads them.

TFDV cannot merge statistics of different rows once they are written. What its validation looks at can be: numbers of
rows and values, smallest and largest values, and how often each string occurs. Histograms cannot and are left out
(drift is measured on one split). Takes and returns TFDV's protos, and imports none of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

_MERGEABLE = ("num_stats", "string_stats", "bytes_stats")


def merge(splits: Sequence[Any]) -> tuple[Any, list[str]]:
    """Merges the statistics of splits that have no row in common.

    Args:
      splits: DatasetFeatureStatistics, one a split, at least one.

    Returns:
      The DatasetFeatureStatistics of all rows, and the names of the features that it leaves out, because their type
      differs between the splits, or they have statistics of a kind that is not merged.
    """
    merged = type(splits[0])()
    merged.num_examples = sum(split.num_examples for split in splits)
    merged.weighted_num_examples = sum(split.weighted_num_examples for split in splits)
    by_name: dict[str, list[Any]] = {}
    for split in splits:
        for feature in split.features:
            by_name.setdefault(feature_name(feature), []).append(feature)
    divided = []
    for name, features in by_name.items():
        if _can_merge(features):
            merged.features.append(_merge_feature(features, merged.num_examples))
        else:
            divided.append(name)
    return merged, divided


def feature_name(feature: Any) -> str:
    """Returns the name by which TFDV's anomalies know a feature."""
    return ".".join(feature.path.step) if feature.path.step else feature.name


def _can_merge(features: Sequence[Any]) -> bool:
    kinds = {(feature.type, feature.WhichOneof("stats")) for feature in features}
    return len(kinds) == 1 and kinds.pop()[1] in _MERGEABLE and not any(feature.custom_stats for feature in features)


def _merge_feature(features: Sequence[Any], rows: int) -> Any:
    first = features[0]
    merged = type(first)()
    merged.type = first.type
    merged.path.CopyFrom(first.path)
    if not first.path.step:
        merged.name = first.name
    kind = first.WhichOneof("stats")
    target, parts = getattr(merged, kind), [getattr(feature, kind) for feature in features]
    _merge_common(target.common_stats, [part.common_stats for part in parts], rows)
    filled = [part for part in parts if part.common_stats.tot_num_values] or parts[:1]
    {"num_stats": _merge_numbers, "string_stats": _merge_strings, "bytes_stats": _merge_bytes}[kind](target, filled)
    return merged


def _merge_common(target: Any, parts: Sequence[Any], rows: int) -> None:
    target.num_non_missing = sum(part.num_non_missing for part in parts)
    target.num_missing = rows - target.num_non_missing
    present = [part for part in parts if part.num_non_missing] or parts[:1]
    target.min_num_values = min(part.min_num_values for part in present)
    target.max_num_values = max(part.max_num_values for part in present)
    target.tot_num_values = sum(part.tot_num_values for part in parts)
    target.avg_num_values = target.tot_num_values / max(1, target.num_non_missing)


def _merge_numbers(target: Any, parts: Sequence[Any]) -> None:
    values = [part.common_stats.tot_num_values for part in parts]
    target.min = min(part.min for part in parts)
    target.max = max(part.max for part in parts)
    target.num_zeros = sum(part.num_zeros for part in parts)
    target.mean = sum(part.mean * n for part, n in zip(parts, values, strict=True)) / max(1, sum(values))
    # The validation asks the first histogram for NaN; the buckets cannot be merged.
    histogram = target.histograms.add()
    histogram.num_nan = sum(part.histograms[0].num_nan for part in parts if part.histograms)
    histogram.num_undefined = sum(part.histograms[0].num_undefined for part in parts if part.histograms)


def _merge_strings(target: Any, parts: Sequence[Any]) -> None:
    counts: Counter[str] = Counter()
    for part in parts:
        for bucket in part.rank_histogram.buckets:
            counts[bucket.label] += int(bucket.sample_count)
    values = [part.common_stats.tot_num_values for part in parts]
    # Exact where the histograms list every value; else the splits' largest is what is known to be there.
    target.unique = max(len(counts), *(part.unique for part in parts))
    target.avg_length = sum(part.avg_length * n for part, n in zip(parts, values, strict=True)) / max(1, sum(values))
    target.invalid_utf8_count = sum(part.invalid_utf8_count for part in parts)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    for rank, (label, count) in enumerate(ranked):
        target.rank_histogram.buckets.add(low_rank=rank, high_rank=rank, label=label, sample_count=count)
    shown = max((len(part.top_values) for part in parts), default=0)
    for label, count in ranked[:shown]:
        target.top_values.add(value=label, frequency=count)


def _merge_bytes(target: Any, parts: Sequence[Any]) -> None:
    values = [part.common_stats.tot_num_values for part in parts]
    target.unique = max(part.unique for part in parts)
    target.avg_num_bytes = sum(p.avg_num_bytes * n for p, n in zip(parts, values, strict=True)) / max(1, sum(values))
    target.min_num_bytes = min(part.min_num_bytes for part in parts)
    target.max_num_bytes = max(part.max_num_bytes for part in parts)
    target.max_num_bytes_int = max(part.max_num_bytes_int for part in parts)
