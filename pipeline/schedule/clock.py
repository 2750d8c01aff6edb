"""Where the loop's time comes from: the machine, or a test."""

from __future__ import annotations

import contextlib
import os
import select
import time
from typing import Protocol


class Clock(Protocol):
    """Where time comes from; tests bring their own."""

    def now(self) -> float:
        """Returns seconds since 1970, by the machine's clock, which may jump."""

    def monotonic(self) -> float:
        """Returns seconds that only grow."""

    def wait(self, limit: float) -> None:
        """Waits for some seconds, or until `wake`."""

    def wake(self) -> None:
        """Ends a wait."""


class SystemClock:
    """The machine's time."""

    def __init__(self) -> None:
        # A pipe, because a signal's handler may write to it at any moment; a lock it could find held by its own thread.
        self._read, self._write = os.pipe()
        for descriptor in (self._read, self._write):
            os.set_blocking(descriptor, False)

    def now(self) -> float:
        """Returns seconds since 1970."""
        return time.time()

    def monotonic(self) -> float:
        """Returns seconds that only grow."""
        return time.monotonic()

    def wait(self, limit: float) -> None:
        """Waits for some seconds, or until `wake`."""
        if select.select([self._read], [], [], limit)[0]:
            os.read(self._read, 4096)

    def wake(self) -> None:
        """Ends a wait."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._write, b".")
