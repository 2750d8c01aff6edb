"""The section `trainer` of the configuration, as the component receives it: JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from evergreen.components.errors import ConfigError

AUTO = "auto"
SINGLE = "single"
MIRRORED = "mirrored"
CENTRAL_STORAGE = "central_storage"
MULTI_WORKER = "multi_worker_mirrored"
PARAMETER_SERVER = "parameter_server"
MODEL_PARALLEL = "model_parallel"
STRATEGIES = (AUTO, SINGLE, MIRRORED, CENTRAL_STORAGE, MULTI_WORKER, PARAMETER_SERVER, MODEL_PARALLEL)
# Those whose devices are on this machine, and those that need processes which talk to each other.
ON_DEVICES = (MIRRORED, CENTRAL_STORAGE, MODEL_PARALLEL)
ON_CLUSTERS = (MULTI_WORKER, PARAMETER_SERVER)
# A `run_fn` gets a strategy for its own loop, in one process; the other strategies are loops of ours.
FOR_RUN_FN = (AUTO, SINGLE, MIRRORED, CENTRAL_STORAGE)
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
UPDATES = ("sync", "async")
ALL_REDUCES = ("auto", "nccl", "hierarchical", "one_device", "ring")


@dataclass(frozen=True)
class EarlyStopping:
    """When training ends before its last step.

    Attributes:
      metric: `val_loss` or `val_<a metric of the model>`.
      patience: how many measurements without a gain end the training.
      every: steps between two measurements.
    """

    metric: str = "val_loss"
    patience: int = 3
    every: int = 200


@dataclass(frozen=True)
class WarmStart:
    """Training that starts from the champion's weights.

    Attributes:
      cold_every: every so many runs start from scratch.
    """

    cold_every: int = 10


@dataclass(frozen=True)
class Cluster:
    """The local processes of a cluster, where TF_CONFIG names none, and how long any cluster may be silent.

    Attributes:
      workers: worker processes.
      ps: parameter servers; `multi_worker_mirrored` has none.
      timeout: seconds after which a process that does not answer is taken for lost.
    """

    workers: int = 2
    ps: int = 1
    timeout: int = 60


@dataclass(frozen=True)
class Staleness:
    """What bounds the staleness of asynchronous updates.

    Attributes:
      scale: whether a gradient is divided by one plus its staleness.
      max_in_flight: how many gradients may be computed at once; None for as many as there are workers.
    """

    scale: bool = False
    max_in_flight: int | None = None


@dataclass(frozen=True)
class AllReduce:
    """How gradients are averaged.

    Attributes:
      algorithm: `auto`, or `nccl`, `hierarchical` and `one_device` under `mirrored`, `nccl` and `ring` under
        `multi_worker_mirrored`.
      bytes_per_pack: gradients are sent in packs of so many bytes; 0 lets TensorFlow choose.
    """

    algorithm: str = "auto"
    bytes_per_pack: int = 0


@dataclass(frozen=True)
class Threads:
    """TensorFlow's threads; 0 lets it choose.

    Attributes:
      inter_op: operations that run side by side.
      intra_op: threads within one operation.
    """

    inter_op: int = 0
    intra_op: int = 0


@dataclass(frozen=True)
class TrainerSettings:
    """How a model is trained.

    Attributes:
      model: `module:function` of a `build_model`; None with `run_fn`.
      run_fn: `module:function` of a stock `run_fn`; None with `model`.
      strategy: one of STRATEGIES; `auto` chooses by what it sees.
      devices: how many devices of this machine; None for all.
      mesh: under `model_parallel`, devices along the batch and along the model.
      cluster: the local processes of `multi_worker_mirrored` and `parameter_server`.
      update: under `parameter_server`, `sync` or `async`.
      backup_workers: under `parameter_server` with `sync`, how many shards of a step are computed twice.
      staleness: under `parameter_server` with `async`, what bounds it.
      all_reduce: how gradients are averaged.
      max_restarts: how often a cluster's job that lost a process starts again from its checkpoint.
      checkpoint_every: steps between two checkpoints; 0 for none.
      precision: `float32`, `mixed_bfloat16` or `mixed_float16`.
      threads: TensorFlow's threads.
      profile: first and last step of a TensorBoard trace; None for none.
      seed: sets every random generator.
      global_batch_size: rows in a step, over all devices together.
      steps: training steps at most.
      early_stopping: None to train all steps.
      warm_start: None to start from scratch always.
      hyperparameters: handed to the user's function as they are.
    """

    model: str | None = None
    run_fn: str | None = None
    strategy: str = SINGLE
    devices: int | None = None
    mesh: tuple[int, int] = (1, 2)
    cluster: Cluster = field(default_factory=Cluster)
    update: str = "sync"
    backup_workers: int = 0
    staleness: Staleness = field(default_factory=Staleness)
    all_reduce: AllReduce = field(default_factory=AllReduce)
    max_restarts: int = 3
    checkpoint_every: int = 200
    precision: str = "float32"
    threads: Threads = field(default_factory=Threads)
    profile: tuple[int, int] | None = None
    seed: int = 0
    global_batch_size: int = 512
    steps: int = 2000
    early_stopping: EarlyStopping | None = None
    warm_start: WarmStart | None = None
    hyperparameters: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, text: str) -> TrainerSettings:
        """Reads the settings.

        Args:
          text: a JSON object with the attributes of this class as keys; what is absent has its default.

        Returns:
          The settings.

        Raises:
          ConfigError: a key or a value is not what this class expects.
        """
        return cls.from_dict(json.loads(text))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainerSettings:
        """See `from_json`."""
        settings = parse(values)
        for key, received, expected in settings.problems():
            raise _wrong(key, received, expected)
        return settings

    @property
    def shares(self) -> int:
        """Into how many equal parts a global batch is cut, as far as the settings say so."""
        if self.strategy == MODEL_PARALLEL:
            return self.mesh[0]
        if self.strategy == MULTI_WORKER:
            return self.cluster.workers
        if self.strategy == PARAMETER_SERVER:
            return self.cluster.workers - self.backup_workers if self.update == "sync" else 1
        return self.devices or 1

    def problems(self) -> Iterator[tuple[str, Any, str]]:
        """Yields what does not fit: the key, the value received, and what is expected."""
        if (self.model is None) == (self.run_fn is None):
            yield "trainer", "neither" if self.model is None else "both", "one of `model` and `run_fn`"
        offers = (
            ("strategy", self.strategy, STRATEGIES),
            ("precision", self.precision, PRECISIONS),
            ("update", self.update, UPDATES),
            ("all_reduce.algorithm", self.all_reduce.algorithm, ALL_REDUCES),
        )
        for key, value, offered in offers:
            if value not in offered:
                yield f"trainer.{key}", value, f"one of {', '.join(offered)}"
        at_least = (
            ("global_batch_size", self.global_batch_size, 1),
            ("steps", self.steps, 1),
            ("checkpoint_every", self.checkpoint_every, 0),
            ("max_restarts", self.max_restarts, 0),
            ("backup_workers", self.backup_workers, 0),
            ("devices", self.devices, 1),
            ("cluster.workers", self.cluster.workers, 1),
            ("cluster.ps", self.cluster.ps, 1),
            ("cluster.timeout", self.cluster.timeout, 1),
            ("staleness.max_in_flight", self.staleness.max_in_flight, 1),
            ("mesh", min(self.mesh), 1),
            ("early_stopping.every", self.early_stopping.every if self.early_stopping else None, 1),
        )
        for key, number, least in at_least:
            if number is not None and number < least:
                yield f"trainer.{key}", number, f"at least {least}"
        if (self.devices or 1) > 1 and self.strategy not in (AUTO, *ON_DEVICES):
            yield "trainer.devices", self.devices, f"1; several under {', '.join(ON_DEVICES)}"
        if self.run_fn is not None and self.strategy not in FOR_RUN_FN:
            yield "trainer.strategy", self.strategy, f"one of {', '.join(FOR_RUN_FN)} with `run_fn`"
        if self.precision != "float32" and self.run_fn is not None:
            yield "trainer.precision", self.precision, "float32 with `run_fn`, which sets its own"
        elif self.precision != "float32" and self.strategy in (PARAMETER_SERVER, MODEL_PARALLEL):
            yield "trainer.precision", self.precision, f"float32 under {self.strategy}"
        if self.backup_workers and self.backup_workers >= self.cluster.workers:
            yield "trainer.backup_workers", self.backup_workers, "fewer than `trainer.cluster.workers`"
        elif self.global_batch_size % max(1, self.shares):
            expected = f"a multiple of the {self.shares} devices or workers that share it"
            yield "trainer.global_batch_size", self.global_batch_size, expected
        if self.profile is not None and not 1 <= self.profile[0] <= self.profile[1]:
            yield "trainer.profile", list(self.profile), "the first and the last step, from 1 on"


_SECTIONS: dict[str, type] = {
    "early_stopping": EarlyStopping,
    "warm_start": WarmStart,
    "cluster": Cluster,
    "staleness": Staleness,
    "all_reduce": AllReduce,
    "threads": Threads,
}


def parse(values: Mapping[str, Any]) -> TrainerSettings:
    """Reads the settings without judging the values; `TrainerSettings.problems` does.

    Args:
      values: the attributes of TrainerSettings by name.

    Returns:
      The settings.

    Raises:
      ConfigError: there is no such key.
    """
    values = dict(values)
    for key, section in _SECTIONS.items():
        if values.get(key) is not None:
            values[key] = section(**_known(section, values[key], f"trainer.{key}"))
    for key in ("mesh", "profile"):
        if values.get(key) is not None:
            values[key] = tuple(values[key])
    return TrainerSettings(**_known(TrainerSettings, values, "trainer"))


def _known(section: Any, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    unknown = sorted(set(values) - set(section.__dataclass_fields__))
    if unknown:
        raise _wrong(f"{where}.{unknown[0]}", values[unknown[0]], f"one of {', '.join(section.__dataclass_fields__)}")
    return dict(values)


def _wrong(key: str, received: Any, expected: str) -> ConfigError:
    return ConfigError(
        f"{key} is wrong",
        f"received {received!r}, expected {expected}",
        "Correct it in evergreen.yaml, or where the Trainer is built.",
    )
