"""Notices that a training makes no step because a process of its cluster does not answer, and says which.

A call into TensorFlow that waits for another process cannot be interrupted from Python: nothing would end it where that
process is stopped, or its host is cut off. So a thread looks on. While the training gives signs (it reports its
progress), nothing is done. After some quiet seconds every task is asked for its status; one that has not answered for
`timeout` seconds is replaced where the cluster can do that, else the process ends with a word about it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from evergreen.components import progress
from evergreen.components.trainer import cluster
from evergreen.components.trainer.cluster import Plan, Task

QUIET_S = 10.0
# Every task answers, and yet there is no step: after so many timeouts that is an end, too.
STUCK = 60
_LOOK_S = 1.0

_log = logging.getLogger(__name__)

_end: Callable[[str], None] | None = None


def set_end(end: Callable[[str], None] | None) -> None:
    """Sets what ends this process when a training in it is lost; without it there is no watchdog.

    Args:
      end: writes down why, and ends the process.
    """
    global _end
    _end = end


class Watchdog:
    """Looks on for the time of a `with`.

    Args:
      plan: the cluster.
      timeout: seconds after which a task that does not answer is lost.
      replace: puts a new process in a task's place, and tells whether training can go on then.
    """

    def __init__(self, plan: Plan, timeout: int, replace: Callable[[Task], bool] = lambda task: False):
        self._plan = plan
        self._timeout = timeout
        self._replace = replace
        self._ended = threading.Event()
        self._begin = time.monotonic()
        # When each task was last known to answer; a task that never did has as long as a start takes.
        self._heard: dict[Task, float] = {}

    def __enter__(self) -> Watchdog:
        if _end is not None:
            threading.Thread(target=self._look, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._ended.set()

    def _look(self) -> None:
        tasks = [task for task in self._plan.tasks() if task != self._plan.task]
        while not self._ended.wait(_LOOK_S):
            quiet = time.monotonic() - max(self._begin, progress.last_report())
            if quiet < min(QUIET_S, self._timeout):
                self._heard.clear()  # whoever was silent before has been heard, for there are steps
                self._begin = max(self._begin, progress.last_report())
                continue
            silent = [task for task in tasks if self._is_silent(task)]
            if self._ended.is_set():
                return
            for task in silent:
                if not self._replace(task):
                    address = self._plan.address(task)
                    self._lost(f"{task} of the training cluster at {address} has not answered for {self._timeout} s")
                self._heard[task] = time.monotonic() + cluster.START_S  # the new process has that long to start
            if not silent and quiet > STUCK * self._timeout:
                self._lost(f"the training has made no step for {quiet:.0f} s, and every task of its cluster answers")

    def _is_silent(self, task: Task) -> bool:
        """Asks a task; tells whether it has been silent for too long."""
        if cluster.answers(self._plan.address(task)):
            self._heard[task] = time.monotonic()
            return False
        since = self._heard.setdefault(task, time.monotonic())
        return time.monotonic() - since >= self._timeout

    def _lost(self, reason: str) -> None:
        _log.warning("%s", reason)
        if _end is not None and not self._ended.is_set():
            _end(reason)
