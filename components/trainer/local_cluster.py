"""The processes of a training cluster on this machine: started together, watched, ended in every case."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from evergreen.components.trainer import devices
from evergreen.components.trainer.cluster import (
    LOG_FILE,
    PLAN_FILE,
    PS,
    VARIABLE,
    WORKER,
    Cluster,
    LostProcess,
    Plan,
    Task,
)

_WATCH_S = 0.1
_DEATHS = 3
_DEATHS_WITHIN_S = 60.0

_log = logging.getLogger(__name__)


class LocalCluster(Cluster):
    """Worker and ps processes of a plan on this machine, for the time of a `with`.

    A worker that dies is started again on its own port; a ps that dies takes its variables with it, which `check`
    reports. All are killed in the end, and die with this process where it is killed. Each task has a folder of its own
    as working directory, with its log.

    Args:
      plan: the addresses; from `plan_local`, where all are of this machine.
      folder: where the tasks' folders, `worker-0` and so on, and `cluster.json` are made.
      tasks: those that run here; by default all workers and ps.
    """

    def __init__(self, plan: Plan, folder: str, tasks: Sequence[Task] | None = None):
        super().__init__(plan)
        self._tasks = plan.tasks(PS, WORKER) if tasks is None else list(tasks)
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

    def replace(self, task: Task) -> bool:
        """See `Cluster.replace`: a worker that is killed is started again."""
        process = self._processes.get(task)
        if task.job != WORKER or process is None:
            return False
        _log.warning("%s of the training cluster does not answer and is ended", task)
        process.kill()
        return True

    def _keep(self) -> None:
        """Starts the tasks, watches them, and kills them in the end."""
        try:
            for task in self._tasks:
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
            words = _last_words(os.path.join(self._folder, str(task)))
            return f"{task} of the training cluster ended with {status}{words}"
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


def _last_words(folder: str) -> str:
    """Returns the last line of a server's log, as the end of a sentence; nothing where there is none."""
    with open(os.path.join(folder, LOG_FILE), encoding="utf-8", errors="replace") as file:
        lines = [line.strip() for line in file if line.strip()]
    return f"; its log ends with: {lines[-1]}" if lines else ""


def _environment(task: Task) -> dict[str, str]:
    """Returns what a local task's environment has of its own: imports that do not depend on its folder, and one GPU."""
    paths = [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    found = {"PYTHONPATH": os.pathsep.join(paths), "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
    gpus = devices.visible_gpus()
    if gpus:
        found["CUDA_VISIBLE_DEVICES"] = gpus[task.index % len(gpus)] if task.job == WORKER else ""
    return found
