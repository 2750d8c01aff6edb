"""The threads that answer requests of both fronts, and the bounds on how many there are and how long each may take.

What reads and writes the ports only hands requests over, so that a slow model keeps nobody else from being heard.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import grpc

from evergreen.serving.errors import ServingError, unavailable

_T = TypeVar("_T")


class Workers(concurrent.futures.ThreadPoolExecutor):
    """A pool of threads with a bound on what may be in work or wait.

    Beyond the bound a call is made all the same, at once and in a thread kept for that, and `check` refuses it there:
    gRPC's server has no other way to say UNAVAILABLE.

    Args:
      threads: how many requests are computed at a time.
      limit: how many may be in work or wait.
    """

    def __init__(self, threads: int, limit: int):
        super().__init__(threads, "request")
        self._limit, self._taken, self._lock = limit, 0, threading.Lock()
        self._refusing = concurrent.futures.ThreadPoolExecutor(1, "refusal")

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        """Hands a call over, to be made by one of the threads."""
        with self._lock:
            full = self._taken >= self._limit
            self._taken += not full
        if full:
            return self._refusing.submit(fn, *args, **kwargs)
        future = super().submit(fn, *args, **kwargs)
        future.add_done_callback(self._release)
        return future

    def check(self) -> None:
        """Called first by everything that runs here.

        Raises:
          ServingError: UNAVAILABLE where this call is beyond the bound.
        """
        if threading.current_thread().name.startswith("refusal"):
            raise unavailable(f"Too many requests: {self._limit} are in work already")

    async def answer(self, work: Callable[[], _T], seconds: float) -> _T:
        """Runs `work` in a thread, for an event loop.

        A thread cannot be stopped: where time runs out the client is told so, the answer is dropped when it comes, and
        until then it counts as in work. Work that no thread has begun by then is never begun.

        Raises:
          ServingError: UNAVAILABLE beyond the bound, DEADLINE_EXCEEDED after `seconds`; and what `work` raises.
        """
        end = time.monotonic() + seconds

        def begin() -> _T:
            self.check()
            if time.monotonic() > end:
                raise _late()
            return work()

        try:
            return await asyncio.wait_for(asyncio.wrap_future(self.submit(begin)), seconds)
        except asyncio.TimeoutError:
            raise _late() from None

    def _release(self, _: Any) -> None:
        with self._lock:
            self._taken -= 1


def _late() -> ServingError:
    return ServingError(grpc.StatusCode.DEADLINE_EXCEEDED, "Timed out waiting for the answer")
