"""The training report: what a training did, how long each part took, and the curves for TensorBoard."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from evergreen.components import model_layout, progress
from evergreen.components.trainer.request import Request

if TYPE_CHECKING:  # these import TensorFlow, which the executor's import must not
    from evergreen.components.trainer.input_path import Dataset
    from evergreen.components.trainer.loop import Outcome
    from evergreen.components.trainer.warm_start import Result

FORMAT = 1


class Phases:
    """Seconds by phase, in the order in which they began."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def phase(self, name: str, text: str) -> Iterator[None]:
        """Times a phase and says that it began.

        Args:
          name: its name in the report; the seconds of phases of the same name add up.
          text: what is happening, for the listener of `evergreen.components.progress`.
        """
        progress.report(None, text)
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - started, 3)


def build(
    request: Request,
    devices: list[str],
    replicas: int,
    training: Dataset,
    validation: Dataset,
    start: Result,
    outcome: Outcome,
    parameters: int,
    features: tuple[str, ...],
    signatures: list[str],
    phases: Phases,
) -> dict[str, Any]:
    """Puts the report together.

    Args:
      request: what was asked.
      devices: this process's devices of the strategy.
      replicas: on how many devices the model was trained, in all processes.
      training: the training rows.
      validation: the validation rows.
      start: how it started.
      outcome: what the loop did.
      parameters: how many numbers the weights hold.
      features: the transformed features that the model reads.
      signatures: of the exported SavedModel.
      phases: seconds by phase.

    Returns:
      A JSON object; see docs/architecture.md.
    """
    settings = request.settings
    step_ms = np.array(outcome.step_ms or [outcome.trace_s * 1e3])
    p50 = float(np.percentile(step_ms, 50))
    return {
        "format": FORMAT,
        "steps": outcome.steps,
        "best_step": outcome.best_step,
        "stopped_early": outcome.stopped_early,
        "resumed_from": outcome.resumed_from,
        "checkpoints": outcome.checkpoints,
        "restarts": 0,
        "final": outcome.curve[-1],
        "curve": outcome.curve,
        "strategy": settings.strategy,
        "strategy_reason": request.picked,
        "devices": devices,
        "replicas": replicas,
        "global_batch_size": settings.global_batch_size,
        "per_replica_batch_size": -(-settings.global_batch_size // replicas),
        "precision": settings.precision,
        "seed": settings.seed,
        "hyperparameters": settings.hyperparameters,
        "parameters": parameters,
        "features": list(features),
        "signatures": signatures,
        "rows": {"train": training.rows, "validation": validation.rows},
        "rows_by_span": _by_span(training, validation),
        "epochs": round(outcome.steps * settings.global_batch_size / max(training.rows, 1), 2),
        "peak_bytes": outcome.peak_bytes,
        "cached_bytes": training.cached_bytes + validation.cached_bytes,
        "step_ms": {"p50": round(p50, 3), "p90": round(float(np.percentile(step_ms, 90)), 3)},
        "step_parts_ms": step_parts(outcome),
        "input_share": round(outcome.input_s / outcome.timed_s, 4) if outcome.timed_s else None,
        "examples_per_second": round(settings.global_batch_size / p50 * 1e3, 1),
        "trace_s": round(outcome.trace_s, 3),
        "staleness": {str(updates): count for updates, count in outcome.staleness.items()},
        "worker_losses": outcome.worker_losses,
        "seconds": phases.seconds,
        "seconds_total": round(sum(phases.seconds.values()), 3),
        "warm_start": dataclasses.asdict(start),
        "versions": versions(),
    }


def step_parts(outcome: Outcome) -> dict[str, float | None]:
    """Splits the mean step into its parts; `timing` says what each holds.

    Args:
      outcome: what the loop did.

    Returns:
      Milliseconds by part, `input`, `compute` and `communication`; None for what could not be measured. Where the
      communication could not be told from the computing, `compute` holds both.
    """
    if not outcome.timed_steps:
        return {"input": None, "compute": None, "communication": None}
    waited, moving = outcome.input_s, outcome.communication_s
    seconds = {"input": waited, "compute": outcome.timed_s - waited - (moving or 0.0), "communication": moving}
    return {
        part: None if value is None else round(max(0.0, value) / outcome.timed_steps * 1e3, 3)
        for part, value in seconds.items()
    }


def reset_peak() -> None:
    """Lets `peak_bytes` count from now on, where the system allows it."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def peak_bytes(devices: Sequence[str]) -> dict[str, int]:
    """Returns the most memory that was held at once, in bytes.

    Args:
      devices: device names; the allocator of each GPU counts what TensorFlow held there.

    Returns:
      By device; on CPUs `process`, which is all memory that the process held at once since `reset_peak`.
    """
    import tensorflow as tf

    gpus = [name for name in devices if name.startswith("GPU")]
    found = {name: int(tf.config.experimental.get_memory_info(name)["peak"]) for name in gpus}
    return found or {"process": _process_peak()}


def _process_peak() -> int:
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            (line,) = (line for line in file if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        # Not on Linux: there a child's figure begins with its parent's.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def describe(report: Mapping[str, Any]) -> list[str]:
    """Says in words how a training went, for the log.

    Args:
      report: from `build`, or of a `run_fn`, which tells less.

    Returns:
      Lines.
    """
    if "step_ms" not in report:
        return [f"trained by run_fn: {report['steps']} steps"]
    replicas, devices = report["replicas"], ", ".join(report["devices"])
    batch, share = report["global_batch_size"], report["per_replica_batch_size"]
    step = report["step_ms"]
    parts = [f"{name} {ms:.3g}" for name, ms in report["step_parts_ms"].items() if ms is not None]
    told = f" (mean: {', '.join(parts)} ms)" if parts else ""
    waiting = "" if report["input_share"] is None else f"; {report['input_share']:.1%} of the time waiting for input"
    counted = f"{replicas} replica{'s' * (replicas != 1)}"
    lines = [
        f"strategy {report['strategy']}: {counted} on {devices}; batch {batch}, {share} for each replica",
        f"step: p50 {step['p50']:.3g} ms, p90 {step['p90']:.3g} ms{told}",
        f"{report['examples_per_second']:,.0f} examples per second{waiting}",
        f"{report['steps']} steps from step {report['resumed_from']} on, {report['checkpoints']} checkpoints, "
        f"{report['restarts']} restarts, {report['worker_losses']} workers lost",
    ]
    updates = sum(report["staleness"].values())
    if updates:
        shares = (f"{stale}: {count / updates:.1%}" for stale, count in report["staleness"].items())
        lines.append(f"staleness of the updates: {', '.join(shares)}")
    return lines


def compact(report: Mapping[str, Any]) -> str:
    """Returns the report without curves and lists, short enough for a property in ML Metadata.

    Args:
      report: from `build`.

    Returns:
      JSON of a few hundred characters.
    """
    left_out = ("curve", "features", "rows_by_span", "warm_start", "hyperparameters", "signatures", "format", "bytes")
    short = {key: value for key, value in report.items() if key not in left_out}
    start = report["warm_start"]
    short["warm_start"] = {"warm": start["warm"], "reason": start["reason"]}
    return json.dumps(short, separators=(",", ":"))


def write(report: Mapping[str, Any], run_dir: str) -> None:
    """Writes the report into the ModelRun artifact.

    Args:
      report: from `build`.
      run_dir: the artifact's folder.
    """
    with open(os.path.join(run_dir, model_layout.REPORT_FILE), "w", encoding="utf-8") as file:
        json.dump(report, file, indent=1)


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the libraries that decide about weights."""
    import tensorflow as tf
    import tensorflow_transform as tft
    import tf_keras

    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "tf_keras": tf_keras.__version__,
        "tensorflow_transform": tft.__version__,
        "numpy": np.__version__,
    }


