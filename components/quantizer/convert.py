"""Turns the core SavedModel of a trained model into TFLite variants. Imports TensorFlow inside functions."""

from __future__ import annotations

import logging
import re

from evergreen.components.model_layout import Signature

_log = logging.getLogger(__name__)


class ConversionFailed(Exception):
    """A variant that the converter could not make; the message is the reason for the report, one line."""


def convert(core: str, variant: str) -> bytes:
    """Converts a SavedModel.

    The features' names stay in the signature, and the inputs are stored in the order of those names: the converter's
    own order changes from one export to the next, and index-based readers would have to follow it.

    Args:
      core: the folder of a SavedModel whose signature `serving_default` takes one dense tensor per feature.
      variant: one of `evergreen.components.quantizer.settings.VARIANTS`.

    Returns:
      The TFLite file's content.

    Raises:
      ConversionFailed: with the converter's reason in one line.
    """
    import tensorflow as tf

    # By path, because from_concrete_functions freezes the graph a second time.
    converter = tf.lite.TFLiteConverter.from_saved_model(core, signature_keys=[Signature.SERVING_DEFAULT])
    if variant != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if variant == "float16":
        converter.target_spec.supported_types = [tf.float16]
    try:
        return _inputs_in_order(converter.convert())
    # ConverterError, ValueError, RuntimeError, ...: whatever the converter raises, this variant is not to be had.
    except Exception as error:
        _log.warning("The variant %s could not be converted: %s", variant, error)
        raise ConversionFailed(f"conversion failed: {_one_line(str(error))}") from error


def _inputs_in_order(content: bytes) -> bytes:
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    for signature in model.signatureDefs or []:
        subgraph = model.subgraphs[signature.subgraphIndex]
        by_name = sorted(signature.inputs, key=lambda entry: entry.name)
        named = [entry.tensorIndex for entry in by_name]
        # An input that the model does not read has no place in the signature; it keeps one in the subgraph.
        subgraph.inputs = named + [index for index in subgraph.inputs if index not in named]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _one_line(message: str) -> str:
    lacking = sorted(set(re.findall(r"'(tf\.\w+)' op is neither a custom op nor a flex op", message)))
    if lacking:
        return f"TFLite has no builtin op for {', '.join(lacking)}"
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[0][:300] if lines else "the converter gave no reason"
