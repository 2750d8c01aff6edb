"""What a TFLite model is made of: its weights and what rounding cost them, its operators, its multiply-adds, its bytes.

Pure functions of the schema's objects and numpy; no TensorFlow.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from evergreen.components.quantizer import lite_file

_NUMPY = {"float32": np.float32, "float16": np.float16, "int8": np.int8, "uint8": np.uint8, "int16": np.int16}
_WEIGHTED = (
    "FULLY_CONNECTED", "CONV_2D", "CONV_3D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "BATCH_MATMUL", "GATHER",
    "EMBEDDING_LOOKUP", "UNIDIRECTIONAL_SEQUENCE_LSTM",
)  # fmt: skip
_CONVERTS = ("QUANTIZE", "DEQUANTIZE")


def weights(model: Any, baseline: Any) -> list[dict[str, Any]]:
    """Measures what each weight tensor lost.

    The operators that use weights come in the same order in both models: the n-th of one is the n-th of the other.

    Args:
      model: a variant (`ModelT`).
      baseline: the same model in float32.

    Returns:
      For each weight tensor: `layer` (the output of the operator that uses it), `op`, `shape`, `type`, `scale` (the
      largest of its channels; None without one), `channels` (how many scales), `largest_error` and `rmse` (of the
      rounded weights, in the weights' unit) and `snr_db` (10 log10 of the weights' power over the error's; None where
      there is no error).
    """
    rows = []
    floats, own = list(_weight_tensors(baseline)), list(_weight_tensors(model))
    if [op for op, _, _ in own] != [op for op, _, _ in floats]:
        return []
    for (op, _, before), (_, layer, after) in zip(floats, own, strict=True):
        exact = _values(baseline, before)
        rounded = _values(model, after)
        if exact.shape != rounded.shape:
            continue
        error = rounded.astype(np.float64) - exact
        noise, signal = float(np.square(error).sum()), float(np.square(exact.astype(np.float64)).sum())
        scales = _scales(after)
        rows.append(
            {
                "layer": layer,
                "op": op,
                "shape": [int(size) for size in after.shape],
                "type": lite_file.tensor_type(after),
                "scale": float(scales.max()) if len(scales) else None,
                "channels": len(scales),
                "largest_error": float(np.abs(error).max(initial=0.0)),
                "rmse": math.sqrt(noise / max(error.size, 1)),
                "snr_db": 10 * math.log10(signal / noise) if noise and signal else None,
            }
        )
    return rows


def operators(model: Any) -> dict[str, int]:
    """Counts the operators of a model by name and by the type of what they give, such as `CONV_2D int8`.

    Args:
      model: a `ModelT`.
    """
    counts: Counter[str] = Counter()
    for subgraph in model.subgraphs:
        for operation in subgraph.operators or []:
            given = [subgraph.tensors[index] for index in operation.outputs if index >= 0]
            kind = lite_file.tensor_type(given[0]) if given else "nothing"
            counts[f"{lite_file.operator(model, operation)} {kind}"] += 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def float_operators(model: Any) -> list[str]:
    """Names the operators of a model that compute with floats; what turns floats into integers and back does not.

    Args:
      model: a `ModelT`; of a joined one the core alone is what the question is about.
    """
    found = set()
    for subgraph in model.subgraphs:
        for operation in subgraph.operators or []:
            name = lite_file.operator(model, operation)
            indices = [*operation.inputs, *operation.outputs]
            kinds = {lite_file.tensor_type(subgraph.tensors[index]) for index in indices if index >= 0}
            if name not in _CONVERTS and kinds & {"float32", "float16", "float64"}:
                found.add(name)
    return sorted(found)


def multiply_adds(model: Any) -> int:
    """Counts the multiplications with an addition that one row costs.

    Args:
      model: a `ModelT` whose shapes are those of one row.
    """
    total = 0
    for subgraph in model.subgraphs:
        for operation in subgraph.operators or []:
            tensors = [subgraph.tensors[index] for index in operation.inputs if index >= 0]
            name = lite_file.operator(model, operation)
            output = math.prod(int(size) for size in subgraph.tensors[operation.outputs[0]].shape)
            if name == "FULLY_CONNECTED":
                total += output * int(tensors[1].shape[-1])
            elif name in ("CONV_2D", "CONV_3D"):
                total += (
                    output
                    * math.prod(int(size) for size in tensors[1].shape)
                    // int(tensors[1].shape[0 if name == "CONV_2D" else -1])
                )
            elif name == "DEPTHWISE_CONV_2D":
                total += output * math.prod(int(size) for size in tensors[1].shape[1:3])
            elif name == "TRANSPOSE_CONV":
                total += math.prod(int(size) for size in tensors[2].shape) * math.prod(
                    int(size) for size in tensors[1].shape[:3]
                )
            elif name == "BATCH_MATMUL":
                total += output * int(tensors[0].shape[-1])
    return total


def constant_bytes(model: Any) -> int:
    """Returns the bytes of a model's constants, each once: weights, tables, shapes.

    Args:
      model: a `ModelT`.
    """
    used = {tensor.buffer for subgraph in model.subgraphs for tensor in subgraph.tensors}
    return sum(len(model.buffers[index].data) for index in used if model.buffers[index].data is not None)


def _weight_tensors(model: Any) -> Iterator[tuple[str, str, Any]]:
    """Yields operator, layer and tensor of everything that is a weight, in the order of the operators."""
    for subgraph in model.subgraphs:
        # float16 weights pass an operator that widens them.
        widened = {
            operation.outputs[0]: operation.inputs[0]
            for operation in subgraph.operators or []
            if lite_file.operator(model, operation) == "DEQUANTIZE"
        }
        for operation in subgraph.operators or []:
            name = lite_file.operator(model, operation)
            if name not in _WEIGHTED:
                continue
            for index in operation.inputs:
                tensor = subgraph.tensors[widened.get(index, index)] if index >= 0 else None
                if tensor is None or len(tensor.shape) < 2 or lite_file.tensor_type(tensor) not in _NUMPY:
                    continue
                if lite_file.constant(model, tensor) is not None:
                    layer = lite_file.text(subgraph.tensors[operation.outputs[0]].name).partition(";")[0]
                    yield name, layer, tensor


def _values(model: Any, tensor: Any) -> np.ndarray:
    """Returns a constant tensor as the floats that it stands for."""
    data = lite_file.constant(model, tensor)
    assert data is not None
    values = data.view(_NUMPY[lite_file.tensor_type(tensor)]).reshape(tensor.shape)
    scales = _scales(tensor)
    if not len(scales):
        return values.astype(np.float32)
    zeros = np.asarray(tensor.quantization.zeroPoint, np.int64)
    axis = [1] * values.ndim
    if len(scales) > 1:
        axis[tensor.quantization.quantizedDimension] = len(scales)
        return (values.astype(np.float32) - zeros.reshape(axis)) * scales.reshape(axis)
    return (values.astype(np.float32) - zeros[0]) * scales[0]


def _scales(tensor: Any) -> np.ndarray:
    quantization = tensor.quantization
    scales = None if quantization is None else quantization.scale
    return np.empty(0, np.float32) if scales is None else np.asarray(scales, np.float32)
