"""What a training cluster is, and the processes of one on this machine.

A cluster has a coordinator (`chief`), workers and parameter servers. TF_CONFIG names their addresses where the cluster
was started by somebody else; else a plan of local tasks on free ports does, and `LocalCluster` runs them. Nothing here
imports TensorFlow.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evergreen.components.errors import ConfigError
from evergreen.components.trainer.settings import TrainerSettings

CHIEF, WORKER, PS = "chief", "worker", "ps"
VARIABLE = "TF_CONFIG"
PLAN_FILE = "cluster.json"
LOG_FILE = "log"
START_S = 180.0
_HOST = "127.0.0.1"
_WATCH_S = 0.1
_DEATHS = 3
_DEATHS_WITHIN_S = 60.0

_log = logging.getLogger(__name__)


class LostProcess(RuntimeError):
    """A process of the cluster is gone that training cannot go on without; it may start again from a checkpoint."""


@dataclass(frozen=True)
class Task:
    """A process of a cluster.

    Attributes:
      job: `chief`, `worker` or `ps`.
      index: its number within the job.
    """

    job: str
    index: int

    def __str__(self) -> str:
        return f"{self.job}-{self.index}"


@dataclass(frozen=True)
class Plan:
    """The addresses of a cluster and which of its tasks a process is.

    Attributes:
      jobs: job to the addresses of its tasks, `host:port`.
      task: this process.
    """

    jobs: Mapping[str, Sequence[str]]
    task: Task = field(default_factory=lambda: Task(CHIEF, 0))

    def tasks(self, *jobs: str) -> list[Task]:
        """Lists the tasks of some jobs; of all where none is named."""
        return [Task(job, index) for job in jobs or self.jobs for index, _ in enumerate(self.jobs.get(job, ()))]

    def address(self, task: Task) -> str:
        """Returns the address of a task."""
        return self.jobs[task.job][task.index]

    def config(self, task: Task | None = None) -> str:
        """Returns TF_CONFIG for a task; for this process where none is named."""
        task = task or self.task
        named = {job: list(addresses) for job, addresses in self.jobs.items()}
        return json.dumps({"cluster": named, "task": {"type": task.job, "index": task.index}})


def read(environment: Mapping[str, str]) -> Plan | None:
    """Reads TF_CONFIG.

    Args:
      environment: variables by name.

    Returns:
      The cluster; None where the variable is not set or names none.

    Raises:
      ConfigError: it is not what TensorFlow documents.
    """
    text = environment.get(VARIABLE, "")
    if not text.strip():
        return None
    try:
        values = json.loads(text)
        jobs = {str(job): tuple(map(str, addresses)) for job, addresses in values.get("cluster", {}).items()}
        task = values.get("task", {})
        named = Task(str(task.get("type", CHIEF)), int(task.get("index", 0)))
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{VARIABLE} cannot be read",
            f"{type(error).__name__}: {error}",
            'It is JSON: {"cluster": {"chief": ["host:port"], "worker": [...], "ps": [...]}, '
            '"task": {"type": "worker", "index": 0}}.',
        ) from error
    if not jobs:
        return None
    if named.index not in range(len(jobs.get(named.job, ()))):
        known = ", ".join(f"{len(addresses)} {job}" for job, addresses in jobs.items())
        raise ConfigError(f"{VARIABLE} names the task {named}, which is not in its cluster", f"received {known}", "")
    return Plan(jobs, named)


def plan_local(workers: int, ps: int) -> Plan:
    """Plans the tasks of a cluster on this machine.

    Args:
      workers: how many workers.
      ps: how many parameter servers.

    Returns:
      Their addresses, on ports that are free now; this process is the coordinator.
    """
    found = free_addresses(1 + workers + ps)
    return Plan({CHIEF: found[:1], WORKER: found[1 : 1 + workers], PS: found[1 + workers :]})


def free_addresses(count: int) -> list[str]:
    """Finds addresses of this machine that nobody listens on now.

    Args:
      count: how many.

    Returns:
      Different ones, `host:port`.
    """
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):  # all are held at once, so that no two are the same
            held = stack.enter_context(socket.socket())
            held.bind((_HOST, 0))
            found.append(f"{_HOST}:{held.getsockname()[1]}")
    return found


def with_restarts(train: Callable[[], dict[str, Any]], restarts: int) -> dict[str, Any]:
    """Trains, again from the last checkpoint where the cluster lost a process that it needs.

    Args:
      train: trains, and returns the report.
      restarts: how often it may begin again.

    Returns:
      The report, with the number of restarts.

    Raises:
      LostProcess: a process died more often than that.
    """
    for done in itertools.count():
        try:
            return {**train(), "restarts": done}
        except LostProcess as error:
            if done >= restarts:
                raise LostProcess(f"{error}, and trainer.max_restarts is {restarts}") from error
            _log.warning("%s; the training begins again from its last checkpoint", error)
    raise AssertionError


class Cluster:
    """A cluster that somebody else started and watches.

    Args:
      plan: its addresses.

    Attributes:
      plan: its addresses.
      worker_losses: how many workers died and were started again, as far as this process knows.
    """

    def __init__(self, plan: Plan):
        self.plan = plan
        self.worker_losses = 0

    def check(self) -> None:
        """Raises LostProcess where a process is gone that training cannot go on without."""

    def settle(self) -> None:
        """Waits as long as the death of a process may stay unnoticed, then checks."""
        self.check()

    def wait(self, seconds: float = START_S) -> None:
        """Waits until every task but this process accepts connections.

        Args:
          seconds: how long at most.

        Raises:
          LostProcess: a task ended.
          ConfigError: a task does not answer.
        """
        waiting = [task for task in self.plan.tasks(PS, WORKER) if task != self.plan.task]
        deadline = time.monotonic() + seconds
        while waiting:
            self.check()
            waiting = [task for task in waiting if not _answers(self.plan.address(task))]
            if waiting and time.monotonic() > deadline:
                named = ", ".join(f"{task} at {self.plan.address(task)}" for task in waiting)
                raise ConfigError(
                    f"{len(waiting)} of the cluster's tasks do not answer",
                    f"waited {seconds:.0f} s for {named}",
                    "Start them with the same TF_CONFIG, and let their ports through.",
                )
            if waiting:
                time.sleep(_WATCH_S)


class LocalCluster(Cluster):
    """The worker and ps processes of a plan on this machine, for the time of a `with`.

    A worker that dies is started again on its own port; a ps that dies takes its variables with it, which `check`
    reports. All are killed in the end, and die with this process where it is killed. Each task has a folder of its own
    as working directory, with its log.

    Args:
      plan: from `plan_local`.
      folder: where the tasks' folders, `worker-0` and so on, and `cluster.json` are made.
    """

    def __init__(self, plan: Plan, folder: str):
        super().__init__(plan)
        self._folder = os.path.abspath(folder)
        self._processes: dict[Task, subprocess.Popen] = {}
        self._deaths: dict[Task, list[float]] = {}
        self._failure: str | None = None
        self._started, self._ending = threading.Event(), threading.Event()
        # A process counts as the child of the thread that starts it: this one lives as long as the cluster.
        self._keeper = threading.Thread(target=self._keep, name="cluster", daemon=True)

    def __enter__(self) -> LocalCluster:
        os.makedirs(self._folder, exist_ok=True)
        with open(os.path.join(self._folder, PLAN_FILE), "w", encoding="utf-8") as file:
            file.write(self.plan.config())
        self._keeper.start()
        self._started.wait()
        return self

    def __exit__(self, *error: Any) -> None:
        self._ending.set()
        self._keeper.join()

    @property
    def pids(self) -> dict[Task, int]:
        """The process ids of the tasks as they are now."""
        return {task: process.pid for task, process in self._processes.items()}

    def check(self) -> None:
        """See `Cluster.check`."""
        if self._failure is not None:
            raise LostProcess(self._failure)

    def settle(self) -> None:
        """See `Cluster.settle`."""
        time.sleep(5 * _WATCH_S)
        self.check()

    def _keep(self) -> None:
        """Starts the tasks, watches them, and kills them in the end."""
        try:
            for task in self.plan.tasks(PS, WORKER):
                self._processes[task] = self._start(task)
            self._started.set()
            while not self._ending.wait(_WATCH_S):
                for task, process in list(self._processes.items()):
                    if self._failure is None and process.poll() is not None:
                        self._failure = self._revive(task, process.returncode)
        except OSError as error:
            self._failure = f"a task of the cluster cannot be started: {error}"
        finally:
            for process in self._processes.values():
                process.kill()
            for process in self._processes.values():
                process.wait()
            self._started.set()

    def _revive(self, task: Task, status: int) -> str | None:
        """Starts a worker that ended again; returns what is wrong where that does not help."""
        now = time.monotonic()
        deaths = [when for when in self._deaths.get(task, []) if when > now - _DEATHS_WITHIN_S]
        self._deaths[task] = [*deaths, now]
        if task.job != WORKER or len(self._deaths[task]) >= _DEATHS:
            return f"{task} of the training cluster ended with {status}{self._last_words(task)}"
        _log.warning("%s of the training cluster ended with %s and is started again", task, status)
        self._processes[task] = self._start(task)
        self.worker_losses += 1
        return None

    def _start(self, task: Task) -> subprocess.Popen:
        folder = os.path.join(self._folder, str(task))
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, LOG_FILE), "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "evergreen.components.trainer.task", str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                env={**os.environ, **_environment(task), VARIABLE: self.plan.config(task)},
            )

    def _last_words(self, task: Task) -> str:
        with open(os.path.join(self._folder, str(task), LOG_FILE), encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file if line.strip()]
        return f"; its log ends with: {lines[-1]}" if lines else ""


@contextlib.contextmanager
def join(settings: TrainerSettings, folder: str) -> Iterator[Cluster]:
    """Joins the cluster of TF_CONFIG as its coordinator, or starts a local one.

    Args:
      settings: the section `trainer`; `cluster` says how many local processes there are.
      folder: where a local cluster keeps its logs.

    Yields:
      The cluster; `wait` tells when it is up.

    Raises:
      ConfigError: TF_CONFIG has no workers or ps, or this process is not its coordinator.
    """
    plan = read(os.environ)
    if plan is None:
        bypass_proxies()
        with LocalCluster(plan_local(settings.cluster.workers, settings.cluster.ps), folder) as cluster:
            yield cluster
        return
    if plan.task.job != CHIEF or not plan.tasks(WORKER) or not plan.tasks(PS):
        raise ConfigError(
            f"{VARIABLE} does not make this process the coordinator of a cluster",
            f"received the task {plan.task} of {', '.join(f'{len(all_)} {job}' for job, all_ in plan.jobs.items())}; "
            "expected the task chief-0, one worker and one ps at least",
            "Run the training on the chief; workers and ps run `python -m evergreen.components.trainer.task`.",
        )
    yield Cluster(plan)


def bypass_proxies() -> None:
    """Keeps connections within this machine from a proxy that the environment names, here and in child processes."""
    for name in ("no_proxy", "NO_PROXY"):
        present = os.environ.get(name, "")
        if _HOST not in present.split(","):
            os.environ[name] = f"{present},{_HOST}" if present else _HOST


def _environment(task: Task) -> dict[str, str]:
    """Returns what a local task's environment has of its own: imports that do not depend on its folder, and one GPU."""
    paths = [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    found = {"PYTHONPATH": os.pathsep.join(paths), "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(n) for n, _ in enumerate(glob.glob("/dev/nvidia[0-9]*"))]
    if gpus:
        found["CUDA_VISIBLE_DEVICES"] = gpus[task.index % len(gpus)] if task.job == WORKER else ""
    return found


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=1.0):
            return True
    except (OSError, ValueError):
        return False
