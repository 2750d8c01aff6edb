"""Conversions in processes of their own: a crash or a conversion without end costs one variant and nothing else.

    python -m evergreen.components.quantizer.worker PARENT

The worker imports TensorFlow once, which takes seconds, and forks for each job before TensorFlow has started a thread.
Jobs come over its standard input, answers go over its standard output, one JSON line each. It dies with its parent.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from typing import Any

import numpy as np

from evergreen.components import ahead
from evergreen.components.quantizer.convert import ConversionFailed
from evergreen.components.trainer import parent as parents

_POLL_S = 0.02

Rows = dict[str, np.ndarray]


class Worker(contextlib.AbstractContextManager["Worker"]):
    """The process that converts. Starting it returns at once; it is ready seconds later, unless it was prepared.

    Args:
      seconds: the longest that one job may take.

    Attributes:
      process: the process; another one after it died.
    """

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._folder = tempfile.TemporaryDirectory()
        self._files = 0
        self.process = ahead.take(__name__) or _start()

    def convert(
        self, saved_model: str, variant: str, rows: Rows | None = None, denied: Sequence[str] = (), select: bool = False
    ) -> bytes:
        """Converts as `evergreen.components.quantizer.convert.convert` does.

        Raises:
          ConversionFailed: as there; also where the converter crashed or took too long.
        """
        job = {"saved_model": saved_model, "variant": variant, "denied": list(denied), "select": select}
        with open(self._run({"do": "convert", **job}, rows), "rb") as file:
            return file.read()

    def activation_errors(self, saved_model: str, rows: Rows) -> list[dict[str, Any]]:
        """Measures as `evergreen.components.quantizer.convert.activation_errors` does.

        Raises:
          ConversionFailed: the measurement failed, crashed or took too long.
        """
        with open(self._run({"do": "activation_errors", "saved_model": saved_model}, rows), encoding="utf-8") as file:
            found: list[dict[str, Any]] = json.load(file)
            return found

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        self._folder.cleanup()

    def _run(self, job: dict[str, Any], rows: Rows | None) -> str:
        self._files += 1
        output = os.path.join(self._folder.name, str(self._files))
        if rows is not None:
            job["rows"] = f"{output}.npz"
            np.savez(job["rows"], **rows)  # type: ignore[arg-type]
        if self.process.poll() is not None:
            self.process = _start()
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({**job, "output": output, "seconds": self._seconds}) + "\n")
            self.process.stdin.flush()
            answer = json.loads(self.process.stdout.readline() or "{}")
        except BrokenPipeError:
            answer = {}
        if not answer:
            self.process.wait()
            raise ConversionFailed(f"conversion failed: the converter's process {_ending(self.process.returncode)}")
        if "failure" in answer:
            raise ConversionFailed(answer["failure"])
        return output


def prepare() -> None:
    """Starts a worker's process; the next `Worker` takes it."""
    ahead.start(__name__, _start)


def _start() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "evergreen.components.quantizer.worker", str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # A conversion needs no accelerator, and a fork must not share one, nor a library's threads.
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        text=True,
    )


def _ending(code: int) -> str:
    if code < 0:
        return f"crashed ({signal.Signals(-code).name})"
    return f"ended with {code}"


def _do(job: dict[str, Any]) -> dict[str, Any]:
    """Does a job in the forked process."""
    from evergreen.components.quantizer import convert

    rows = None
    if "rows" in job:
        with np.load(job["rows"]) as file:
            rows = {name: file[name] for name in file.files}
    try:
        if job["do"] == "convert":
            content = convert.convert(job["saved_model"], job["variant"], rows, job["denied"], job["select"])
        else:
            content = json.dumps(convert.activation_errors(job["saved_model"], rows or {})).encode()
    except ConversionFailed as failure:
        return {"failure": str(failure)}
    except Exception as error:
        traceback.print_exc()
        return {"failure": f"conversion failed: {convert.reason(str(error))}"}
    with open(job["output"], "wb") as file:
        file.write(content)
    return {"done": True}


def _fork(job: dict[str, Any]) -> dict[str, Any]:
    """Does a job in a fork and waits for it."""
    server = os.getpid()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            parents.die_with(server)
            with open(job["output"] + ".json", "w", encoding="utf-8") as file:
                json.dump(_do(job), file)
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    limit = time.monotonic() + job["seconds"]
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > limit:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return {"failure": f"conversion failed: not done within {job['seconds']:g} s (`quantize.convert_seconds`)"}
        time.sleep(_POLL_S)
    code = os.waitstatus_to_exitcode(status)
    if code:
        return {"failure": f"conversion failed: the converter {_ending(code)}"}
    with open(job["output"] + ".json", encoding="utf-8") as file:
        answer: dict[str, Any] = json.load(file)
        return answer


def main(parent: str) -> None:
    """Converts until the parent closes the pipe.

    Args:
      parent: the parent's process id.
    """
    parents.die_with(int(parent))
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    # What TensorFlow and Python print goes to the log; an answer must not stand among it.
    os.dup2(2, 1)
    import tensorflow as tf

    tf.lite  # noqa: B018  # loads lazily: now, once, and not in each fork
    for line in sys.stdin:
        answers.write(json.dumps(_fork(json.loads(line))) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
