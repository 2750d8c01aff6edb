"""Parts that add up to a whole: of a batch, of a gradient, and of a variable that is split over servers."""

from __future__ import annotations

import itertools
import operator
from collections import deque
from typing import Any

import numpy as np
import tensorflow as tf


def scatter(weights: list[np.ndarray], variables: list[Any]) -> None:
    """Assigns weights to variables of which some are split along their first axis.

    Args:
      weights: one array for each weight.
      variables: the same in the same order, a split one as its parts, one after the other.
    """
    waiting = deque(variables)
    for weight in weights:
        row = 0
        for variable in _parts(waiting, weight.shape):
            if tuple(variable.shape) == weight.shape:
                variable.assign(weight)
            else:
                variable.assign(weight[row : row + variable.shape[0]])
                row += variable.shape[0]


def gather(variables: list[Any], like: list[Any]) -> list[np.ndarray]:
    """Reads variables of which some are split along their first axis.

    Args:
      variables: as in `scatter`.
      like: variables of the whole shapes, in the same order.

    Returns:
      One array for each of `like`.
    """
    waiting = deque(variables)
    found = []
    for whole in like:
        parts = [variable.numpy() for variable in _parts(waiting, tuple(whole.shape))]
        found.append(parts[0] if len(parts) == 1 else np.concatenate(parts))
    return found


def _parts(waiting: deque[Any], shape: tuple[int, ...]) -> list[Any]:
    """Takes the variables that make up a weight of a shape off a queue."""
    parts = [waiting.popleft()]
    if tuple(parts[0].shape) != shape:
        while sum(part.shape[0] for part in parts) < shape[0]:
            parts.append(waiting.popleft())
    return parts


def cut(batch: Any, parts: int) -> list[tuple[Any, Any, tf.Tensor]]:
    """Cuts a batch into parts of as many rows, or one more; returns features, label and share of the rows of each."""
    rows = int(tf.nest.flatten(batch)[0].shape[0])
    bounds = [rows * part // parts for part in range(parts + 1)]
    found = []
    for start, end in itertools.pairwise(bounds):
        features, label = tf.nest.map_structure(operator.itemgetter(slice(start, end)), batch)
        found.append((features, label, tf.constant((end - start) / rows, tf.float32)))
    return found


def components(gradient: Any) -> tuple[tf.Tensor, ...]:
    """Returns a gradient as tensors: only the rows that it has, where it has few."""
    return (gradient.values, gradient.indices) if isinstance(gradient, tf.IndexedSlices) else (gradient,)


def summed(gradients: list[tuple[tf.Tensor, ...]], variable: Any) -> Any:
    """Adds up the gradients of a variable, each from `components`; those of a few rows stay so."""
    if len(gradients[0]) == 1:
        return tf.add_n([gradient for (gradient,) in gradients])
    values, indices = (tf.concat(tensors, 0) for tensors in zip(*gradients, strict=True))
    return tf.IndexedSlices(values, indices, tf.constant(variable.shape.as_list(), tf.int64))


def scaled(gradient: Any, factor: tf.Tensor) -> Any:
    """Multiplies a gradient by a number."""
    if isinstance(gradient, tf.IndexedSlices):
        values = gradient.values * tf.cast(factor, gradient.values.dtype)
        return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)
    return gradient * tf.cast(factor, gradient.dtype)
