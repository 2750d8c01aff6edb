"""The devices of a training: GPUs where there are any, else logical devices on the CPU.

TensorFlow fixes the number of logical devices when its context starts, which the first operation does. `configure` is
therefore called as early as a process can; where it comes too late, the Trainer trains in a child process.
"""

from __future__ import annotations

import dataclasses
import glob
import itertools
import logging
import os
from collections.abc import Mapping
from typing import Any

from evergreen.components.errors import ConfigError
from evergreen.components.trainer import cluster as clusters
from evergreen.components.trainer.cluster import Cluster
from evergreen.components.trainer.settings import (
    AUTO,
    MIRRORED,
    MODEL_PARALLEL,
    MULTI_WORKER,
    ON_DEVICES,
    PARAMETER_SERVER,
    SINGLE,
    Threads,
    TrainerSettings,
)

_log = logging.getLogger(__name__)


def resolve(settings: TrainerSettings) -> tuple[TrainerSettings, str]:
    """Replaces `auto` by the strategy that fits what is there.

    Args:
      settings: the section `trainer`.

    Returns:
      The settings with a strategy by name, and why it was picked; an empty reason where the settings name it.
    """
    if settings.strategy != AUTO:
        return settings, ""
    plan = clusters.read(os.environ) if settings.run_fn is None else None  # it trains in this process
    servers = len(plan.tasks(clusters.PS)) if plan else 0
    workers = len(plan.tasks(clusters.WORKER, clusters.CHIEF)) if plan else 0
    gpus = _gpus()
    count = settings.devices or gpus or 1
    if servers:
        picked, reason = PARAMETER_SERVER, f"TF_CONFIG names {servers} parameter servers"
    elif workers > 1:
        picked, reason = MULTI_WORKER, f"TF_CONFIG names {workers} workers and no parameter server"
    elif count > 1:
        there = f"there are {gpus} GPUs" if settings.devices is None else f"trainer.devices is {count}"
        picked, reason = MIRRORED, there
    else:
        picked, reason = (
            SINGLE,
            "there is one GPU" if gpus else "there is no GPU, and trainer.devices asks for one device",
        )
    return dataclasses.replace(settings, strategy=picked), reason


def _gpus() -> int:
    import tensorflow as tf

    return len(tf.config.list_physical_devices("GPU"))


def visible_gpus() -> list[str]:
    """Returns the GPUs that TensorFlow would see, as CUDA_VISIBLE_DEVICES names them, without loading it."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [str(number) for number, _ in enumerate(glob.glob("/dev/nvidia[0-9]*"))]
    # CUDA takes no device that is named after one that does not exist.
    return list(itertools.takewhile(lambda name: name not in ("", "-1"), map(str.strip, named.split(","))))


def count(settings: TrainerSettings) -> int:
    """Returns how many devices of this machine the settings ask for, where they say so."""
    if settings.strategy == MODEL_PARALLEL:
        return settings.mesh[0] * settings.mesh[1]
    return settings.devices or 1


def configure(settings: TrainerSettings | Mapping[str, Any]) -> None:
    """Asks TensorFlow for the logical devices that a training needs; without effect once TensorFlow has started.

    Args:
      settings: the section `trainer`.
    """
    if not isinstance(settings, TrainerSettings):
        settings = TrainerSettings.from_dict(settings)
    settings, _ = resolve(settings)
    wanted = count(settings) if settings.strategy in ON_DEVICES else 1
    if wanted == 1 and settings.threads == Threads():
        return
    import tensorflow as tf

    try:
        tf.config.threading.set_inter_op_parallelism_threads(settings.threads.inter_op)
        tf.config.threading.set_intra_op_parallelism_threads(settings.threads.intra_op)
        if wanted > 1 and not tf.config.list_physical_devices("GPU"):
            cpu = tf.config.list_physical_devices("CPU")[0]
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * wanted)
    except RuntimeError:
        _log.info("TensorFlow has started: its logical devices and threads stay as they are.")


def enough(settings: TrainerSettings) -> bool:
    """Tells whether this process has the logical devices and threads of a training. Starts TensorFlow's context."""
    import tensorflow as tf

    threads = Threads(
        tf.config.threading.get_inter_op_parallelism_threads(), tf.config.threading.get_intra_op_parallelism_threads()
    )
    if settings.threads not in (Threads(), threads):
        return False
    if settings.strategy not in ON_DEVICES or tf.config.list_physical_devices("GPU"):
        return True
    return len(tf.config.list_logical_devices("CPU")) >= count(settings)


def choose(settings: TrainerSettings, cluster: Cluster | None = None) -> list[str]:
    """Chooses the devices of a training. Starts TensorFlow's context, but for a cluster.

    Args:
      settings: the section `trainer`.
      cluster: under `parameter_server`, the cluster.

    Returns:
      Device names as TensorFlow takes them, for example `GPU:0`; the workers of a cluster.

    Raises:
      ConfigError: the machine has fewer, or the batch cannot be split over them.
    """
    if cluster is not None:
        return [str(task) for task in cluster.plan.tasks("worker")]
    import tensorflow as tf

    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    names = [f"{kind}:{number}" for number, _ in enumerate(tf.config.list_logical_devices(kind))]
    if settings.strategy not in ON_DEVICES:
        return names[:1]
    wanted = count(settings)
    if settings.strategy != MODEL_PARALLEL and settings.devices is None and kind == "GPU":
        wanted = len(names)
    if len(names) < wanted:
        key = "mesh" if settings.strategy == MODEL_PARALLEL else "devices"
        raise ConfigError(
            f"there are not {wanted} devices",
            f"received trainer.{key}={wanted}, found {', '.join(names)}",
            f"Lower trainer.{key}.",
        )
    if settings.strategy != MODEL_PARALLEL and settings.global_batch_size % wanted:
        raise ConfigError(
            "the batch cannot be split evenly",
            f"received trainer.global_batch_size={settings.global_batch_size}, expected a multiple of {wanted} devices",
            "Change trainer.global_batch_size or trainer.devices.",
        )
    return names[:wanted]
