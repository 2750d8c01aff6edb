"""A run as a process of its own: watched, limited, and ended with all that it started, however the scheduler ends.

The process leads a process group, in which its children are too. Three things end the group:
  * the scheduler, when the run has ended or must end;
  * a sentinel, a process of a few megabytes that waits on a pipe from the scheduler and kills the group when the pipe
    breaks, so that the death of the scheduler ends the run with all its children;
  * `sweep`, at the next start, where both were killed.

The memory of a run is the resident memory of all its processes added up, as psutil reads it; memory that they share is
counted for each. (A limit on the address space would not do: TensorFlow and CUDA reserve far more than they use.)
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

import psutil

_SENTINEL = """
import os, signal
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
told = b""
while chunk := os.read(0, 64):
    told += chunk
group, _, end = told.partition(b"\\n")
if group and end != b"done":
    try:
        os.killpg(int(group), signal.SIGKILL)
    except ProcessLookupError:
        pass
"""
# Long past the end of whatever was created; a later process of the same number is created after that.
_SAME_S = 1.0


class Process:
    """A command that runs in a process group of its own.

    Start it from the main thread: where the command asks the kernel to end it with its parent, that is the thread.

    Args:
      command: the program and its arguments.
      environment: all environment variables; those of this process by default.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None):
        # -I and -S: the sentinel needs nothing but the interpreter, and must not wait for a slow import.
        self._sentinel = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _SENTINEL], stdin=subprocess.PIPE, start_new_session=True
        )
        try:
            self._popen = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, env=environment, start_new_session=True, close_fds=True
            )
        except BaseException:
            self._dismiss()
            raise
        self.pid = self._popen.pid
        self._tell(f"{self.pid}\n")
        self._known: dict[int, psutil.Process] = {}
        with contextlib.suppress(psutil.Error):
            self._known[self.pid] = psutil.Process(self.pid)

    @property
    def created(self) -> float:
        """When the process was created, in seconds since 1970."""
        return self._known[self.pid].create_time() if self.pid in self._known else 0.0

    @property
    def ended(self) -> bool:
        """Whether the process has ended; its number stays its own until `close`."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def memory(self) -> int:
        """Returns the resident memory of the process and of all that it started, in bytes."""
        total = 0
        with contextlib.suppress(psutil.Error):
            top = psutil.Process(self.pid)
            # Also remembered: a process that left the group is known by having been a child once.
            self._known = {process.pid: process for process in (top, *top.children(recursive=True))}
        for process in self._known.values():
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
        return total

    def interrupt(self) -> None:
        """Asks the process to stop at a safe point, as Ctrl-C does."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGINT)

    def kill(self) -> None:
        """Kills the process and all that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        for process in self._known.values():
            with contextlib.suppress(psutil.Error):
                if process.pid != self.pid and process.is_running():
                    process.kill()

    def close(self) -> int:
        """Ends what the process left behind, and the process itself where it still runs.

        Returns:
          Its exit status, negative for a signal.
        """
        self.kill()
        status = self._popen.wait()
        self._dismiss()
        return status

    def _tell(self, text: str) -> None:
        assert self._sentinel.stdin is not None
        with contextlib.suppress(OSError):
            self._sentinel.stdin.write(text.encode())
            self._sentinel.stdin.flush()

    def _dismiss(self) -> None:
        self._tell("done")
        assert self._sentinel.stdin is not None
        with contextlib.suppress(OSError):
            self._sentinel.stdin.close()
        self._sentinel.wait()


def sweep(pid: int, created: float) -> int:
    """Kills what is left of a run whose scheduler was killed together with the sentinel.

    Args:
      pid: the run's process, whose number is its group's; 0 where the scheduler was killed before there was one.
      created: when that process was created.

    Returns:
      How many processes were killed.
    """
    killed = 0
    if not pid or os.getpgrp() == pid:
        return 0
    for process in psutil.process_iter():
        try:
            # The number may be another group's by now; that one's leader was created later.
            leads = process.pid == pid and abs(process.create_time() - created) > _SAME_S
            if leads:
                return killed
            if os.getpgid(process.pid) != pid or process.create_time() < created - _SAME_S:
                continue
            if process.status() != psutil.STATUS_ZOMBIE:
                process.kill()
                killed += 1
        except (psutil.Error, ProcessLookupError, PermissionError):
            continue
    return killed
