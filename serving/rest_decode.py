"""The bodies of REST requests: JSON to arrays and examples, as TensorFlow Serving reads it. Pure.

A fast path lets NumPy read a whole list at once and gives up at anything unusual; a careful one goes value by value and
finds the words for what is wrong.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from evergreen.serving.errors import ServingError, invalid, unimplemented
from evergreen.serving.rest_encode import COLUMNAR, ROW
from evergreen.serving.tensors import dtype_of

_MAX_RANK = 32  # of a NumPy array
_SHOWN = 300  # characters of a value in an error
_KINDS = {type(None): "Null", bool: "", dict: "Object", list: "Array", str: "String", int: "Number", float: "Number"}
_NAMES = {"bool": "bool", "object": "string", "float32": "float", "float64": "double"}
_LARGEST = {np.dtype(one): float(np.finfo(one).max) for one in (np.float32, np.float64)}
_EXACT = {np.dtype(np.float32): 2**24 - 1, np.dtype(np.float64): 2**53 - 1}
_JSON_TYPES = frozenset(
    map(
        np.dtype,
        ("float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint32", "uint64", "bool", "object"),
    )
)


def parse(body: bytes) -> dict[str, Any]:
    """Parses a request's body.

    Raises:
      ServingError: INVALID_ARGUMENT for what is no JSON object.
    """
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    try:
        made = _loads(body)
    except json.JSONDecodeError as error:
        raise invalid(f"JSON Parse error: {error.msg} at offset: {error.pos}") from None
    except UnicodeDecodeError as error:
        raise invalid(f"JSON Parse error: Invalid encoding in string. at offset: {error.start}") from None
    except (ValueError, RecursionError):
        raise invalid("JSON Parse error: Invalid value. at offset: 0") from None
    if not isinstance(made, dict):
        raise invalid(f"JSON Value: {_shown(made)} Is not object")
    return made


def _loads(body: bytes) -> Any:
    """Parses by the fast parser; what that refuses (NaN, infinities, a byte order mark, no JSON at all) by Python's."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return json.loads(body)


