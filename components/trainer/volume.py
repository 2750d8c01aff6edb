"""How many bytes a model's training step has to move, found by tracing the step once for a single row.

Tracing shows what no list of weights does: which gradients are embedding rows (tf.IndexedSlices) and how many of them a
row of data needs, and which weights are read twice. It costs about a tenth of a second and runs nothing.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

_log = logging.getLogger(__name__)


def measure(
    model: Any, specs: Mapping[str, tf.TensorSpec], features: Sequence[str], label: str
) -> dict[str, Any] | None:
    """Counts the bytes of a model.

    Args:
      model: a built tf_keras.Model.
      specs: dtype and shape (batch first) of the transformed features.
      features: those that the model reads.
      label: the label's name.

    Returns:
      Bytes: `weights` of all variables; `reads`, of the dense weights that a step reads; `gradients`, of the dense
      ones; `example`, of a transformed row with its label; and `tables`, for each embedding its `rows`, the bytes of a
      gradient's row with its number (`row_bytes`) and how many of them a row of data has (`per_example`). None where
      the step cannot be traced for a single row.
    """

    gradients: list[Any] = []

    @tf.function(autograph=False)
    def step(inputs: Any) -> None:
        with tf.GradientTape() as tape:
            outputs = tf.nest.flatten(model(inputs, training=True))
            summed = [tf.reduce_sum(tf.cast(value, tf.float32)) for value in (*outputs, *model.losses)]
            total = tf.add_n(summed)
        gradients[:] = tape.gradient(total, model.trainable_variables)

    row = {name: tf.TensorSpec([1, *specs[name].shape[1:]], specs[name].dtype) for name in features}
    try:
        graph = step.get_concrete_function(row).graph
    except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
        _log.info("The bytes of a step are not counted: %s", error)
        return None
    dense, tables = 0, []
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        if isinstance(gradient, tf.IndexedSlices) and gradient.indices.shape.is_fully_defined():
            rows = int(variable.shape[0])
            row_bytes = _bytes(variable) // rows + gradient.indices.dtype.size
            tables.append({"rows": rows, "row_bytes": row_bytes, "per_example": int(gradient.indices.shape[0])})
        elif gradient is not None:
            dense += _bytes(variable)
    read = [operation.outputs[0] for operation in graph.get_operations() if operation.type == "ReadVariableOp"]
    return {
        "weights": sum(map(_bytes, model.weights)),
        # What a loop inside of the model reads does not show here.
        "reads": max(dense, sum(_bytes(tensor) for tensor in read if tensor.consumers())),
        "gradients": dense,
        "example": sum(_bytes(specs[name], skip=1) for name in {*features, label}),
        "tables": tables,
    }


def _bytes(value: Any, skip: int = 0) -> int:
    """Returns the bytes of a tensor or variable without its first `skip` dimensions; of unknown ones it has one."""
    return int(value.dtype.size) * math.prod(size or 1 for size in value.shape.as_list()[skip:])
