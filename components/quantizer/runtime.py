"""Runs one TFLite file in a process of its own, as a phone would: LiteRT, no TensorFlow, nothing else in memory.

    python -m evergreen.components.quantizer.runtime REQUEST PARENT

It opens the file, answers every row, and is timed. A model that crashes the interpreter costs this process only.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from evergreen.components.quantizer.interpreter import LiteModel
from evergreen.components.trainer import parent as parents

BATCH = 4096
TIMED_BATCH = 64
THREADS = (1, 2)
_SECONDS = 0.05
_WARM_UP = 3


class RunFailed(Exception):
    """The interpreter refused the model, crashed or took too long; the message is the reason for the report."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What the interpreter did with a model.

    Attributes:
      predictions: float32, [rows, outputs].
      dynamic_batch: whether it took batches, or only single rows.
      latency_ms: by `<rows>x<threads>` (`1x1`, `64x2`, ...), `p50` and `p99` of one call and `calls`, how many were
        timed; milliseconds.
      first_answer_ms: from opening the file, mapped into memory, to the first row's answer.
      arena_bytes: what the tensors of one row need, without a delegate.
    """

    predictions: np.ndarray
    dynamic_batch: bool
    latency_ms: dict[str, dict[str, float]]
    first_answer_ms: float
    arena_bytes: int


def run(content: bytes, features: Mapping[str, np.ndarray], seconds: float, select_ops: bool = False) -> Run:
    """Runs a TFLite file on rows.

    Args:
      content: the file.
      features: by name, [rows, ...]; strings as bytes.
      seconds: the longest that it may take.
      select_ops: whether the model has operators of TensorFlow's.

    Raises:
      RunFailed: the interpreter could not answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        request = {"folder": folder, "select_ops": select_ops}
        with open(os.path.join(folder, "model.tflite"), "wb") as file:
            file.write(content)
        np.savez(os.path.join(folder, "features.npz"), **features)  # type: ignore[arg-type]
        command = [sys.executable, "-m", __name__, json.dumps(request), str(os.getpid())]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired as error:
            raise RunFailed(f"the interpreter did not answer within {seconds:g} s") from error
        if done.returncode < 0:
            raise RunFailed(f"the interpreter crashes ({signal.Signals(-done.returncode).name})")
        result = os.path.join(folder, "result.json")
        if not os.path.exists(result):
            raise RunFailed(f"the interpreter fails: {(done.stderr.strip().splitlines() or ['it says nothing'])[-1]}")
        with open(result, encoding="utf-8") as file:
            values = json.load(file)
        if "failure" in values:
            raise RunFailed(f"the interpreter fails: {values['failure']}")
        return Run(np.load(os.path.join(folder, "predictions.npy")), **values)


def percentiles(times_s: list[float]) -> dict[str, float]:
    """Returns the median and the 99th percentile of times, in milliseconds, and how many there were.

    Args:
      times_s: seconds.
    """
    p50, p99 = np.percentile(times_s, (50, 99)) * 1000
    return {"p50": float(p50), "p99": float(p99), "calls": len(times_s)}


def timed(call: Any, seconds: float = _SECONDS) -> dict[str, float]:
    """Times a function's calls.

    Args:
      call: without arguments.
      seconds: for how long to call it again; ten times at least.

    Returns:
      As `percentiles` does.
    """
    for _ in range(_WARM_UP):
        call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 10 or time.perf_counter() < end:
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return percentiles(times)


def _run(folder: str, select_ops: bool) -> dict[str, Any]:
    path = os.path.join(folder, "model.tflite")
    with np.load(os.path.join(folder, "features.npz")) as file:
        features = {name: file[name] for name in file.files}
    rows = len(next(iter(features.values())))
    one = {name: values[:1] for name, values in features.items()}
    began = time.perf_counter()
    model = LiteModel(path, select_ops=select_ops)
    model.predict(one)
    first_answer = time.perf_counter() - began
    arena = model.arena_bytes(one)
    parts = []
    for start in range(0, rows, BATCH):
        parts.append(model.predict({name: values[start : start + BATCH] for name, values in features.items()}))
    np.save(os.path.join(folder, "predictions.npy"), np.concatenate(parts))
    latency = {}
    batch = {name: np.resize(values, (TIMED_BATCH, *values.shape[1:])) for name, values in features.items()}
    for threads in THREADS:
        for size, inputs in ((1, one), (TIMED_BATCH, batch)):
            if size > 1 and not model.dynamic_batch:
                continue
            again = LiteModel(path, threads, select_ops)
            prepared = again.prepared(inputs)
            latency[f"{size}x{threads}"] = timed(lambda again=again, prepared=prepared: again.call(prepared))
    return {
        "dynamic_batch": model.dynamic_batch,
        "latency_ms": latency,
        "first_answer_ms": first_answer * 1000,
        "arena_bytes": arena,
    }


def main(request: str, parent: str) -> None:
    """Runs the model of a request.

    Args:
      request: JSON of `folder` and `select_ops`.
      parent: the parent's process id.
    """
    parents.die_with(int(parent))
    given = json.loads(request)
    result: dict[str, Any]
    try:
        result = _run(given["folder"], given["select_ops"])
    except (RuntimeError, ValueError) as error:
        result = {"failure": (str(error).strip().splitlines() or [type(error).__name__])[0]}
    with open(os.path.join(given["folder"], "result.json"), "w", encoding="utf-8") as file:
        json.dump(result, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
