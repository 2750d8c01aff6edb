"""The preprocessing as a SavedModel that converts, and converted: raw features in, transformed features out.

Imports TensorFlow.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from evergreen.components.model_layout import Signature
from evergreen.components.quantizer import convert as tflite
from evergreen.components.quantizer.convert import ConversionFailed
from evergreen.components.quantizer.replay import NotReplayable, Replay
from evergreen.components.quantizer.settings import BASELINE
from evergreen.components.trainer import transform_graph
from evergreen.components.trainer.transform_graph import TransformGraph


def convert(uri: str, names: Iterable[str]) -> bytes:
    """Converts the preprocessing, unquantized.

    Args:
      uri: the TransformGraph artifact's folder.
      names: the transformed features wanted.

    Returns:
      The TFLite file.

    Raises:
      ConversionFailed: TFLite cannot say it.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            write(transform_graph.load(uri), names, folder)
        except NotReplayable as error:
            raise ConversionFailed(str(error)) from error
        except (ValueError, TypeError, KeyError, NotImplementedError, tf.errors.OpError) as error:
            raise ConversionFailed(str(error).strip().splitlines()[0]) from error
        return tflite.convert(folder, BASELINE)


def write(graph: TransformGraph, names: Iterable[str], folder: str) -> None:
    """Writes the SavedModel; its inputs are those of `predict_raw`.

    Args:
      graph: the window's transform graph.
      names: the transformed features wanted.
      folder: where to.

    Raises:
      NotReplayable: the preprocessing needs sparse features, or features of another kind than `predict_raw` takes.
    """
    names = sorted(names)
    spec = graph.parsing_spec(names)
    for name, one in spec.items():
        if not isinstance(one, (tf.io.FixedLenFeature, tf.io.VarLenFeature)):
            raise NotReplayable(f"the feature {name}, a {type(one).__name__}")
    replay = Replay(graph.function, graph.inputs, graph.outputs)

    @tf.function(autograph=False)
    def front(**features: tf.Tensor) -> dict[str, tf.Tensor]:
        raw = {name: _with_default(tensor, spec[name]) for name, tensor in features.items()}
        transformed = replay.apply(raw, names)
        for name in names:
            transformed[name].set_shape(graph.specs[name].shape)  # EnsureShape does not convert
        return transformed

    module = tf.Module()
    signature = front.get_concrete_function(**raw_specs(spec))
    module.front, module.tables = front, replay.tables
    tf.saved_model.save(module, folder, signatures={Signature.SERVING_DEFAULT: signature})


def raw_specs(spec: Any) -> dict[str, tf.TensorSpec]:
    """Returns the dense inputs of `predict_raw` for a parsing spec.

    Args:
      spec: name to FixedLenFeature or VarLenFeature.
    """
    return {
        name: tf.TensorSpec([None, *(getattr(one, "shape", None) or [1])], one.dtype, name)
        for name, one in spec.items()
    }


def _with_default(tensor: tf.Tensor, spec: Any) -> tf.Tensor:
    """Turns a dense raw feature of a fixed length into what parsing gives; a sparse one is the replay's to turn."""
    if isinstance(spec, tf.io.VarLenFeature):
        return tensor
    if spec.default_value is not None:
        # A default for strings would need a choice among strings.
        if tensor.dtype == tf.string:
            raise NotReplayable("tf.SelectV2 of strings (a default value in the schema)")
        missing = tf.not_equal(tensor, tensor)
        if tensor.dtype == tf.int64:
            missing = tf.equal(tensor, tf.constant(tf.int64.min, tf.int64))
        tensor = tf.where(missing, tf.constant(spec.default_value, spec.dtype), tensor)
    return tensor if spec.shape else tf.squeeze(tensor, axis=1)
