"""The trainings of `evergreen scaling`: which ones, on what, and what each shows of its steps.

Each is a process of its own that trains a few steps on what the project's last Trainer read. Its outputs go to a
temporary folder: nothing is recorded in ML Metadata, nothing is published. Neither TensorFlow nor TFX is imported.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evergreen.components import progress
from evergreen.components.errors import ConfigError
from evergreen.components.span_records import property_value
from evergreen.components.trainer import child, cluster, devices
from evergreen.components.trainer import settings as trainer_settings
from evergreen.components.trainer.request import Examples, Request
from evergreen.components.trainer.settings import MIRRORED, PARAMETER_SERVER, SINGLE, TrainerSettings
from evergreen.pipeline.config import Config
from evergreen.pipeline.store import State, Store

_STEP = re.compile(r"step (\d+)/\d+")
_LOOPBACK, _SENT = "lo:", 9
# Asynchronous updates are timed by the clock, and the fewer points the curve has, the less of it goes into them.
_STEPS_OF_ASYNC = 5


@dataclass(frozen=True)
class Case:
    """A training to be measured.

    Attributes:
      strategy: its name.
      replicas: devices or workers.
      settings: how to train.
    """

    strategy: str
    replicas: int
    settings: TrainerSettings

    def __str__(self) -> str:
        return self.strategy if self.strategy == SINGLE else f"{self.strategy} {self.replicas}"


@dataclass(frozen=True)
class Mark:
    """What was seen when a step was done.

    Attributes:
      step: its number, from 1 on.
      time: seconds of a monotonic clock.
      bytes: what the training's own network had moved by then; None where it has none.
    """

    step: int
    time: float
    bytes: int | None


@dataclass(frozen=True)
class Measured:
    """What a training showed.

    Attributes:
      step_s: seconds of a step; under `parameter_server` with `async`, between two updates.
      bytes: what a step moved between the processes, in all; None where that cannot be counted.
      report: the training report.
    """

    step_s: float
    bytes: float | None
    report: Mapping[str, Any]


def plan(config: Config, strategies: Sequence[str], replicas: Sequence[int], steps: int) -> list[Case]:
    """Plans the trainings, `single` first.

    Args:
      config: the project's configuration.
      strategies: of `scaling.STRATEGIES`.
      replicas: numbers of devices or workers.
      steps: of each training; several times as many of asynchronous updates.

    Returns:
      The cases.

    Raises:
      ConfigError: the settings refuse some of them, or the project's training is not one that can be measured.
    """
    if config.trainer.run_fn is not None:
        raise ConfigError(
            "evergreen scaling cannot measure a run_fn",
            f"trainer.run_fn is {config.trainer.run_fn}, whose steps are its own",
            "Offer a build_model in trainer.model.",
        )
    if cluster.read(os.environ) is not None:
        raise ConfigError(
            f"evergreen scaling does not use the cluster of {cluster.VARIABLE}",
            "it varies the number of workers, which it starts on this machine",
            f"Unset {cluster.VARIABLE}.",
        )
    common = {
        **config.trainer.model_dump(mode="json"),
        "early_stopping": None,
        "warm_start": None,
        "checkpoint_every": 0,
        "profile": None,
        "backup_workers": 0,
        "steps": steps,
    }

    def case(strategy: str, count: int) -> Case:
        values = {
            **common,
            "strategy": strategy,
            "devices": count if strategy == MIRRORED else None,
            "cluster": {"workers": count, "ps": config.trainer.cluster.ps},
        }
        if strategy == PARAMETER_SERVER and config.trainer.update == "async":
            values["steps"] = _STEPS_OF_ASYNC * steps
        return Case(strategy, count, trainer_settings.parse(values))

    cases = [case(SINGLE, 1), *(case(strategy, count) for strategy in strategies for count in replicas)]
    problems = [
        f"{one}: {key} is {received}, expected {expected}"
        for one in cases
        for key, received, expected in one.settings.problems()
    ]
    there = len(devices.visible_gpus())
    problems += [
        f"{one}: this machine has {there} GPUs"
        for one in cases
        if one.strategy == MIRRORED and 0 < there < one.replicas
    ]
    if problems:
        raise ConfigError(
            "these trainings cannot be measured",
            "\n".join(problems),
            "Choose other --strategy or --replicas, or change the key with --set.",
        )
    return cases


def last_training(config: Config, store: Store) -> Request:
    """Finds what the project's last Trainer read.

    Args:
      config: the project's configuration.
      store: its metadata store.

    Returns:
      A request with the present settings, which writes nowhere yet.

    Raises:
      ConfigError: no Trainer has come to its end, or what it read is gone.
    """
    stages = [
        stage
        for run in store.runs(stages=True)
        for stage in run.stages
        if stage.node == "Trainer" and stage.state in (State.DONE, State.CACHED)
    ]
    if not stages:
        raise ConfigError(
            "there is no training to measure yet",
            "evergreen scaling trains on what the last run's Trainer read, and none has come to its end",
            "Run `evergreen run` first.",
        )
    inputs = store.inputs(stages[-1].execution_id)
    window = inputs.get("examples", [])
    uris = [artifact.uri for key in ("examples", "transform_graph") for artifact in inputs.get(key, [])]
    gone = [uri for uri in uris if "://" not in uri and not os.path.isdir(uri)]
    if gone or not window or not inputs.get("transform_graph"):
        raise ConfigError(
            "what the last Trainer read is gone",
            f"not there: {', '.join(gone) or 'its Examples or its TransformGraph'}",
            "Run `evergreen run` on the newest span again.",
        )
    examples = tuple(_examples(artifact) for artifact in window)
    return Request(
        settings=trainer_settings.parse(config.trainer.model_dump(mode="json")),
        project_dir=str(config.project_dir),
        label=config.evaluate.label,
        newest_span=max(one.span for one in examples),
        examples=examples,
        transform_graph=inputs["transform_graph"][0].uri,
        schema=str(config.schema_path),
        model_dir="",
        run_dir="",
    )


def _examples(artifact: Any) -> Examples:
    """Reads an Examples artifact's proto as `request.from_artifacts` reads TFX's object, without loading TFX."""
    splits = tuple(json.loads(property_value(artifact, "split_names", "[]")))
    rows = {split: property_value(artifact, f"rows_{split}") for split in splits}
    return Examples(
        artifact.uri,
        int(property_value(artifact, "span", 0)),
        int(property_value(artifact, "version", 0)),
        splits,
        {split: int(count) for split, count in rows.items() if count is not None},
    )


def measure(case: Case, request: Request, listener: progress.Listener) -> Measured:
    """Trains, and measures the steps.

    Args:
      case: what to train.
      request: what to train on.
      listener: hears how far it is.

    Returns:
      What it showed.

    Raises:
      EvergreenError: what the training refuses.
      RuntimeError: it failed.
    """
    marks: list[Mark] = []

    def hear(fraction: float | None, text: str) -> None:
        step = _STEP.match(text)
        if step is not None:
            marks.append(Mark(int(step[1]), time.monotonic(), own_network_bytes(process.process.pid)))
        listener(fraction, text)

    with tempfile.TemporaryDirectory(prefix="evergreen-scaling-") as folder:
        request = dataclasses.replace(
            request,
            settings=case.settings,
            model_dir=os.path.join(folder, "model"),
            run_dir=os.path.join(folder, "model_run"),
        )
        with contextlib.closing(child.Child(request)) as process:
            progress.set_listener(hear)
            try:
                process.relay()
                process.process.wait()
                report = process.result()
            finally:
                progress.set_listener(None)
    return Measured(seconds_per_step(marks, report, case.settings.update), bytes_per_step(marks, report), report)


def seconds_per_step(marks: Sequence[Mark], report: Mapping[str, Any], update: str) -> float:
    """Returns the seconds of a step: the median, or under asynchronous updates the mean interval between two.

    Asynchronous workers go on while the coordinator does something else, so that theirs is the time on the clock,
    including what the points of the curve take.

    Args:
      marks: what was seen behind some of the steps, in order.
      report: the training report.
      update: `sync` or `async`.
    """
    if report["strategy"] != PARAMETER_SERVER or update == "sync" or not _apart(marks):
        return float(report["step_ms"]["p50"]) / 1e3
    return (marks[-1].time - marks[0].time) / (marks[-1].step - marks[0].step)


def bytes_per_step(marks: Sequence[Mark], report: Mapping[str, Any]) -> float | None:
    """Returns what a step moved, from a counter that was read behind some of the steps.

    At each point of the curve the coordinator of `parameter_server` reads all weights, which is no part of a step.

    Args:
      marks: what was seen behind some of the steps, in order.
      report: the training report.

    Returns:
      Bytes; None where the counter could not be read.
    """
    known = [mark for mark in marks if mark.bytes is not None]
    if not _apart(known) or not report.get("bytes"):
        return None
    first, last = known[0], known[-1]
    assert first.bytes is not None and last.bytes is not None
    points = [point for point in report["curve"] if first.step <= point["step"] < last.step]
    read = len(points) * report["bytes"]["weights"] if report["strategy"] == PARAMETER_SERVER else 0
    return (last.bytes - first.bytes - read) / (last.step - first.step)


def _apart(marks: Sequence[Mark]) -> bool:
    return len(marks) > 1 and marks[-1].step > marks[0].step


def own_network_bytes(pid: int) -> int | None:
    """Returns the bytes that went through the loopback interface of a process that has a network of its own.

    Args:
      pid: the process.

    Returns:
      Bytes since its network began; None where it shares this process's, whose counters count other things too.
    """
    try:
        if os.stat(f"/proc/{pid}/ns/net").st_ino == os.stat("/proc/self/ns/net").st_ino:
            return None
        with open(f"/proc/{pid}/net/dev", encoding="ascii") as file:
            lines = [line.split() for line in file]
    except OSError:
        return None
    return next((int(words[_SENT]) for words in lines if words and words[0] == _LOOPBACK), None)
