"""NumPy arrays as TensorFlow's tensor messages and back, without TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np

from evergreen.components.model_server import messages

STRING = 7
# TensorFlow's number of a data type: its name in REST's metadata, NumPy's type, and the field of its values.
_TYPES: dict[int, tuple[str, Any, str]] = {
    1: ("DT_FLOAT", np.float32, "float_val"),
    2: ("DT_DOUBLE", np.float64, "double_val"),
    3: ("DT_INT32", np.int32, "int_val"),
    4: ("DT_UINT8", np.uint8, "int_val"),
    5: ("DT_INT16", np.int16, "int_val"),
    6: ("DT_INT8", np.int8, "int_val"),
    STRING: ("DT_STRING", np.object_, "string_val"),
    9: ("DT_INT64", np.int64, "int64_val"),
    10: ("DT_BOOL", np.bool_, "bool_val"),
    17: ("DT_UINT16", np.uint16, "int_val"),
    19: ("DT_HALF", np.float16, "half_val"),
    22: ("DT_UINT32", np.uint32, "uint32_val"),
    23: ("DT_UINT64", np.uint64, "uint64_val"),
}
_NUMBERS = {np.dtype(kind): number for number, (_, kind, _) in _TYPES.items()}


def named_type(name: str) -> np.dtype | None:
    """Returns NumPy's type of a data type by its name in REST's metadata; None where NumPy has none.

    Args:
      name: such as `DT_FLOAT`.
    """
    return next((np.dtype(kind) for one, kind, _ in _TYPES.values() if one == name), None)


def numpy_type(number: int) -> np.dtype:
    """Returns NumPy's type of a data type; object, of bytes, for strings.

    Args:
      number: TensorFlow's number of it.

    Raises:
      ValueError: there is none.
    """
    if number not in _TYPES:
        raise ValueError(f"a tensor of TensorFlow's data type {number} has no counterpart in NumPy")
    return np.dtype(_TYPES[number][1])


def to_proto(array: np.ndarray) -> Any:
    """Returns an array as a TensorProto.

    Args:
      array: of any shape; numbers, bools, bytes, or str, which is sent as UTF-8.

    Raises:
      ValueError: TensorFlow has no such type.
    """
    array = np.asarray(array)
    tensor = messages.TensorProto()
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    if array.dtype.kind in "OSU":
        tensor.dtype = STRING
        tensor.string_val.extend(_bytes(value) for value in array.reshape(-1).tolist())
        return tensor
    number = _NUMBERS.get(array.dtype.newbyteorder("="))
    if number is None:
        raise ValueError(f"an array of type {array.dtype} cannot be sent")
    tensor.dtype = number
    tensor.tensor_content = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    return tensor


def to_array(tensor: Any) -> np.ndarray:
    """Returns a TensorProto as an array; strings as an object array of bytes.

    Raises:
      ValueError: the type has no counterpart, or the values do not fill the shape.
    """
    dtype = numpy_type(tensor.dtype)
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if tensor.tensor_content:
        return np.frombuffer(tensor.tensor_content, dtype.newbyteorder("<")).astype(dtype).reshape(shape)
    given = list(getattr(tensor, _TYPES[tensor.dtype][2]))
    values = np.empty(len(given), dtype)
    if dtype == np.float16:
        values = np.array(given, np.uint16).view(np.float16)
    else:
        values[:] = given
    count = int(np.prod(shape, dtype=np.int64))
    if 0 < len(values) < count:
        # Equal values at the end may be left out.
        values = np.concatenate([values, np.repeat(values[-1:], count - len(values))])
    return values.reshape(shape)


def _bytes(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    raise ValueError(f"an array of strings holds {value!r}")
