"""The distribution strategy of a training, by name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from evergreen.components.trainer.settings import MIRRORED, TrainerSettings


def create(settings: TrainerSettings, devices: Sequence[str]) -> tf.distribute.Strategy:
    """Makes the strategy.

    Args:
      settings: the section `trainer`.
      devices: device names; see `devices.choose`.

    Returns:
      For `single` TensorFlow's default strategy, which leaves no trace in graph or variables.
    """
    if settings.strategy == MIRRORED:
        # TensorFlow's default for CPU devices goes through collective operations: the same sums, but a step of a model
        # with 29 inputs takes 1.3 times as much of the CPU, and tracing it twice.
        on_cpu = all(name.startswith("CPU") for name in devices)
        reduction = tf.distribute.ReductionToOneDevice() if on_cpu else None
        return tf.distribute.MirroredStrategy(list(devices), cross_device_ops=reduction)
    return tf.distribute.get_strategy()


def distributes(strategy: tf.distribute.Strategy) -> bool:
    """Tells whether variables made under the strategy are distributed ones."""
    return tf.distribute.get_strategy() is not strategy


def distribute(strategy: tf.distribute.Strategy, dataset: tf.data.Dataset) -> Any:
    """Splits the global batches of a dataset over the replicas."""
    return strategy.experimental_distribute_dataset(dataset) if distributes(strategy) else dataset


def seed_everything(seed: int) -> None:
    """Sets the generators of Python, NumPy and TensorFlow, and Keras's counters of layer names.

    The second training of a process starts from the same point as the first, and its layers have the same names, which
    a warm start goes by.
    """
    tf_keras.backend.clear_session()
    tf_keras.utils.set_random_seed(seed)


@contextlib.contextmanager
def deterministic(settings: TrainerSettings) -> Iterator[None]:
    """Makes the operations of a GPU deterministic while a `single` training runs; a CPU's are.

    Args:
      settings: the section `trainer`.
    """
    if settings.strategy == MIRRORED or not tf.config.list_physical_devices("GPU"):
        yield
        return
    from tensorflow.python.framework import config

    tf.config.experimental.enable_op_determinism()
    try:
        yield
    finally:
        config.disable_op_determinism()
