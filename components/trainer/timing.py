"""Where the time of a training step goes: waiting for input, computing, communicating.

The loop runs many steps in one graph call, so the clocks are operations in the graph (`tf.timestamp`), which add what
they measured to variables. Nothing waits for them: a step takes as long as without them.

What is measured of a step is what its critical path shows. `input` is how long the step waits for its batch, not how
long the batch took to make. `communication` lasts from the last gradient that a replica has computed to the last one
that it has received from the others; it includes waiting for a replica that is slower. What overlaps with computing
counts as computing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


class Clock:
    """Adds up the seconds of the parts of the steps.

    The graph does, or under parameter servers the loop by `add`.

    Args:
      replicas: replicas in this process.
    """

    def __init__(self, replicas: int = 1):
        self.replicas = replicas
        # Outside of any strategy, and counted by every replica of this process: no replica waits for another here.
        with tf.device("CPU:0"):
            self._input = tf.Variable(0.0, dtype=tf.float64, trainable=False)
            self._communication = tf.Variable(0.0, dtype=tf.float64, trainable=False)
        self.has_communication = False

    def reset(self) -> None:
        """Starts from zero."""
        self._input.assign(0.0)
        self._communication.assign(0.0)

    @property
    def input_s(self) -> float:
        """Seconds that steps waited for their batches."""
        return float(self._input.numpy())

    @property
    def communication_s(self) -> float:
        """Seconds that gradients took from where they were computed to where they are added, by the mean replica."""
        return float(self._communication.numpy()) / self.replicas

    def add(self, input_s: float, communication_s: float) -> None:
        """Adds what Python measured of a step.

        Args:
          input_s: seconds that it waited for its batch.
          communication_s: seconds that its gradients and weights were on their way.
        """
        self._input.assign_add(input_s)
        self._communication.assign_add(communication_s)

    def next_batch(self, iterator: Any) -> Any:
        """Takes the next batch in a graph function, timed.

        Args:
          iterator: over batches.

        Returns:
          The batch.
        """
        before = tf.timestamp()
        with tf.control_dependencies([before]):
            batch = next(iterator)
        with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)), tf.device("CPU:0"):
            self._input.assign_add(tf.timestamp() - before)
        return batch

    def watch(self, optimizer: Any) -> None:
        """Times how an optimizer lets replicas add up their gradients.

        Args:
          optimizer: a tf_keras optimizer; one that has no `aggregate_gradients` is left as it is, and so is the
            communication, as a part of the computing.
        """
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # LossScaleOptimizer asks it
        aggregate: Callable[[Any], Any] | None = getattr(optimizer, "aggregate_gradients", None)
        if aggregate is None:
            return

        def timed(pairs: Any) -> Any:
            pairs = list(pairs)
            before = time_after([gradient for gradient, _ in pairs])
            received = list(aggregate(pairs))
            seconds = time_after([gradient for gradient, _ in received]) - before
            with tf.device("CPU:0"):
                self._communication.assign_add(seconds)
            return received

        optimizer.aggregate_gradients = timed
        self.has_communication = True


def time_after(gradients: list[Any]) -> tf.Tensor:
    """Returns, in a graph function, the time at which all of some gradients are there.

    Args:
      gradients: tensors or IndexedSlices; None for a variable without one.

    Returns:
      Seconds since 1970, float64, by the clock of the machine that runs the operation.
    """
    tensors = tf.nest.flatten([gradient for gradient in gradients if gradient is not None], expand_composites=True)
    with tf.control_dependencies(tensors), tf.device("CPU:0"):
        return tf.timestamp()
