"""The threads that answer requests, and the bounds on how many there are and how long each may take.

One event loop reads and writes both ports; whatever computes runs here, so that a slow model keeps nobody else from
being heard.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import Callable
from typing import TypeVar

import grpc

from evergreen.serving.errors import ServingError, unavailable

_T = TypeVar("_T")


class Workers:
    """A pool of threads behind a counter. Its methods belong to the event loop's thread.

    Args:
      threads: how many requests are computed at a time.
      limit: how many may be in work or wait; more are refused.
    """

    def __init__(self, threads: int, limit: int):
        self._pool = concurrent.futures.ThreadPoolExecutor(threads, "request")
        self._limit, self._taken = limit, 0

    async def run(self, work: Callable[[], _T], seconds: float | None = None) -> _T:
        """Runs `work` in a thread.

        A thread cannot be stopped: where time runs out the client is told so, the answer is dropped when it comes, and
        until then it counts as in work. Work that no thread has begun yet is never begun.

        Args:
          work: what to do.
          seconds: how long it may take, the wait for a thread included; None for ever.

        Raises:
          ServingError: UNAVAILABLE beyond the limit, DEADLINE_EXCEEDED after `seconds`; and what `work` raises.
        """
        if self._taken >= self._limit:
            raise unavailable(f"Too many requests: {self._taken} are in work already")
        self._taken += 1
        loop = asyncio.get_running_loop()
        end = None if seconds is None else time.monotonic() + seconds
        future = self._pool.submit(_unless_late, work, end)
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._release))
        if seconds is None:
            return await asyncio.wrap_future(future)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), seconds)
        except asyncio.TimeoutError:
            raise _late(seconds) from None

    def close(self) -> None:
        """Ends the threads; what still waits for one is never begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _release(self) -> None:
        self._taken -= 1


def _unless_late(work: Callable[[], _T], end: float | None) -> _T:
    if end is not None and time.monotonic() > end:
        raise _late(0)
    return work()


def _late(seconds: float) -> ServingError:
    return ServingError(grpc.StatusCode.DEADLINE_EXCEEDED, f"Timed out after {seconds * 1e3:.0f} ms")
