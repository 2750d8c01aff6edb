"""Conversions in processes of their own: a crash or a conversion without end costs one variant and nothing else.

The process is `converter`. What it prints for a job stands in the log of the stage that asks for the job's result,
whichever stage began it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from evergreen.components import ahead
from evergreen.components.quantizer.convert import ConversionFailed

Rows = dict[str, np.ndarray]
Job = dict[str, Any]


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
        self._begun: dict[int, Job] = {}
        self._answers: dict[int, dict[str, Any]] = {}
        self.process = ahead.take(__name__) or _start()

    def begin(self, job: Job, rows: Rows | None = None) -> None:
        """Starts a job that will be asked for later, unless it was begun before, and does not wait for it.

        Args:
          job: as `conversion` or `preprocessing` gives it.
          rows: that calibrate.
        """
        if self._number(job) is None:
            with contextlib.suppress(BrokenPipeError):  # who asks for it will hear so, or start it anew
                self._submit(job, rows)

    def keep(self, jobs: Iterable[Job]) -> None:
        """Gives up everything that was begun, unless all of it is among these."""
        wanted = list(jobs)
        if any(job not in wanted for job in self._begun.values()):
            self._end()
            self._forget()

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
        return self._run(conversion(saved_model, variant, denied, select), rows)

    def preprocessing(self, transform_graph: str, names: Iterable[str]) -> bytes:
        """Converts as `evergreen.components.quantizer.front.convert` does.

        Raises:
          ConversionFailed: as there; also where the converter crashed or took too long.
        """
        return self._run(preprocessing(transform_graph, names))

    def activation_errors(self, saved_model: str, rows: Rows) -> list[dict[str, Any]]:
        """Measures as `evergreen.components.quantizer.convert.activation_errors` does.

        Raises:
          ConversionFailed: the measurement failed, crashed or took too long.
        """
        found: list[dict[str, Any]] = json.loads(
            self._run({"do": "activation_errors", "saved_model": saved_model}, rows)
        )
        return found

    def page(self, report: Mapping[str, Any]) -> str:
        """Writes the report's page as `evergreen.components.quantizer.page.render` does.

        Raises:
          ConversionFailed: its process crashed or took too long.
        """
        return self._run({"do": "page", "report": report}).decode()

    def __exit__(self, *error: object) -> None:
        self._end()
        self._folder.cleanup()

    def _end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def _run(self, job: Job, rows: Rows | None = None) -> bytes:
        """Returns a job's result; one that was begun is waited for."""
        number = self._number(job)
        if number is None:
            try:
                number = self._submit(job, rows)
            except BrokenPipeError:
                self._lost()
        while number not in self._answers:
            self._hear()
        del self._begun[number]
        answer = self._answers.pop(number)
        self._print(number)
        if "failure" in answer:
            raise ConversionFailed(answer["failure"])
        with open(self._file(number), "rb") as file:
            return file.read()

    def _number(self, job: Job) -> int | None:
        return next((number for number, begun in self._begun.items() if begun == job), None)

    def _file(self, number: int) -> str:
        return os.path.join(self._folder.name, str(number))

    def _print(self, number: int) -> None:
        """Hands on what a job printed."""
        with contextlib.suppress(OSError), open(f"{self._file(number)}.log", "rb") as log:
            os.write(2, log.read())

    def _submit(self, job: Job, rows: Rows | None) -> int:
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
        raise ConversionFailed(f"conversion failed: the converter's process {ending(self.process.returncode)}")

    def _forget(self) -> None:
        self._begun.clear()
        self._answers.clear()


def conversion(saved_model: str, variant: str, denied: Sequence[str] = (), select: bool = False) -> Job:
    """Returns the job that `Worker.convert` asks for."""
    return {"do": "convert", "saved_model": saved_model, "variant": variant, "denied": list(denied), "select": select}


def preprocessing(transform_graph: str, names: Iterable[str]) -> Job:
    """Returns the job that `Worker.preprocessing` asks for."""
    return {"do": "preprocessing", "transform_graph": transform_graph, "names": sorted(names)}


def prepare() -> None:
    """Starts a worker's process, which loads all that jobs may need; the next `Worker` takes it."""
    ahead.start(__name__, lambda: _start("all"))


def _start(load: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "evergreen.components.quantizer.converter", str(os.getpid()), load],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # A conversion needs no accelerator, and a fork must not share one, nor a library's threads.
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        text=True,
    )


def ending(code: int) -> str:
    """Says how a process ended, by its exit code."""
    if code < 0:
        return f"crashed ({signal.Signals(-code).name})"
    return f"ended with {code}"
