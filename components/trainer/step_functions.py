"""The loop's graph functions: some training steps in one call, and some test steps in one.

Tracing them takes Python's time and no rows, while reading the rows takes TensorFlow's threads and little of Python: so
`trace_ahead` goes on while the rows are read. It needs no more than what a batch looks like.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from evergreen.components.trainer import autograph
from evergreen.components.trainer import strategy as strategies
from evergreen.components.trainer.timing import Clock


@dataclass
class StepFunctions:
    """The functions of one model under one strategy.

    Attributes:
      train: takes an iterator over batches and a number of steps, does them, and gives the loss so far, float32.
      test: takes an iterator over batches and how many of them to measure.
      clock: what times the parts of the training steps.
      traced_s: seconds that it took to trace them before there were rows; 0 where they were not.
    """

    train: Any
    test: Any
    clock: Clock
    traced_s: float = 0.0


def make(model: Any, strategy: tf.distribute.Strategy) -> StepFunctions:
    """Makes the functions. The optimizer's variables must be there when they are traced: see `build_optimizer`.

    Args:
      model: a compiled and built tf_keras.Model, made under the strategy.
      strategy: the strategy.

    Returns:
      The functions, not traced yet.
    """
    clock = Clock(strategies.local_replicas(strategy))
    if strategy.num_replicas_in_sync > 1:
        clock.watch(model.optimizer)

    def train_step(iterator: Any) -> tf.Tensor:
        batch = clock.next_batch(iterator)
        step = autograph.converted(model.train_step)
        logs = strategy.run(lambda batch: step(strategies.share(strategy, batch)), args=(batch,))
        loss = logs.get("loss", 0.0) if isinstance(logs, dict) else 0.0
        return tf.cast(strategy.experimental_local_results(loss)[0], tf.float32)

    def test_step(iterator: Any) -> None:
        step = autograph.converted(model.test_step)
        strategy.run(lambda batch: step(strategies.share(strategy, batch)), args=(next(iterator),))

    @tf.function(autograph=False, reduce_retracing=True)
    def train(iterator: Any, count: tf.Tensor) -> tf.Tensor:
        def body(done: tf.Tensor, loss: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return done + 1, train_step(iterator)

        with autograph.enabled():
            _, loss = tf.while_loop(lambda done, loss: done < count, body, (0, 0.0))
            return loss

    @tf.function(autograph=False, reduce_retracing=True)
    def test(iterator: Any, count: tf.Tensor) -> None:
        def body(done: tf.Tensor) -> tuple[tf.Tensor]:
            test_step(iterator)
            return (done + 1,)

        with autograph.enabled():
            tf.while_loop(lambda done: done < count, body, (0,))

    return StepFunctions(train, test, clock)


def trace_ahead(
    model: Any,
    strategy: tf.distribute.Strategy,
    specs: Mapping[str, tf.TensorSpec],
    label: str,
    batch_size: int,
    validates: bool,
) -> StepFunctions:
    """Makes the functions, traces and optimizes them without doing a step.

    Where a batch turns out to look otherwise, the function is traced again when it is called.

    Args:
      model: a compiled and built tf_keras.Model, made under the strategy.
      strategy: one whose replicas cut their shares out of a global batch themselves, see `strategy.distribute`.
      specs: of the features that the model reads and of the label, [batch, ...].
      label: which of them the label is.
      batch_size: rows of a training batch; a test batch may have any number.
      validates: whether there are rows to test on.

    Returns:
      The functions.
    """
    started = time.monotonic()
    build_optimizer(model, strategy)
    functions = make(model, strategy)
    if validates:
        functions.test(_no_batches(specs, label, None), tf.constant(0))
    functions.train(_no_batches(specs, label, batch_size), tf.constant(0))
    functions.traced_s = time.monotonic() - started
    return functions


def build_optimizer(model: Any, strategy: tf.distribute.Strategy) -> None:
    """Makes the optimizer's variables, where they are not there yet."""
    with strategy.scope():
        if hasattr(model.optimizer, "build"):  # tf_keras.optimizers.legacy has no such method
            model.optimizer.build(model.trainable_variables)


def _no_batches(specs: Mapping[str, tf.TensorSpec], label: str, batch_size: int | None) -> Any:
    """Makes an iterator over batches of (features, label) that has none."""
    features = {name: tf.TensorSpec([batch_size, *spec.shape[1:]], spec.dtype) for name, spec in specs.items()}
    return iter(tf.data.Dataset.from_generator(tuple, output_signature=(features, features.pop(label))))
