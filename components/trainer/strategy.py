"""The distribution strategy of a training, by name."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from evergreen.components.errors import ConfigError
from evergreen.components.trainer.cluster import PS, Cluster
from evergreen.components.trainer.settings import CENTRAL_STORAGE, MIRRORED, MULTI_WORKER, SINGLE, TrainerSettings

# The least bytes of a part of a variable that is split over parameter servers.
MIN_SHARD_BYTES = 256 << 10


def create(
    settings: TrainerSettings, devices: Sequence[str], gradient_bytes: int = 0, cluster: Cluster | None = None
) -> tf.distribute.Strategy:
    """Makes the strategy.

    Args:
      settings: the section `trainer`.
      devices: device names; see `devices.choose`.
      gradient_bytes: bytes of all gradients, for `all_reduce.bytes_per_pack`.
      cluster: under `parameter_server`, the cluster; TensorFlow must not have started when it is connected to.

    Returns:
      For `single` TensorFlow's default strategy, which leaves no trace in graph or variables.
    """
    if cluster is not None:
        return _parameter_server(cluster)
    if settings.strategy == MIRRORED:
        return tf.distribute.MirroredStrategy(
            list(devices), cross_device_ops=_reduction(settings, devices, gradient_bytes)
        )
    if settings.strategy == MULTI_WORKER:
        kinds = tf.distribute.experimental.CommunicationImplementation
        options = tf.distribute.experimental.CommunicationOptions(
            bytes_per_pack=settings.all_reduce.bytes_per_pack,
            implementation={"ring": kinds.RING, "nccl": kinds.NCCL}.get(settings.all_reduce.algorithm, kinds.AUTO),
        )
        return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    if settings.strategy == CENTRAL_STORAGE:
        return tf.distribute.experimental.CentralStorageStrategy(list(devices), parameter_device="CPU:0")
    return tf.distribute.get_strategy()


def _reduction(
    settings: TrainerSettings, devices: Sequence[str], gradient_bytes: int
) -> tf.distribute.CrossDeviceOps | None:
    algorithm = settings.all_reduce.algorithm
    on_cpu = all(name.startswith("CPU") for name in devices)
    if algorithm == "one_device" or (algorithm == "auto" and on_cpu):
        # TensorFlow's default for CPU devices goes through collective operations: the same sums for more of the CPU.
        return tf.distribute.ReductionToOneDevice()
    # TensorFlow counts packs here, not their bytes.
    packs = (
        max(1, -(-gradient_bytes // settings.all_reduce.bytes_per_pack)) if settings.all_reduce.bytes_per_pack else 1
    )
    if algorithm == "hierarchical":
        return tf.distribute.HierarchicalCopyAllReduce(num_packs=packs)
    if algorithm == "nccl":
        return tf.distribute.NcclAllReduce(num_packs=packs)
    return None


def _parameter_server(joined: Cluster) -> tf.distribute.Strategy:
    """Connects to a cluster and makes the strategy, before TensorFlow does anything else in this process.

    Args:
      joined: from `cluster.join`.

    Returns:
      A strategy whose variables are on the parameter servers, those of 512 KiB and more split over them.

    Raises:
      ConfigError: a task does not answer, or a worker has several GPUs.
      LostProcess: a local task ended.
    """
    joined.wait()
    # A lost worker is reported by the loop in a line, not in pages for each of its closures.
    tf.get_logger().setLevel(logging.CRITICAL)
    plan = joined.plan
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({job: list(addresses) for job, addresses in plan.jobs.items()}),
        task_type=plan.task.job,
        task_id=plan.task.index,
        rpc_layer="grpc",
    )
    partitioner = tf.distribute.experimental.partitioners.MinSizePartitioner(
        MIN_SHARD_BYTES, max_shards=len(plan.tasks(PS))
    )
    strategy = tf.distribute.ParameterServerStrategy(resolver, variable_partitioner=partitioner)
    if strategy.num_replicas_in_sync > 1:
        raise ConfigError(
            "a worker has several GPUs",
            f"received {strategy.num_replicas_in_sync}, expected one at most",
            "Start a worker for each GPU, with CUDA_VISIBLE_DEVICES set to it.",
        )
    return strategy


def distributes(strategy: tf.distribute.Strategy) -> bool:
    """Tells whether variables made under the strategy are distributed ones."""
    return tf.distribute.get_strategy() is not strategy


def local_replicas(strategy: tf.distribute.Strategy) -> int:
    """Returns how many devices of this process compute under a strategy."""
    return len(strategy.extended.worker_devices) if distributes(strategy) else 1


def distribute(strategy: tf.distribute.Strategy, dataset: tf.data.Dataset) -> Any:
    """Prepares global batches for the replicas: each takes its `share` of what this gives.

    GPUs get their shares prefetched. Replicas on the CPU share memory, and cut theirs out of the global batch: the
    iterator over several devices costs a step much and its end waits for seconds.
    """
    return strategy.experimental_distribute_dataset(dataset) if prefetches(strategy) else dataset


def share(strategy: tf.distribute.Strategy, batch: Any) -> Any:
    """Returns, in a replica, the part of a batch from `distribute` that this replica computes.

    Args:
      strategy: the strategy.
      batch: a nest of tensors, batch first.

    Returns:
      The same nest; without a row where there are fewer rows than replicas.
    """
    replicas = strategy.num_replicas_in_sync
    if replicas == 1 or prefetches(strategy):
        return batch
    number = tf.distribute.get_replica_context().replica_id_in_sync_group

    def cut(tensor: tf.Tensor) -> tf.Tensor:
        rows = -(-tf.shape(tensor)[0] // replicas)
        return tensor[number * rows : (number + 1) * rows]

    return tf.nest.map_structure(cut, batch)


def prefetches(strategy: tf.distribute.Strategy) -> bool:
    """Tells whether TensorFlow hands each replica its share of a batch, ahead of the step."""
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
    if settings.strategy != SINGLE or not tf.config.list_physical_devices("GPU"):
        yield
        return
    from tensorflow.python.framework import config

    tf.config.experimental.enable_op_determinism()
    try:
        yield
    finally:
        config.disable_op_determinism()


@contextlib.contextmanager
def precision(settings: TrainerSettings) -> Iterator[None]:
    """Sets the precision in which layers that are made meanwhile compute; their weights are float32.

    Args:
      settings: the section `trainer`. Under `mixed_float16` Keras scales the loss by itself.
    """
    before = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy(settings.precision)
    try:
        yield
    finally:
        tf_keras.mixed_precision.set_global_policy(before)


def fit_optimizer(strategy: tf.distribute.Strategy, optimizer: Any) -> None:
    """Makes an optimizer work under `central_storage`, where each replica writes the rate of a schedule.

    Keras makes that variable without saying which replica's value counts, and the strategy then refuses the write.

    Args:
      strategy: the strategy, in whose scope the optimizer was made.
      optimizer: a tf_keras optimizer.
    """
    rate = getattr(optimizer, "_current_learning_rate", None)
    if isinstance(strategy, tf.distribute.experimental.CentralStorageStrategy) and rate is not None:
        with strategy.scope():
            optimizer._current_learning_rate = tf.Variable(
                rate.numpy(), trainable=False, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
            )
