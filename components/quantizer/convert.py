"""Turns a SavedModel into TFLite: one variant, or int8 with some layers left in float. TensorFlow loads lazily.

All variants keep float inputs and outputs here; `assemble` gives `int8` its integer ones.
This runs in processes of their own, see `evergreen.components.quantizer.worker`.
"""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from evergreen.components.model_layout import Signature
from evergreen.components.quantizer.settings import CALIBRATED, INT8, INT16X8

_log = logging.getLogger(__name__)
_LACKING = re.compile(r"'(tf\.\w+)' op is neither a custom op nor a flex op")
_LOCATION = re.compile(r'loc\((?:callsite\()*fused\["[^"]*", "([^"@]+)')
_MOVES = ("RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS")

Rows = dict[str, np.ndarray]


class ConversionFailed(Exception):
    """A variant that the converter could not make; the message is the reason for the report, one line."""


def convert(
    saved_model: str, variant: str, rows: Rows | None = None, denied: Sequence[str] = (), select_ops: bool = False
) -> bytes:
    """Converts a SavedModel. The features' names stay in the signature.

    Args:
      saved_model: the folder of a SavedModel whose signature `serving_default` takes one dense tensor per feature.
      variant: one of `evergreen.components.quantizer.settings.VARIANTS`.
      rows: for a calibrated variant, arrays of [rows, ...] by feature.
      denied: the output tensors of layers that int8 leaves in float.
      select_ops: whether operators that TFLite lacks may be TensorFlow's own.

    Returns:
      The TFLite file's content.

    Raises:
      ConversionFailed: with the converter's reason in one line.
    """
    try:
        converter = _converter(saved_model, variant, rows, select_ops)
        if denied:
            return bytes(_debugger(converter, denied).get_nondebug_quantized_model())
        return bytes(converter.convert())
    # ConverterError, ValueError, RuntimeError, ...: whatever the converter raises, this variant is not to be had.
    except Exception as error:
        _log.warning("The variant %s could not be converted: %s", variant, error)
        raise ConversionFailed(f"conversion failed: {reason(str(error), select_ops)}") from error


def activation_errors(saved_model: str, rows: Rows, denied: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Measures by TensorFlow's QuantizationDebugger how far each layer's int8 output is from its float one.

    Args:
      saved_model: as for `convert`.
      rows: arrays of [rows, ...] by feature; all of them calibrate and all of them are compared.
      denied: layers left in float.

    Returns:
      For each layer: `layer` (its output tensor), `op`, `scale` (a step of its output), `rmse` (root of the mean
      squared difference, in the output's unit) and `error` (`rmse` over the root of the mean square of the float
      output: the part of the signal that rounding takes). The worst come first; layers that only move numbers are
      left out.
    """
    import tensorflow as tf

    debugger = _debugger(_converter(saved_model, INT8, rows, False), denied)
    # A debugger made from the converter keeps no tensors, and the signal's power could not be read.
    options = tf.lite.experimental.QuantizationDebugOptions(
        layer_direct_compare_metrics={
            "signal": lambda given, quantized, scale, zero: float(np.mean(np.square(given))),
            "noise": lambda given, quantized, scale, zero: float(
                np.mean(np.square(given - (quantized.astype(np.float32) - zero) * scale))
            ),
        }
    )
    with _quiet():
        debugger = tf.lite.experimental.QuantizationDebugger(
            quant_debug_model_content=debugger.quant_model,
            debug_options=options,
        )
    names = [_feature(detail["name"]) for detail in debugger._quant_interpreter.get_input_details()]
    debugger._data_gen = lambda: ([row[name] for name in names] for row in _one_by_one(rows))
    debugger.run()
    return sorted(_layers(debugger), key=lambda row: -row["error"])


def _layers(debugger: Any) -> Iterator[dict[str, Any]]:
    interpreter = debugger._quant_interpreter
    for name, statistics in debugger.layer_statistics.items():
        layer, _ = debugger._get_operand_name_and_index(name)
        tensor = debugger._numeric_verify_op_details[name]["inputs"][0]
        producer = interpreter._get_op_details(debugger._defining_op[tensor])["op_name"]
        if producer in _MOVES:
            continue
        scale = float(interpreter._get_tensor_details(tensor, 0)["quantization_parameters"]["scales"][0])
        signal, noise = float(statistics["signal"]), float(statistics["noise"])
        error = float(np.sqrt(noise / signal)) if signal else 0.0
        yield {"layer": layer, "op": producer, "scale": scale, "rmse": float(np.sqrt(noise)), "error": error}


def reason(message: str, select_ops: bool = False) -> str:
    """Says in one line why the converter failed: the operators that TFLite lacks and the layers that they came from.

    Args:
      message: what the converter raised.
      select_ops: whether TensorFlow's own operators were allowed already.
    """
    if lacking := sorted(set(_LACKING.findall(message))):
        places = sorted({place for place in _LOCATION.findall(message) if "PartitionedCall" not in place})
        where = f" (from {', '.join(places[:3])})" if places else ""
        if select_ops:
            return f"neither TFLite nor its Select TF ops have {', '.join(lacking)}{where}; compute it otherwise"
        return (
            f"TFLite has no builtin op for {', '.join(lacking)}{where}; compute it otherwise, set "
            "`quantize.allow_select_ops`, or leave the variant out"
        )
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[0][:300] if lines else "the converter gave no reason"


def _converter(saved_model: str, variant: str, rows: Rows | None, select_ops: bool) -> Any:
    import tensorflow as tf

    # By path, because from_concrete_functions freezes the graph a second time.
    converter = tf.lite.TFLiteConverter.from_saved_model(saved_model, signature_keys=[Signature.SERVING_DEFAULT])
    if variant != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if variant == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if variant in CALIBRATED:
        converter.representative_dataset = lambda: _one_by_one(rows or {})
    operators = tf.lite.OpsSet
    if variant == INT8:
        converter.target_spec.supported_ops = [operators.TFLITE_BUILTINS_INT8]
    elif variant == INT16X8:
        sixteen = operators.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        converter.target_spec.supported_ops = [sixteen, operators.TFLITE_BUILTINS]
    elif select_ops:
        converter.target_spec.supported_ops = [operators.TFLITE_BUILTINS, operators.SELECT_TF_OPS]
    return converter


def _debugger(converter: Any, denied: Sequence[str]) -> Any:
    import tensorflow as tf

    # Layers in float and integers only exclude each other.
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=list(denied) or None)
    with _quiet():
        return tf.lite.experimental.QuantizationDebugger(converter=converter, debug_options=options)


def _feature(tensor: str) -> str:
    return tensor.removeprefix(f"{Signature.SERVING_DEFAULT}_").rpartition(":")[0]


def _one_by_one(rows: Rows) -> Iterator[Rows]:
    for index in range(len(next(iter(rows.values())))):
        yield {name: values[index : index + 1] for name, values in rows.items()}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """TensorFlow announces the move of its interpreter to LiteRT each time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
