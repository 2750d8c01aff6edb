"""The serialized rows are, byte for byte, what protobuf writes for the same tf.Example."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from evergreen.components.span_example_gen import tf_example

pytestmark = pytest.mark.tensorflow

ROWS = 500


def column(kind: str, generator: np.random.Generator, is_list: bool) -> pa.Array:
    """Random values with missing ones; strings and lists long enough for lengths of two and three bytes."""

    def value() -> object:
        if kind == "int64":
            return int(generator.choice([0, 1, 127, 128, -1, 2**63 - 1, -(2**63), int(generator.integers(2**40))]))
        if kind == "float32":
            return float(np.float32(generator.normal()))
        return generator.bytes(int(generator.choice([0, 1, 5, 127, 128, 20000], p=[0.2, 0.2, 0.3, 0.14, 0.14, 0.02])))

    def row() -> object:
        if generator.random() < 0.2:
            return None
        return [value() for _ in range(int(generator.choice([0, 1, 2, 40])))] if is_list else value()

    value_type = {"int64": pa.int64(), "float32": pa.float32(), "bytes": pa.large_binary()}[kind]
    return pa.array([row() for _ in range(ROWS)], pa.large_list(value_type) if is_list else value_type)


def by_protobuf(columns: dict[str, pa.Array], row: int) -> bytes:
    from tensorflow.core.example import example_pb2

    example = example_pb2.Example()
    example.features.SetInParent()
    for name, array in columns.items():
        values = array[row].as_py()
        values = values if isinstance(values, list) else [] if values is None else [values]
        if values:
            feature = example.features.feature[name]
            kind = str(array.type)
            lists = {"i": feature.int64_list, "f": feature.float_list, "b": feature.bytes_list}
            key = "i" if "int64" in kind else "f" if "float" in kind else "b"
            lists[key].value.extend(values)
    return example.SerializeToString(deterministic=True)


def test_rows_equal_protobufs_deterministic_serialization() -> None:
    generator = np.random.default_rng(0)
    columns = {
        f"{'é' * (n % 3)}{kind}_{n}_{'x' * (130 if n == 1 else 0)}": column(kind, generator, n % 2 == 0)
        for n in range(4)
        for kind in ("int64", "float32", "bytes")
    }
    serialized = tf_example.serialize(columns).to_pylist()
    assert len(serialized) == ROWS
    for row, record in enumerate(serialized):
        assert record == by_protobuf(columns, row), row


def test_slices_and_batches_without_a_value_or_a_row() -> None:
    columns = {
        "i": pa.array([9, 1, None, 3]).slice(1),
        "l": pa.array([[b"z"], [b"a", b"b"], [], None], pa.large_list(pa.large_binary())).slice(1),
        "n": pa.nulls(3, pa.float32()),
    }
    serialized = tf_example.serialize(columns).to_pylist()
    assert serialized == [by_protobuf(columns, row) for row in range(3)]
    assert tf_example.serialize({"i": pa.array([], pa.int64())}).to_pylist() == []


def test_a_column_of_a_type_that_was_not_converted_is_refused() -> None:
    with pytest.raises(ValueError, match="Expected int64, float32 or large_binary"):
        tf_example.serialize({"x": pa.array([1.0])})
