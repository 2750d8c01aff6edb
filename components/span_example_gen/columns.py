"""Arrow columns to the three kinds of values that a tf.Example holds: INT, FLOAT and BYTES.

| Arrow                                   | kind  | value                                            |
|-----------------------------------------|-------|--------------------------------------------------|
| boolean, integers                       | INT   | the number; true is 1                            |
| timestamp                               | INT   | whole seconds since 1970, UTC; rounded down      |
| floats, decimals                        | FLOAT | the number, stored in 32 bits; NaN is missing    |
| string, binary                          | BYTES | the bytes                                        |
| date                                    | BYTES | ISO 8601, such as `2013-01-31`                   |
| dictionary                              | that of its values                                       |
| list of one of these                    | that of its values; nulls in it are left out; an empty one is missing |
| null                                    | a feature that no row has                                |

NaN is missing because pandas writes it for missing numbers, and because no model trains on it. Anything else (struct,
map, time of day, nested lists) is refused. Imports neither TensorFlow nor protobuf.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

INT, FLOAT, BYTES = "INT", "FLOAT", "BYTES"  # the names that schema.pbtxt uses
MISSING = ""  # the kind of a column without a single value
TYPES = {INT: pa.int64(), FLOAT: pa.float64(), BYTES: pa.large_binary()}
PANDAS_INDEX = re.compile(r"__index_level_\d+__")


class BadValue(ValueError):
    """A value that its column cannot hold.

    Attributes:
      index: its row in the batch.
      value: the value, as text.
      expected: what the column holds.
    """

    def __init__(self, index: int, value: Any, expected: str):
        super().__init__(f"{value!r} is not {expected}")
        self.index = index
        self.value = value
        self.expected = expected


def kind_of(data_type: pa.DataType) -> str | None:
    """Returns the kind of a column of that type, or None where a tf.Example cannot hold it."""
    if is_list(data_type):
        return None if is_list(data_type.value_type) else kind_of(data_type.value_type)
    if pa.types.is_dictionary(data_type):
        return kind_of(data_type.value_type)
    if pa.types.is_null(data_type):
        return MISSING
    if pa.types.is_boolean(data_type) or pa.types.is_integer(data_type) or pa.types.is_timestamp(data_type):
        return INT
    if pa.types.is_floating(data_type) or pa.types.is_decimal(data_type):
        return FLOAT
    if is_text(data_type) or pa.types.is_fixed_size_binary(data_type) or pa.types.is_date(data_type):
        return BYTES
    return None


def is_list(data_type: pa.DataType) -> bool:
    """Whether a row holds a list."""
    return pa.types.is_list(data_type) or pa.types.is_large_list(data_type) or pa.types.is_fixed_size_list(data_type)


def is_text(data_type: pa.DataType) -> bool:
    """Whether a row holds a string of characters or bytes."""
    return (
        pa.types.is_string(data_type)
        or pa.types.is_large_string(data_type)
        or pa.types.is_binary(data_type)
        or pa.types.is_large_binary(data_type)
    )


def common_kind(one: str, other: str) -> str | None:
    """Returns the kind that holds the values of both, or None where there is none."""
    kinds = {one, other} - {MISSING}
    if len(kinds) < 2:
        return kinds.pop() if kinds else MISSING
    return FLOAT if kinds == {INT, FLOAT} else None


def target_kind(found: str, wanted: str | None) -> str:
    """Returns the kind to convert a column to.

    Args:
      found: what the files hold.
      wanted: the schema's type, None where it has no such column. Numbers become what the schema says (a column of
        whole numbers is FLOAT in a file in which one is missing); any other clash stays for the validation to report.
    """
    return wanted if wanted and {found, wanted} == {INT, FLOAT} else found


def convert(array: pa.Array, kind: str) -> pa.Array:
    """Converts a column to values of a kind.

    Args:
      array: a column of n rows of any type that `kind_of` knows.
      kind: what it becomes; the column's own kind, or INT and FLOAT for one another.

    Returns:
      n rows of int64, float64 or large_binary, or a large_list of these; null where there is no value.

    Raises:
      BadValue: a number does not fit.
    """
    if not is_list(array.type):
        return _convert_flat(array, kind)
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    rows = np.repeat(np.arange(len(array)), lengths)
    try:
        values = _convert_flat(_elements(array), kind)
    except BadValue as error:
        raise BadValue(int(rows[error.index]), error.value, error.expected) from None
    present = values.is_valid().to_numpy(zero_copy_only=False)
    offsets = np.zeros(len(array) + 1, np.int64)
    np.cumsum(np.bincount(rows[present], minlength=len(array)), out=offsets[1:])
    return pa.LargeListArray.from_arrays(pa.array(offsets), values.drop_null())


def single_values(array: pa.Array) -> pa.Array | None:
    """Unwraps a column that was converted: one value a row, null where there is none.

    Returns:
      n rows of int64, float64 or large_binary, or None where a row has several values.
    """
    if not is_list(array.type):
        return array
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    if lengths.max(initial=0) > 1:
        return None
    positions = np.cumsum(lengths) - 1
    return array.flatten().take(pa.array(positions, pa.int64(), mask=lengths == 0))


def narrow(array: pa.Array) -> pa.Array:
    """Gives float64 the 32 bits in which a tf.Example stores it; other columns stay."""
    if pa.types.is_float64(array.type):
        return pc.cast(array, pa.float32(), safe=False)
    if is_list(array.type) and pa.types.is_float64(array.type.value_type):
        return pc.cast(array, pa.large_list(pa.float32()), safe=False)
    return array


def _elements(array: pa.Array) -> pa.Array:
    """The elements of all rows, also of fixed-size lists, whose null rows hold elements too."""
    if pa.types.is_fixed_size_list(array.type):
        array = array.filter(array.is_valid())
    return array.flatten()


def _convert_flat(array: pa.Array, kind: str) -> pa.Array:
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), TYPES.get(kind, pa.int64()))
    if pa.types.is_timestamp(array.type):
        array = _epoch_seconds(array)
    elif pa.types.is_date(array.type):
        array = array.cast(pa.date32()).cast(pa.string())
    if kind == BYTES:
        binary = pa.large_string() if pa.types.is_string(array.type) else pa.large_binary()
        return array.cast(binary).cast(pa.large_binary())
    if kind == FLOAT:
        if pa.types.is_boolean(array.type):
            array = array.cast(pa.int64())
        elif pa.types.is_float16(array.type):
            array = pa.array(array.to_numpy(zero_copy_only=False).astype(np.float64), from_pandas=True)
        floats = pc.cast(array, pa.float64(), safe=False)
        return pc.if_else(pc.is_nan(floats), pa.scalar(None, pa.float64()), floats)
    if kind == INT:
        return _integers(array)
    raise ValueError(f"Invalid value for argument `kind`. Expected INT, FLOAT or BYTES. Received: {kind!r}")


def _epoch_seconds(array: pa.Array) -> pa.Array:
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[array.type.unit]
    ticks = array.cast(pa.int64())
    values = pc.fill_null(ticks, 0).to_numpy(zero_copy_only=False) // per_second
    return pa.array(values, pa.int64(), mask=array.is_null().to_numpy(zero_copy_only=False))


def _integers(array: pa.Array) -> pa.Array:
    if pa.types.is_floating(array.type) or pa.types.is_decimal(array.type):
        array = _convert_flat(array, FLOAT)
    try:
        return pc.cast(array, pa.int64())
    except pa.ArrowInvalid:
        for index, value in enumerate(array.to_pylist()):
            if value is not None and (value != value // 1 or not -(2**63) <= value < 2**63):
                raise BadValue(index, value, "a whole number of 64 bits") from None
        raise
