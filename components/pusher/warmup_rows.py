"""Rows for warm-up requests: made from a schema's domains, so that no person's data is published, or read from a split.

A row is `{feature: [value, ...]}` with bytes, ints or floats.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from evergreen.components.evaluator.predict import split_files

Row = dict[str, list[Any]]

SERVING_ENVIRONMENT = "SERVING"
_UNUSED_STAGES = ("PLANNED", "ALPHA", "DEPRECATED", "DISABLED", "DEBUG_ONLY")
_LARGEST, _SMALLEST = 2**63 - 1, -(2**63)


def from_schema(schema: Any, count: int) -> list[Row]:
    """Makes rows that a request may look like: each value lies in its feature's domain, spread over it row by row.

    A feature without a domain gets 0, 1, 0, 1, ... or an empty text. What a request does not carry, such as the label,
    is left out where the schema says so (`not_in_environment: "SERVING"`).

    Args:
      schema: a `schema_pb2.Schema`.
      count: how many rows.

    Returns:
      The rows, the same ones each time.
    """
    domains = {domain.name: list(domain.value) for domain in schema.string_domain}
    features = [feature for feature in schema.feature if _is_served(feature)]
    return [
        {feature.name: [_value(feature, domains, row)] * _length(feature) for feature in features}
        for row in range(count)
    ]


def from_split(examples_uri: str, split: str, count: int) -> list[Row]:
    """Reads the first rows of a split.

    Args:
      examples_uri: the Examples artifact's URI.
      split: the split's name.
      count: how many rows at most.

    Returns:
      The rows.
    """
    import tensorflow as tf

    return [
        _read(tf.train.Example.FromString(record))
        for record in itertools.islice(_records(tf, examples_uri, split), count)
    ]


def to_example(row: Mapping[str, list[Any]]) -> bytes:
    """Serializes a row as tf.Example; a feature without values is left out."""
    import tensorflow as tf

    example = tf.train.Example()
    for name, values in row.items():
        if not values:
            continue
        feature = example.features.feature[name]
        if isinstance(values[0], bytes):
            feature.bytes_list.value.extend(values)
        elif isinstance(values[0], int):
            feature.int64_list.value.extend(values)
        else:
            feature.float_list.value.extend(values)
    return example.SerializeToString(deterministic=True)


def _records(tf: Any, examples_uri: str, split: str) -> Iterator[bytes]:
    for file in split_files(examples_uri, split):
        compression = "GZIP" if file.endswith(".gz") else ""
        yield from tf.data.TFRecordDataset(file, compression_type=compression).as_numpy_iterator()


def _read(example: Any) -> Row:
    row = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        row[name] = list(getattr(feature, kind).value) if kind else []
    return row


def _is_served(feature: Any) -> bool:
    stage = (
        feature.DESCRIPTOR.fields_by_name["lifecycle_stage"].enum_type.values_by_number[feature.lifecycle_stage].name
    )
    return SERVING_ENVIRONMENT not in feature.not_in_environment and stage not in _UNUSED_STAGES


def _length(feature: Any) -> int:
    """Returns how many values a row has: the shape's, or as few as are allowed, but one at least."""
    if feature.HasField("shape"):
        length = 1
        for dimension in feature.shape.dim:
            length *= dimension.size
        return max(length, 1)
    return max(int(feature.value_count.min), 1)


def _value(feature: Any, domains: Mapping[str, list[str]], row: int) -> bytes | int | float:
    kind = feature.DESCRIPTOR.fields_by_name["type"].enum_type.values_by_number[feature.type].name
    if kind == "BYTES":
        return _text(feature, domains, row).encode("utf-8")
    if kind == "FLOAT":
        return _spread(feature.float_domain, row, -1e30, 1e30)
    return int(_spread(feature.int_domain, row, _SMALLEST, _LARGEST))


def _text(feature: Any, domains: Mapping[str, list[str]], row: int) -> str:
    if feature.HasField("bool_domain"):
        return str(feature.bool_domain.true_value if row % 2 else feature.bool_domain.false_value)
    values = list(feature.string_domain.value) or domains.get(feature.domain, [])
    return values[row % len(values)] if values else ""


def _spread(domain: Any, row: int, smallest: float, largest: float) -> Any:
    """Walks from the domain's least value upwards in eighths; an open end counts as one unit away from the other."""
    low: Any = domain.min if domain.HasField("min") and domain.min > smallest else None
    high: Any = domain.max if domain.HasField("max") and domain.max < largest else None
    if low is None and high is None:
        return row % 2
    low = high - 1 if low is None else low
    high = low + 1 if high is None else high
    return low + (high - low) * (row % 8) / 8 if isinstance(low, float) else low + (high - low) * (row % 8) // 8
