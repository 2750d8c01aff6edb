"""The lock of a base path, and what a file system refuses in words that a user can act on."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from evergreen.components import atomic
from evergreen.components.errors import EvergreenError, LockHeld
from evergreen.components.pusher import versions

LOCK_SECONDS = 600.0
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def locked(base: Path, seconds: float, action: str = "publish into") -> Iterator[None]:
    """Holds a base path's lock, which the kernel gives back when the process dies.

    Args:
      base: the base path, absolute; created if it is missing.
      seconds: how long to wait for another process that changes it.
      action: what is done to the base path, for the headline of an error.

    Raises:
      LockHeld: another process held it for longer than `seconds`.
      EvergreenError: the file system refused something, here or inside of the block.
    """
    with readable_errors(base, action):
        atomic.make_directory(base)
        try:
            with FileLock(str(base / versions.LOCK_FILE), timeout=seconds):
                yield
        except Timeout as error:
            raise LockHeld(
                f"another push into {base} is going on",
                f"its lock {base / versions.LOCK_FILE} was not released within {seconds:.0f} s",
                "Try again when it has ended.",
            ) from error


@contextmanager
def readable_errors(base: Path, action: str = "publish into") -> Iterator[None]:
    """Turns what the file system refuses into one error that a user can act on.

    Args:
      base: the base path.
      action: what is done to it.

    Raises:
      EvergreenError: in place of an OSError.
    """
    try:
        yield
    except EvergreenError:
        raise
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        if error.errno in _FULL:
            step = "Free some space there and run again; what was trained is kept."
        elif error.errno in _FORBIDDEN:
            step = "Give the user who runs Evergreen the right to write there and run again; what was trained is kept."
        else:
            step = "Check publish.base_path and the disk it lies on, and run again; what was trained is kept."
        reason = f"{error.strerror or error}{where}; a server sees no half of a version"
        raise EvergreenError(f"cannot {action} {base}", reason, step) from error
