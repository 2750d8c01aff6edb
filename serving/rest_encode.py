"""The bodies of REST answers: arrays and results to JSON, as TensorFlow Serving writes it. Pure.

Floats come in the shortest form that reads back as the same float32; json.dumps would write a float32 of 0.1 as
0.10000000149011612.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import orjson
from tensorflow_serving.apis import classification_pb2, regression_pb2

from evergreen.serving.errors import internal, invalid

ROW, COLUMNAR = "row", "columnar"


def encode_predict(outputs: Mapping[str, np.ndarray], format: str) -> str:
    """Writes the answer to Predict in the form in which the request came.

    Raises:
      ServingError: INVALID_ARGUMENT for outputs that the row form cannot hold; INTERNAL for types that JSON cannot.
    """
    if not outputs:
        raise invalid("Cannot convert empty tensor map to JSON")
    names = sorted(outputs)
    if format == COLUMNAR:
        texts = {name: _array(_leaves(name, outputs[name]), outputs[name].shape) for name in names}
        if len(names) == 1:
            return f'{{"outputs": {texts[names[0]]}}}'
        return '{"outputs": {' + ", ".join(f"{json.dumps(name)}: {texts[name]}" for name in names) + "}}"
    size = -1
    for name in names:
        if outputs[name].ndim == 0:
            raise invalid(f"Tensor name: {name} has no shape information ")
        if size not in (-1, len(outputs[name])):
            raise invalid(f"Tensor name: {name} has inconsistent batch size: {len(outputs[name])} expecting: {size}")
        size = len(outputs[name])
    columns = [_by_row(_leaves(name, outputs[name]), outputs[name].shape) for name in names]
    if len(names) == 1:
        return '{"predictions": [' + ", ".join(columns[0]) + "]}"
    keys = [json.dumps(name) for name in names]
    rows = (
        ", ".join(f"{key}: {text}" for key, text in zip(keys, row, strict=True)) for row in zip(*columns, strict=True)
    )
    return '{"predictions": [' + ", ".join(f"{{{row}}}" for row in rows) + "]}"


def encode_classes(result: classification_pb2.ClassificationResult) -> str:
    """Writes the answer to Classify: for each row a list of [label, score]."""
    rows = (
        ", ".join(f"[{json.dumps(one.label)}, {number(one.score)}]" for one in row.classes)
        for row in result.classifications
    )
    return '{"results": [' + ", ".join(f"[{row}]" for row in rows) + "]}"


def encode_values(result: regression_pb2.RegressionResult) -> str:
    """Writes the answer to Regress: a number for each row."""
    return '{"results": [' + ", ".join(number(one.value) for one in result.regressions) + "]}"


def number(value: float) -> str:
    """Writes a float32 in the shortest form that reads back as the same; NaN, Infinity and -Infinity by name."""
    return _floats(np.asarray([value], np.float32))[0]


def _leaves(name: str, array: np.ndarray) -> list[str]:
    """Writes the elements of an array, in order."""
    kind = array.dtype.kind
    if array.dtype == np.object_:
        write: Callable[[bytes], str] = _b64 if name.endswith("_bytes") else _text
        return [write(one) for one in array.reshape(-1).tolist()]
    if kind in "iu":
        return list(map(str, array.reshape(-1).tolist()))
    if kind == "b":
        return ["true" if one else "false" for one in array.reshape(-1).tolist()]
    if kind != "f" and array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    elif kind != "f":
        raise internal(f"Failed to write JSON value for tensor type: {array.dtype}")
    return _floats(array.reshape(-1))


def _floats(flat: np.ndarray) -> list[str]:
    if flat.dtype in (np.float32, np.float64) and flat.size and np.isfinite(flat).all():
        text = orjson.dumps(np.ascontiguousarray(flat), option=orjson.OPT_SERIALIZE_NUMPY)
        return text.decode()[1:-1].split(",")
    texts: list[str] = flat.astype("U").tolist()
    if "n" in "".join(texts):
        names = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
        texts = [names.get(one, one) for one in texts]
    return texts


def _b64(value: bytes) -> str:
    return f'{{"b64": "{base64.b64encode(value).decode()}"}}'


def _text(value: bytes) -> str:
    return json.dumps(value.decode(errors="replace"), ensure_ascii=False)


def _by_row(leaves: list[str], shape: Sequence[int]) -> list[str]:
    if len(shape) == 1:
        return leaves
    return _grouped(leaves, shape)


def _array(leaves: list[str], shape: Sequence[int]) -> str:
    if not shape:
        return leaves[0]
    return "[" + ", ".join(_grouped(leaves, shape)) + "]"


def _grouped(leaves: list[str], shape: Sequence[int]) -> list[str]:
    """Joins elements, from the last dimension on, to the texts along the first one."""
    for position in range(len(shape) - 1, 0, -1):
        size, count = shape[position], int(np.prod(shape[:position]))
        leaves = [f"[{', '.join(leaves[one * size : (one + 1) * size])}]" for one in range(count)]
    return leaves
