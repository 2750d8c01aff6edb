"""TensorProto to NumPy and back, without TensorFlow: what gRPC requests and answers carry.

String tensors are object arrays of bytes. Nothing is trusted: a shape that the values do not fill is refused before
memory is taken for it.
"""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np

# DataType numbers of tensorflow/core/framework/types.proto: the NumPy type, and the field that holds values.
_TYPES: dict[int, tuple[Any, str]] = {
    1: (np.float32, "float_val"),
    2: (np.float64, "double_val"),
    3: (np.int32, "int_val"),
    4: (np.uint8, "int_val"),
    5: (np.int16, "int_val"),
    6: (np.int8, "int_val"),
    7: (np.object_, "string_val"),
    8: (np.complex64, "scomplex_val"),
    9: (np.int64, "int64_val"),
    10: (np.bool_, "bool_val"),
    14: (ml_dtypes.bfloat16, "half_val"),
    17: (np.uint16, "int_val"),
    18: (np.complex128, "dcomplex_val"),
    19: (np.float16, "half_val"),
    22: (np.uint32, "uint32_val"),
    23: (np.uint64, "uint64_val"),
}
_STRING = 7
_DTYPES = {number: np.dtype(kind) for number, (kind, _) in _TYPES.items()}
_NUMBERS = {dtype: number for number, dtype in _DTYPES.items()}
# A tensor may name one value for all of its elements; this many bytes of them are believed.
_MAX_BYTES = 1 << 30


def dtype_of(number: int) -> Any:
    """Returns the NumPy dtype of a DataType number; None for one that NumPy cannot hold."""
    return _DTYPES.get(number)


def to_array(proto: Any) -> np.ndarray:
    """Reads a TensorProto.

    Raises:
      ValueError: its type is not known, its shape is not whole, or its values do not fit the shape.
    """
    if proto.dtype not in _TYPES:
        raise ValueError(f"data type {proto.dtype}")
    kind, values = _TYPES[proto.dtype]
    shape = [one.size for one in proto.tensor_shape.dim]
    size = math.prod(shape)
    if proto.tensor_shape.unknown_rank or any(one < 0 for one in shape):
        raise ValueError("shape is not whole")
    if proto.tensor_content:
        if proto.dtype == _STRING:
            raise ValueError("strings in tensor_content")
        return np.frombuffer(proto.tensor_content, kind).reshape(shape)
    return _fill(_values(getattr(proto, values), kind), size).reshape(shape)


def to_proto(array: np.ndarray, proto: Any) -> None:
    """Writes an array into an empty TensorProto, into the typed fields as TensorFlow Serving does.

    Raises:
      ValueError: no DataType holds the array's dtype.
    """
    number = _NUMBERS.get(array.dtype)
    if number is None:
        raise ValueError(f"dtype {array.dtype}")
    proto.dtype = number
    for size in array.shape:
        proto.tensor_shape.dim.add().size = size
    field = _TYPES[number][1]
    flat = array.reshape(-1)
    if field == "half_val":
        flat = flat.view(np.uint16)
    elif number in (8, 18):
        flat = np.ascontiguousarray(flat).view(np.float32 if number == 8 else np.float64)
    values = flat.tolist()
    if number == _STRING:
        values = [one if isinstance(one, bytes) else str(one).encode() for one in values]
    getattr(proto, field).extend(values)


def _values(values: Any, kind: Any) -> np.ndarray:
    if kind is np.object_:
        made = np.empty(len(values), np.object_)
        made[:] = list(values)
        return made
    if kind in (np.float16, ml_dtypes.bfloat16):
        return np.array(values, np.uint16).view(kind)
    if kind in (np.complex64, np.complex128):
        return np.array(values, np.float32 if kind is np.complex64 else np.float64).view(kind)
    return np.array(values, np.int64 if kind in (np.int8, np.int16, np.uint8, np.uint16) else kind).astype(kind)


def _fill(values: np.ndarray, size: int) -> np.ndarray:
    """Repeats the last value, as TensorFlow does where a tensor names fewer values than its shape has elements."""
    if len(values) == size:
        return values
    if len(values) > size or len(values) == 0:
        raise ValueError(f"{len(values)} values for {size} elements")
    if size * values.dtype.itemsize > _MAX_BYTES:
        raise ValueError(f"{size} elements are too many")
    return np.concatenate([values, np.repeat(values[-1:], size - len(values))])
