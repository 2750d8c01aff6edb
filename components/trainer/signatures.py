"""Exports a trained model: `Format-Serving/` with its signatures, and `Core/`.

Both are saved as plain functions over variables. Keras's own `save` would trace every layer again, which takes several
seconds, to keep what nobody needs here: the optimizer and the Python structure of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from evergreen.components import model_layout
from evergreen.components.model_layout import Signature
from evergreen.components.trainer.transform_graph import TransformGraph
from evergreen.components.trainer.user_model import Core


def export(model: Any, core: Core, graph: TransformGraph, label: str, model_dir: str) -> list[str]:
    """Writes both SavedModels.

    Args:
      model: the model, its variables made outside of any strategy.
      core: the same as a function.
      graph: the window's transform graph.
      label: the label's name; no signature asks for it.
      model_dir: the Model artifact's folder.

    Returns:
      The names of the signatures in `Format-Serving/`.
    """
    serving = _Export(model, core)
    serving.transform = graph.trackable
    serving.serving_default = _serving_default(core, graph)
    serving.transform_features = _transform_features(graph, label)
    signatures = {
        Signature.SERVING_DEFAULT: serving.serving_default,
        Signature.TRANSFORM_FEATURES: serving.transform_features,
    }
    raw = graph.parsing_spec(core.features)
    if all(_servable_dense(spec) for spec in raw.values()):
        serving.predict_raw = _predict_raw(core, graph, raw)
        signatures[Signature.PREDICT_RAW] = serving.predict_raw
    tf.saved_model.save(serving, model_layout.serving_dir(model_dir), signatures=signatures)

    bare = _Export(model, core)
    bare.serving_default = _core_signature(core, graph)
    tf.saved_model.save(
        bare, model_layout.core_dir(model_dir), signatures={Signature.SERVING_DEFAULT: bare.serving_default}
    )
    return sorted(signatures)


class _Export(tf.Module):
    """Holds on to what the functions of a SavedModel use: the variables, and tables of layers such as StringLookup."""

    def __init__(self, model: Any, core: Core):
        super().__init__()
        kept = (tf.saved_model.experimental.TrackableResource, tf.saved_model.Asset)
        self.weights = list(core.function.variables)
        self.resources = [one for one in tf.train.TrackableView(model).descendants() if isinstance(one, kept)]


def _serving_default(core: Core, graph: TransformGraph) -> Any:
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, Signature.EXAMPLES)], autograph=False)
    def serving_default(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return {Signature.PREDICTIONS: core.function(**graph.parse_and_apply(examples, core.features))}

    return serving_default


def _transform_features(graph: TransformGraph, label: str) -> Any:
    names = sorted(name for name, needs in graph.needs.items() if label not in needs)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, Signature.EXAMPLES)], autograph=False)
    def transform_features(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return graph.parse_and_apply(examples, names)

    return transform_features


def _core_signature(core: Core, graph: TransformGraph) -> Any:
    @tf.function(autograph=False)
    def serving_default(**features: tf.Tensor) -> dict[str, tf.Tensor]:
        return {Signature.PREDICTIONS: core.function(**features)}

    return serving_default.get_concrete_function(**{name: graph.specs[name] for name in core.features})


def _predict_raw(core: Core, graph: TransformGraph, raw: Mapping[str, Any]) -> Any:
    """Takes each raw feature as a dense tensor [batch, 1] (or its fixed shape).

    A feature that is absent is said by an empty string, NaN or the smallest int64 (`model_layout.MISSING_INT`).
    """

    @tf.function(autograph=False)
    def predict_raw(**features: tf.Tensor) -> dict[str, tf.Tensor]:
        parsed = {name: _as_parsed(tensor, raw[name]) for name, tensor in features.items()}
        return {Signature.PREDICTIONS: core.function(**graph.apply(parsed, core.features))}

    return predict_raw.get_concrete_function(
        **{name: tf.TensorSpec(_dense_shape(spec), spec.dtype, name) for name, spec in raw.items()}
    )


def _servable_dense(spec: Any) -> bool:
    return isinstance(spec, (tf.io.FixedLenFeature, tf.io.VarLenFeature))


def _dense_shape(spec: Any) -> list[int | None]:
    """Returns the shape in which a raw feature is sent, batch first."""
    if isinstance(spec, tf.io.FixedLenFeature):
        return [None, *(spec.shape or [1])]
    return [None, 1]


def _as_parsed(tensor: tf.Tensor, spec: Any) -> Any:
    """Turns a dense raw feature into what parsing a tf.Example with that feature, or without it, gives."""
    missing = _MISSING[tensor.dtype](tensor)
    if isinstance(spec, tf.io.VarLenFeature):
        present = tf.where(tf.logical_not(missing))
        return tf.SparseTensor(present, tf.gather_nd(tensor, present), tf.shape(tensor, tf.int64))
    if spec.default_value is not None:
        default = tf.constant(spec.default_value, spec.dtype)
        tensor = tf.where(missing, tf.broadcast_to(default, tf.shape(tensor)), tensor)
    return tensor if spec.shape else tf.squeeze(tensor, axis=1)


_MISSING: dict[tf.DType, Callable[[tf.Tensor], tf.Tensor]] = {
    tf.string: lambda tensor: tf.equal(tensor, model_layout.MISSING_STRING),
    tf.float32: tf.math.is_nan,
    tf.int64: lambda tensor: tf.equal(tensor, tf.constant(model_layout.MISSING_INT, tf.int64)),
}
