"""The distribution strategy of a training, by name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from evergreen.components.trainer.cluster import Cluster
from evergreen.components.trainer.settings import MIRRORED, TrainerSettings


def create(settings: TrainerSettings, devices: Sequence[str], cluster: Cluster | None = None) -> tf.distribute.Strategy:
    """Makes the strategy.

    Args:
      settings: the section `trainer`.
      devices: device names; see `devices.choose`.
      cluster: under `parameter_server`, the cluster; TensorFlow must not have started when it is connected to.

    Returns:
      For `single` TensorFlow's default strategy, which leaves no trace in graph or variables.
    """
    if cluster is not None:
        from evergreen.components.trainer import parameter_server

        return parameter_server.create(cluster)
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
    """Prepares global batches for the replicas: each takes its `share` of what this gives.

    GPUs get their shares prefetched. Replicas on the CPU share memory, and cut theirs out of the global batch: the
    iterator over several devices costs a step much and its end waits for seconds.
    """
    return strategy.experimental_distribute_dataset(dataset) if _prefetches(strategy) else dataset


def share(strategy: tf.distribute.Strategy, batch: Any) -> Any:
    """Returns, in a replica, the part of a batch from `distribute` that this replica computes.

    Args:
      strategy: the strategy.
      batch: a nest of tensors, batch first.

    Returns:
      The same nest; without a row where there are fewer rows than replicas.
    """
    replicas = strategy.num_replicas_in_sync
    if replicas == 1 or _prefetches(strategy):
        return batch
    number = tf.distribute.get_replica_context().replica_id_in_sync_group

    def cut(tensor: tf.Tensor) -> tf.Tensor:
        rows = -(-tf.shape(tensor)[0] // replicas)
        return tensor[number * rows : (number + 1) * rows]

    return tf.nest.map_structure(cut, batch)


def _prefetches(strategy: tf.distribute.Strategy) -> bool:
    return distributes(strategy) and not all("CPU" in device for device in strategy.extended.worker_devices)


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
