"""Progress out of a running stage: executors report, the runner listens.

An executor has no other way to a terminal: TFX calls it deep inside. Without a listener a report costs nothing, so
executors report wherever they may run.
"""

from __future__ import annotations

import time
from collections.abc import Callable

Listener = Callable[[float | None, str], None]

INTERVAL_S = 0.5

_listener: Listener | None = None
_last = float("-inf")
_reported = float("-inf")


def set_listener(listener: Listener | None) -> None:
    """Sets who hears the reports of this process.

    Args:
      listener: called with the fraction done (0 to 1, None where unknown) and a short text; None to hear nothing.
    """
    global _listener, _last
    _listener = listener
    _last = float("-inf")


def report(fraction: float | None, text: str) -> None:
    """Reports how far the running stage is; passed on twice a second at most.

    Args:
      fraction: the part done, 0 to 1; None where unknown, at the beginning of a phase. Such a report and the end (1.0)
        are always passed on.
      text: what is happening, in a few words.
    """
    global _last, _reported
    _reported = time.monotonic()
    if _listener is None:
        return
    now = time.monotonic()
    if fraction is not None and fraction < 1.0 and now - _last < INTERVAL_S:
        return
    _last = now
    _listener(fraction, text)


def last_report() -> float:
    """Returns when this process last reported, passed on or not, by the clock of `time.monotonic`."""
    return _reported