def signature_of(document: Mapping[str, Any]) -> str:
    """Returns the signature that a body names; empty for none.

    Raises:
      ServingError: INVALID_ARGUMENT where it is no string.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {_shown(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return name


def decode_predict(document: Mapping[str, Any], inputs: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], str]:
    """Makes the arrays of a Predict body.

    Args:
      document: the body: `instances` (by row) or `inputs` (columnar).
      inputs: the signature's inputs: TensorInfo by name.

    Returns:
      The arrays by name (strings as object arrays of bytes), and ROW or COLUMNAR.

    Raises:
      ServingError: INVALID_ARGUMENT, with what is wrong and where.
    """
    if "instances" in document:
        rows = document["instances"]
        if "inputs" in document:
            raise invalid(
                f"JSON Value: {_shown(document)} Not formatted correctly expecting only one of 'inputs' or "
                "'instances' keys to exist "
            )
        if not isinstance(rows, list):
            raise invalid(f"JSON Value: {_shown(document)} Excepting 'instances' to be an list/array")
        if not rows:
            raise invalid(f"JSON Value: {_shown(document)} No values in 'instances' array")
        return _rows(rows, inputs), ROW
    if "inputs" not in document:
        raise invalid("Missing 'inputs' or 'instances' key")
    return _columns(document["inputs"], inputs), COLUMNAR


def fill_examples(document: Mapping[str, Any], method: str, request: Any) -> None:
    """Writes the examples of a Classify or Regress body into the request's proto.

    Raises:
      ServingError: INVALID_ARGUMENT, with what is wrong.
    """
    request.model_spec.signature_name = signature_of(document)
    into = request.input.example_list
    if "context" in document:
        _fill_example(document["context"], request.input.example_list_with_context.context)
        into = request.input.example_list_with_context
    if "examples" not in document:
        raise invalid(
            f"JSON Value: {_shown(document)} When method is {method}, key 'examples' is expected and was not found"
        )
    rows = document["examples"]
    if not isinstance(rows, list):
        raise invalid(f"JSON Value: {_shown(document)} Expecting 'examples' value to be an list/array")
    if not rows:
        raise invalid(f"JSON Value: {_shown(document)} 'examples' value is an empty array")
    for row in rows:
        _fill_example(row, into.examples.add())


def _rows(rows: list[Any], inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    if not isinstance(rows[0], dict) and len(inputs) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    objects = _is_object(rows[0])
    for position, row in enumerate(rows):
        if _is_object(row) == objects:
            continue
        if objects:
            raise invalid(f"Expecting object but got list at item {position} of input list")
        raise invalid(f"Expecting value/list but got object at item {position} of input list")
    if not objects:
        (name,) = inputs
        return {name: _column(rows, inputs[name].dtype, "")}
    names = sorted(inputs)
    for position, row in enumerate(rows):
        for name in row:
            if name not in inputs:
                raise invalid(
                    f"Failed to process element: {position} key: {name} of 'instances' list. Error: "
                    f"INVALID_ARGUMENT: JSON object: does not have named input: {name}"
                )
        if len(row) != len(names):
            raise invalid(
                f"Failed to process element: {position} of 'instances' list. JSON object: {_shown(row)} keys must be "
                f"equal to: {','.join(names)}"
            )
    return {name: _column([row[name] for row in rows], inputs[name].dtype, f" key: {name}") for name in names}


def _columns(value: Any, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    if not _is_object(value):
        if len(inputs) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        (name,) = inputs
        return {name: _tensor(value, inputs[name].dtype)}
    for name in inputs:
        if name not in value:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: _tensor(value[name], info.dtype) for name, info in inputs.items()}


def _column(values: list[Any], number: int, where: str) -> np.ndarray:
    """Makes one array of a value for each row; the rows must agree in shape."""
    dtype = _json_dtype(number, values)
    made = _fast(values, dtype)
    if made is not None:
        return made
    arrays: list[np.ndarray] = []
    for position, value in enumerate(values):
        try:
            array = _slow(value, dtype)
            if arrays and arrays[0].size != array.size:
                raise invalid(f"Expecting tensor size: {arrays[0].size} but got: {array.size}")
            if arrays and arrays[0].shape != array.shape:
                first, this = (str(list(one.shape)).replace(" ", "") for one in (arrays[0], array))
                raise invalid(f"Expecting shape {first} but got: {this}")
        except ServingError as error:
            raise invalid(
                f"Failed to process element: {position}{where} of 'instances' list. Error: {error.code.name}: "
                f"{error.message}"
            ) from None
        arrays.append(array)
    return np.stack(arrays)


def _tensor(value: Any, number: int) -> np.ndarray:
    dtype = _json_dtype(number, value)
    made = _fast(value, dtype) if isinstance(value, list) else None
    return _slow(value, dtype) if made is None else made


def _json_dtype(number: int, value: Any) -> np.dtype:
    dtype = dtype_of(number)
    if dtype not in _JSON_TYPES:
        raise unimplemented(f"Conversion of JSON Value: {_shown(value)} to type: {number if dtype is None else dtype}")
    return dtype


def _fast(values: list[Any], dtype: np.dtype) -> np.ndarray | None:
    """Makes an array where NumPy alone does it right; None where somebody must look closer."""
    if dtype == np.object_:
        return _strings(values)
    try:
        made = np.array(values)
    except (ValueError, OverflowError):  # ragged, or beyond any integer
        return None
    if made.dtype.kind not in "iufb" or made.size == 0 or _holds_bool(values, made) != (dtype == np.bool_):
        return None
    if dtype == np.bool_:
        return made if made.dtype == np.bool_ else None
    if dtype.kind == "f":
        if made.dtype.kind in "iu":
            return made.astype(dtype) if _within(made, -_EXACT[dtype], _EXACT[dtype]) else None
        return made.astype(dtype) if (np.abs(made) <= _LARGEST[dtype]).all() else None  # None for NaN too
    if made.dtype.kind == "f":
        return None
    limits = np.iinfo(dtype)
    return made.astype(dtype) if _within(made, int(limits.min), int(limits.max)) else None


def _within(values: np.ndarray, low: float, high: float) -> bool:
    return bool(low <= values.min().item() and values.max().item() <= high)


def _holds_bool(values: list[Any], made: np.ndarray) -> bool:
    # NumPy takes true among numbers for 1. Where there is neither 0 nor 1, nobody needs to look at each value.
    return made.dtype.kind == "b" or (bool(((made == 0) | (made == 1)).any()) and _has_bool(values, made.ndim))


def _has_bool(values: list[Any], depth: int) -> bool:
    if depth == 1:
        return bool in set(map(type, values))
    return any(_has_bool(one, depth - 1) for one in values)


def _strings(values: list[Any]) -> np.ndarray | None:
    if set(map(type, values)) != {str}:
        return None
    made = np.empty(len(values), np.object_)
    try:
        made[:] = [one.encode() for one in values]
    except UnicodeEncodeError:
        return None
    return made


def _slow(value: Any, dtype: np.dtype) -> np.ndarray:
    """Makes an array value by value: its shape is that of the first elements, which all others must have."""
    shape: list[int] = []
    first = value
    while isinstance(first, list):
        shape.append(len(first))
        if not first:
            break
        first = first[0]
    if len(shape) > _MAX_RANK:
        raise invalid(f"Encountered list at unexpected level: {_MAX_RANK} expected < {_MAX_RANK}")
    leaves: list[Any] = []
    _collect(value, 0, shape, dtype, leaves)
    made = np.empty(len(leaves), dtype)
    made[:] = leaves
    return made.reshape(shape)


def _collect(value: Any, level: int, shape: Sequence[int], dtype: np.dtype, into: list[Any]) -> None:
    if not isinstance(value, list):
        if level != len(shape):
            raise invalid(
                f"JSON Value: {_shown(value)} found at incorrect level: {level + 1} in the JSON DOM. "
                f"Expected at level: {len(shape)}"
            )
        into.append(_leaf(value, dtype))
        return
    if level >= len(shape):
        raise invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    for one in value:
        _collect(one, level + 1, shape, dtype, into)


def _leaf(value: Any, dtype: np.dtype) -> Any:
    if dtype == np.object_:
        if isinstance(value, str):
            return _encoded(value)
        if isinstance(value, dict):
            return _unescaped(value)
    elif dtype == np.bool_:
        if isinstance(value, bool):
            return value
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        if dtype.kind != "f":
            limits = np.iinfo(dtype)
            if isinstance(value, int) and limits.min <= value <= limits.max:
                return value
        elif isinstance(value, int):
            if abs(value) <= _EXACT[dtype]:
                return value
            raise _lossy(value, dtype)
        elif not np.isfinite(value) or abs(value) <= _LARGEST[dtype]:
            return value
        else:
            raise _lossy(value, dtype)
    raise invalid(
        f"JSON Value: {_shown(value)} Type: {_kind(value)} is not of expected type: "
        f"{_NAMES.get(dtype.name, dtype.name)}"
    )


def _unescaped(value: dict[str, Any]) -> bytes:
    if not _is_b64(value):
        raise invalid(f"JSON Value: {_shown(value)} not formatted correctly for base64 data")
    text = value["b64"].encode(errors="replace")
    try:
        # Padding may be left out.
        return base64.b64decode(text.rstrip(b"=") + b"=" * (-len(text.rstrip(b"=")) % 4), validate=True)
    except binascii.Error:
        raise invalid("Unable to base64 decode") from None


def _fill_example(value: Any, into: Any) -> None:
    if not isinstance(value, dict):
        raise invalid(f"Example must be JSON object but got JSON {_kind(value)}")
    for name, content in value.items():
        values = content if isinstance(content, list) else [content]
        feature = into.features.feature[_encoded(name).decode()]
        for one in values:
            _add_value(one, name, feature)


def _add_value(value: Any, name: str, feature: Any) -> None:
    made: Any
    if isinstance(value, str):
        kind, made = "bytes_list", _encoded(value)
    elif isinstance(value, dict) and _is_b64(value):
        kind, made = "bytes_list", _unescaped(value)
    elif isinstance(value, (bool, int)):
        kind, made = "int64_list", int(value)
        if not -(2**63) <= made < 2**63:
            raise invalid(f"Feature: {name} has uint64 element. Only int64 is supported.")
    elif isinstance(value, float):
        kind, made = "float_list", value
        if np.isfinite(value) and abs(value) > float(np.finfo(np.float32).max):
            raise _lossy(value, np.dtype(np.float32))
    else:
        raise invalid(f"Feature: {name} has element with unexpected JSON type: {_kind(value)}")
    held = feature.WhichOneof("kind")
    if held not in (None, kind):
        raise invalid(f"Unexpected element type in feature: {name} expecting type: {held.removesuffix('_list')}")
    getattr(feature, kind).value.append(made)


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise invalid("JSON Parse error: The surrogate pair in string is invalid. at offset: 0") from None


def _lossy(value: Any, dtype: np.dtype) -> ServingError:
    return invalid(f"Cannot convert JSON value: {_shown(value)} to {_NAMES[dtype.name]} without loss of precision.")


def _is_b64(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and not _is_b64(value)


def _kind(value: Any) -> str:
    return str(value) if isinstance(value, bool) else _KINDS[type(value)]


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
