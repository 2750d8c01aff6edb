"""Processes that load TensorFlow before there is work for them, on a core that would otherwise idle.

Loading takes seconds, and most of a run keeps one core busy. Whoever wants such a process later starts it here, takes
it when its work is known, and starts another one where there is none.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable

_waiting: dict[str, subprocess.Popen[str]] = {}


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


def write_where_parent_does() -> None:
    """Sends what this process prints to where its parent's standard error goes now.

    A stage has a log of its own, and a process that was started ahead began in another stage's. Elsewhere than on Linux
    it stays there.
    """
    with contextlib.suppress(OSError):
        log = os.open(f"/proc/{os.getppid()}/fd/2", os.O_WRONLY | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)


def end() -> None:
    """Ends every process that nobody took."""
    while _waiting:
        _end(_waiting.popitem()[1])


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
