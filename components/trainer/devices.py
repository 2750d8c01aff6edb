"""The devices of a training: GPUs where there are any, else logical devices on the CPU.

TensorFlow fixes the number of logical devices when its context starts, which the first operation does. `configure` is
therefore called as early as a process can; where it comes too late, the Trainer trains in a child process.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from evergreen.components.errors import ConfigError
from evergreen.components.trainer.cluster import Cluster
from evergreen.components.trainer.settings import MIRRORED, TrainerSettings

_log = logging.getLogger(__name__)


def configure(settings: TrainerSettings | Mapping[str, Any]) -> None:
    """Asks TensorFlow for the logical devices that a training needs; without effect once TensorFlow has started.

    Args:
      settings: the section `trainer`.
    """
    if not isinstance(settings, TrainerSettings):
        settings = TrainerSettings.from_dict(settings)
    wanted = settings.devices or 1
    if settings.strategy != MIRRORED or wanted == 1:
        return
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        return
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * wanted)
    except RuntimeError:
        _log.info("TensorFlow has started: its logical devices stay as they are.")


def enough(settings: TrainerSettings) -> bool:
    """Tells whether this process has the logical devices that a training needs. Starts TensorFlow's context."""
    import tensorflow as tf

    if settings.strategy != MIRRORED or tf.config.list_physical_devices("GPU"):
        return True
    return len(tf.config.list_logical_devices("CPU")) >= (settings.devices or 1)


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
    if settings.strategy != MIRRORED:
        return names[:1]
    wanted = settings.devices or (len(names) if kind == "GPU" else 1)
    if len(names) < wanted:
        raise ConfigError(
            f"there are not {wanted} devices",
            f"received trainer.devices={wanted}, found {', '.join(names)}",
            "Lower trainer.devices.",
        )
    if settings.global_batch_size % wanted:
        raise ConfigError(
            "the batch cannot be split evenly",
            f"received trainer.global_batch_size={settings.global_batch_size}, expected a multiple of {wanted} devices",
            "Change trainer.global_batch_size or trainer.devices.",
        )
    return names[:wanted]
