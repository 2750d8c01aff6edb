"""Arrow columns become INT, FLOAT and BYTES, with everything that may be missing."""

from __future__ import annotations

import datetime
import decimal

import numpy as np
import pyarrow as pa
import pytest

from evergreen.components.span_example_gen import columns

DAY = datetime.date(2013, 1, 31)
BEFORE_1970 = datetime.datetime(1969, 12, 31, 23, 59, 59, 500000)


@pytest.mark.parametrize(
    ("array", "kind", "values"),
    [
        (pa.array([1, None, 255], pa.uint8()), "INT", [1, None, 255]),
        (pa.array([True, None, False]), "INT", [1, None, 0]),
        (pa.array([1.5, float("nan"), None]), "FLOAT", [1.5, None, None]),
        (pa.array(np.array([1.5, np.nan], np.float16)), "FLOAT", [1.5, None]),
        (pa.array([decimal.Decimal("1.25"), None]), "FLOAT", [1.25, None]),
        (pa.array(["é", None, ""]), "BYTES", ["é".encode(), None, b""]),
        (pa.array([b"\xff", None]), "BYTES", [b"\xff", None]),
        (pa.array([b"abc"], pa.binary(3)), "BYTES", [b"abc"]),
        (pa.array(["a", None, "a"]).dictionary_encode(), "BYTES", [b"a", None, b"a"]),
        (pa.array([DAY, None]), "BYTES", [b"2013-01-31", None]),
        (pa.array([DAY]).cast(pa.date64()), "BYTES", [b"2013-01-31"]),
        (pa.array([BEFORE_1970, None]), "INT", [-1, None]),
        (pa.array([datetime.datetime(2013, 1, 1)], pa.timestamp("ns", "UTC")), "INT", [1356998400]),
        (pa.array([datetime.datetime(2013, 1, 1)], pa.timestamp("ms", "America/New_York")), "INT", [1356998400]),
        (pa.array([[1, 2], None, [], [3, None]]), "INT", [[1, 2], [], [], [3]]),
        (pa.array([["a"], ["b", "c"]]), "BYTES", [[b"a"], [b"b", b"c"]]),
        (pa.array([[1.0, 2.0], None, [3.0, None]], pa.list_(pa.float32(), 2)), "FLOAT", [[1, 2], [], [3]]),
        (pa.array([[1, 2], None, [], [3, None]]).slice(2, 2), "INT", [[], [3]]),
        (pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32(), 2)).slice(1, 2), "FLOAT", [[], [3, 4]]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_a_column_becomes_values_of_its_kind(array: pa.Array, kind: str, values: list) -> None:
    assert columns.kind_of(array.type) == kind
    assert columns.convert(array, kind).to_pylist() == values


@pytest.mark.parametrize(
    "data_type",
    [
        pa.struct([("a", pa.int64())]),
        pa.map_(pa.string(), pa.int64()),
        pa.list_(pa.list_(pa.int64())),
        pa.time32("s"),
        pa.duration("s"),
    ],
    ids=str,
)
def test_types_that_a_tf_example_cannot_hold_have_no_kind(data_type: pa.DataType) -> None:
    assert columns.kind_of(data_type) is None


def test_a_column_of_nulls_is_of_no_kind_and_goes_with_every_other() -> None:
    assert columns.kind_of(pa.null()) == columns.MISSING
    assert columns.common_kind(columns.MISSING, "BYTES") == "BYTES"
    assert columns.common_kind("INT", "FLOAT") == "FLOAT"
    assert columns.common_kind("INT", "BYTES") is None


def test_whole_numbers_stored_as_floats_become_what_the_schema_says() -> None:
    assert columns.target_kind("FLOAT", "INT") == "INT"
    assert columns.target_kind("INT", "FLOAT") == "FLOAT"
    assert columns.convert(pa.array([1.0, None, float("nan"), 3.0]), "INT").to_pylist() == [1, None, None, 3]


def test_a_clash_of_number_and_string_stays_for_the_validation() -> None:
    assert columns.target_kind("BYTES", "INT") == "BYTES"
    assert columns.target_kind("INT", "BYTES") == "INT"
    assert columns.target_kind("INT", None) == "INT"


@pytest.mark.parametrize("values", [pa.array([1.0, 2.5]), pa.array([0.0, 1e300]), pa.array([1, 2**63], pa.uint64())])
def test_a_number_that_is_no_int64_is_named_with_its_row(values: pa.Array) -> None:
    with pytest.raises(columns.BadValue) as caught:
        columns.convert(values, "INT")
    assert caught.value.index == 1
    assert caught.value.value == values[1].as_py()


def test_a_bad_value_in_a_list_is_counted_by_rows() -> None:
    with pytest.raises(columns.BadValue) as caught:
        columns.convert(pa.array([[1.0, 2.0], [], [3.0, 4.5]]), "INT")
    assert caught.value.index == 2


def test_single_values_unwraps_lists_of_one_and_refuses_longer_ones() -> None:
    lists = columns.convert(pa.array([[1], None, [3]]), "INT")
    assert columns.single_values(lists).to_pylist() == [1, None, 3]
    assert columns.single_values(columns.convert(pa.array([[1, 2]]), "INT")) is None


def test_floats_are_stored_in_32_bits() -> None:
    assert columns.narrow(pa.array([0.1])).type == pa.float32()
    assert columns.narrow(pa.array([[0.1]], pa.large_list(pa.float64()))).type == pa.large_list(pa.float32())
    assert columns.narrow(pa.array([1])).type == pa.int64()
