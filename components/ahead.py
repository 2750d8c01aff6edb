"""Processes that load TensorFlow before there is work for them, on a core that would otherwise idle.

Loading takes seconds, and most of a run keeps one core busy. Whoever wants such a process later starts it here, takes
it when its work is known, and starts another one where there is none.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

_waiting: dict[str, subprocess.Popen[str]] = {}
_at_end: list[Callable[[], None]] = []


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start(name: str, program: Callable[[], subprocess.Popen[str]]) -> None:
    """Starts a process that waits for its work, unless one of its name waits already or there is no core for it.

    Args:
      name: what `take` asks for.
      program: starts it. It is told its work on its standard input, ends when that is closed, and dies with its parent.
    """
    if name not in _waiting and cores() > 1:
        _waiting[name] = program()


def take(name: str) -> subprocess.Popen[str] | None:
    """Hands a process over to the caller, who ends it; None where none waits or it has died.

    Args:
      name: as given to `start`.
    """
    process = _waiting.pop(name, None)
    if process is not None and process.poll() is not None:
        _end(process)
        return None
    return process


def at_end(callback: Callable[[], None]) -> None:
    """Lets `end` call this as well.

    Args:
      callback: ends what somebody has begun with a process that he took.
    """
    _at_end.append(callback)


def end() -> None:
    """Ends every process that nobody took, and calls what `at_end` was given."""
    while _at_end:
        _at_end.pop()()
    while _waiting:
        _end(_waiting.popitem()[1])


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
