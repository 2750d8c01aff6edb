"""Conversions in processes of their own: a crash or a conversion without end costs one variant and nothing else.

    python -m evergreen.components.quantizer.worker PARENT

The worker imports TensorFlow once, which takes seconds, and forks for each job before TensorFlow has started a thread.
Jobs come over its standard input, answers go over its standard output, one JSON line each with the job's number, in the
order in which they end. It dies with its parent.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from evergreen.components import ahead
from evergreen.components.quantizer.convert import ConversionFailed
from evergreen.components.trainer import parent as parents

_POLL_S = 0.02
# Jobs at a time, as far as there are cores. Each may need several times the model's memory.
_AT_ONCE = 2

Rows = dict[str, np.ndarray]


class Worker(contextlib.AbstractContextManager["Worker"]):
    """The process that converts. Starting it returns at once; it is ready seconds later, unless it was prepared.

    Args:
      seconds: the longest that one job may take.

    Attributes:
      process: the process; another one after it died.
    """

    process: subprocess.Popen[str]

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._folder = tempfile.TemporaryDirectory()
        self._jobs = 0
        # By number, of jobs that are not answered yet or whose answer nobody wanted yet.
        self._begun: dict[int, dict[str, Any]] = {}
        self._answers: dict[int, dict[str, Any]] = {}
        self.process = ahead.take(__name__) or _start()

    def begin(self, saved_model: str, variant: str, rows: Rows | None = None, select: bool = False) -> None:
        """Starts a conversion that `convert` will be asked for with the same arguments, and does not wait for it."""
        with contextlib.suppress(BrokenPipeError):  # `convert` will say so, or start it anew
            self._submit(_conversion(saved_model, variant, (), select), rows)

    def settle(self) -> None:
        """Waits until nothing is converted, so that the machine is quiet. How the conversions ended `convert` says.

        Where the process has died meanwhile, `convert` starts anew what was begun.
        """
        with contextlib.suppress(ConversionFailed):
            while len(self._answers) < len(self._begun):
                self._hear()

    def convert(
        self, saved_model: str, variant: str, rows: Rows | None = None, denied: Sequence[str] = (), select: bool = False
    ) -> bytes:
        """Converts as `evergreen.components.quantizer.convert.convert` does.

        Raises:
          ConversionFailed: as there; also where the converter crashed or took too long.
        """
        with open(self._run(_conversion(saved_model, variant, denied, select), rows), "rb") as file:
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
        """Returns the file with a job's result; one that was begun is waited for."""
        number = next((n for n, begun in self._begun.items() if begun == job), None)
        if number is None:
            try:
                number = self._submit(job, rows)
            except BrokenPipeError:
                self._lost()
        while number not in self._answers:
            self._hear()
        del self._begun[number]
        answer = self._answers.pop(number)
        if "failure" in answer:
            raise ConversionFailed(answer["failure"])
        return self._file(number)

    def _file(self, number: int) -> str:
        return os.path.join(self._folder.name, str(number))

    def _submit(self, job: dict[str, Any], rows: Rows | None) -> int:
        if self.process.poll() is not None:
            self._forget()
            self.process = _start()
        self._jobs += 1
        told = {**job, "number": self._jobs, "output": self._file(self._jobs), "seconds": self._seconds}
        if rows is not None:
            told["rows"] = f"{told['output']}.npz"
            np.savez(told["rows"], **rows)  # type: ignore[arg-type]
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(told) + "\n")
        self.process.stdin.flush()
        self._begun[self._jobs] = job
        return self._jobs

    def _hear(self) -> None:
        """Reads the next answer."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self._lost()
        answer = json.loads(line)
        self._answers[answer["number"]] = answer

    def _lost(self) -> NoReturn:
        """Says that the process has died. What else was begun is begun anew when it is asked for."""
        self._forget()
        self.process.wait()
        raise ConversionFailed(f"conversion failed: the converter's process {_ending(self.process.returncode)}")

    def _forget(self) -> None:
        self._begun.clear()
        self._answers.clear()


def _conversion(saved_model: str, variant: str, denied: Sequence[str], select: bool) -> dict[str, Any]:
    return {"do": "convert", "saved_model": saved_model, "variant": variant, "denied": list(denied), "select": select}


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


def _fork(job: dict[str, Any]) -> int:
    """Does a job in a fork, which writes what came of it beside the job's output.

    Returns:
      The fork's process id.
    """
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
    return child


def _outcome(job: dict[str, Any], child: int, began: float) -> dict[str, Any] | None:
    """Looks how a fork is; returns the answer when it has ended, or has taken too long and is ended here."""
    ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        if time.monotonic() < began + job["seconds"]:
            return None
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return {"failure": f"conversion failed: not done within {job['seconds']:g} s (`quantize.convert_seconds`)"}
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
    waiting: list[dict[str, Any]] = []
    running: dict[int, tuple[dict[str, Any], float]] = {}
    rest, is_open, is_told = b"", True, False
    while is_open:
        while waiting and len(running) < min(_AT_ONCE, ahead.cores()):
            job = waiting.pop(0)
            running[_fork(job)] = job, time.monotonic()
        if select.select([0], [], [], _POLL_S if running else None)[0]:
            if not is_told:
                ahead.write_where_parent_does()
                is_told = True
            read = os.read(0, 1 << 16)
            *lines, rest = (rest + read).split(b"\n")
            waiting += map(json.loads, lines)
            is_open = bool(read)
        for child, (job, began) in list(running.items()):
            answer = _outcome(job, child, began)
            if answer is not None:
                del running[child]
                answers.write(json.dumps({**answer, "number": job["number"]}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
