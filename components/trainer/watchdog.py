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
        # When each task was last known to be there. One that has never answered has as long as a start takes.
        self._heard: dict[Task, float] = {}
        self._known: set[Task] = set()

    def __enter__(self) -> Watchdog:
        if _end is not None:
            threading.Thread(target=self._look, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._ended.set()

    def _look(self) -> None:
        tasks = [task for task in self._plan.tasks() if task != self._plan.task]
        while not self._ended.wait(_LOOK_S):
            now = time.monotonic()
            quiet = now - max(self._begin, progress.last_report())
            if quiet < min(QUIET_S, self._timeout):
                for task in tasks:  # whoever is known to be there is heard by the steps that are made
                    if task in self._known:
                        self._heard[task] = now
                    else:
                        self._ask(task)
                continue
            silent = [task for task in tasks if not self._ask(task) and self._is_lost(task)]
            if self._ended.is_set():
                return
            for task in silent:
                if not self._replace(task):
                    address = self._plan.address(task)
                    self._lost(f"{task} of the training cluster at {address} has not answered for {self._timeout} s")
                self._known.discard(task)
                self._heard[task] = time.monotonic()
            if not silent and quiet > STUCK * self._timeout:
                self._lost(f"the training has made no step for {quiet:.0f} s, and every task of its cluster answers")

    def _ask(self, task: Task) -> bool:
        """Asks a task for its status; tells whether it answers."""
        answered = cluster.answers(self._plan.address(task))
        if answered:
            self._known.add(task)
            self._heard[task] = time.monotonic()
        return answered

    def _is_lost(self, task: Task) -> bool:
        limit = self._timeout if task in self._known else cluster.START_S
        return time.monotonic() - self._heard.get(task, self._begin) >= limit

    def _lost(self, reason: str) -> None:
        _log.warning("%s", reason)
        if _end is not None and not self._ended.is_set():
            _end(reason)
