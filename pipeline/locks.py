"""The locks of a workspace, the run's and the scheduler's: the kernel gives them back when their holder dies."""

from __future__ import annotations

from pathlib import Path

from filelock import AcquireReturnProxy, FileLock, Timeout

# `is_held` takes a lock to see whether it is free, for well under a millisecond. Who means to hold it outlasts that.
GLANCE_SECONDS = 0.2
_POLL_SECONDS = 0.01


def take(path: Path) -> AcquireReturnProxy:
    """Takes a lock, whose holder is the block that the answer opens.

    Args:
      path: the lock file; its folder exists.

    Returns:
      A context manager that gives it back.

    Raises:
      filelock.Timeout: another process holds it, and not only to look at it.
    """
    return FileLock(str(path)).acquire(timeout=GLANCE_SECONDS, poll_interval=_POLL_SECONDS)


def is_held(path: Path) -> bool:
    """Whether a live process holds a lock.

    Args:
      path: the lock file.
    """
    if not path.exists():
        return False
    try:
        with FileLock(str(path), timeout=0):
            return False
    except Timeout:
        return True