class TensorBoard:
    """Writes the curves as TensorBoard reads them: `logs/train` and `logs/validation`.

    `tf.summary.scalar` would need the package tensorboard, which TensorFlow does not bring along in every version.

    Args:
      run_dir: the ModelRun artifact's folder.
    """

    def __init__(self, run_dir: str):
        self._folder = os.path.join(run_dir, "logs")
        self._writers: dict[str, Any] = {}

    def folder(self, run: str) -> str:
        """Returns the folder of a curve, `train` or `validation`; a trace goes there too."""
        return os.path.join(self._folder, run)

    def point(self, point: Mapping[str, float]) -> None:
        """Writes a point of the curve.

        Args:
          point: `step`, and metrics with or without `val_`.
        """
        import tensorflow as tf
        from tensorflow.core.framework import summary_pb2

        scalar = summary_pb2.SummaryMetadata(data_class=summary_pb2.DATA_CLASS_SCALAR)
        scalar.plugin_data.plugin_name = "scalars"
        for name, value in point.items():
            if name == "step":
                continue
            run = "validation" if name.startswith("val_") else "train"
            if run not in self._writers:
                self._writers[run] = tf.summary.create_file_writer(self.folder(run))
            with self._writers[run].as_default():
                tf.summary.write(name.removeprefix("val_"), tf.constant(value, tf.float32), int(point["step"]), scalar)

    def close(self) -> None:
        """Closes the files."""
        for writer in self._writers.values():
            writer.close()


def _by_span(training: Dataset, validation: Dataset) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for (span, split), rows in sorted({**training.rows_by_part, **validation.rows_by_part}.items()):
        found.setdefault(str(span), {})[split] = rows
    return found
