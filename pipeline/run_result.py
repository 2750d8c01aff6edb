"""What a run tells the process that started it: more than an exit status, as a JSON file.

`evergreen run --result-file FILE` writes it; the schedule reads it. A run that was killed leaves none.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evergreen.components import atomic
from evergreen.components.errors import ConfigError, EvergreenError, LockHeld, SpanError

# By name: TensorFlow and the Trainer need not be imported to know them.
_CAN_PASS = ("LostProcess", "UnavailableError", "AbortedError", "DeadlineExceededError", "CancelledError")


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
      result: a value of `store.Result`; or `nothing`, `late`, `locked`, `configuration`.
      run: the run's id; empty where none was begun.
      span: label of its span; empty where it has none.
      version: what it published; 0 for nothing.
      reason: why it did not publish.
      retryable: whether another attempt can end better.
      metrics: what was measured, as `stages.exam_metrics` has it.
      drift: features whose distribution differs from the one that the live model was trained on; None where nobody
        asked.
    """

    result: str
    run: str = ""
    span: str = ""
    version: int = 0
    reason: str = ""
    retryable: bool = False
    metrics: Mapping[str, Any] = field(default_factory=dict)
    drift: list[str] | None = None

    def write(self, path: Path) -> None:
        """Writes the file in one step."""
        atomic.write_file(path, json.dumps(dataclasses.asdict(self)) + "\n")


def read(path: Path) -> RunResult | None:
    """Reads what a run has written.

    Args:
      path: the file.

    Returns:
      The result; None where the run was killed before it came to one.
    """
    try:
        return RunResult(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def of_error(error: BaseException) -> RunResult:
    """Describes an error that ended a run before its first stage, or a defect.

    Args:
      error: what was raised.
    """
    reason = f"{error.headline}: {error.reason}" if isinstance(error, EvergreenError) else f"{error!r}"
    if isinstance(error, LockHeld):
        return RunResult("locked", reason=reason, retryable=True)
    if isinstance(error, SpanError):
        return RunResult("late", reason=reason)
    if isinstance(error, ConfigError):
        return RunResult("configuration", reason=reason)
    if isinstance(error, EvergreenError) and error.exit_status == 3:
        return RunResult("data rejected", reason=reason)
    if isinstance(error, KeyboardInterrupt):
        return RunResult("killed", reason="interrupted", retryable=True)
    return RunResult("failed", reason=reason, retryable=can_pass(error))


def can_pass(error: BaseException | None) -> bool:
    """Whether what a run failed by may be gone at the next attempt: a disk, a network, a lost worker.

    Args:
      error: what was raised; the errors that led to it count too.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, EvergreenError) and error.retryable:
            return True
        if isinstance(error, (OSError, EOFError)) and not isinstance(error, ImportError):
            return True
        if type(error).__name__ in _CAN_PASS:
            return True
        error = error.__cause__ or error.__context__
    return False


def gates(result: str, reason: str) -> str:
    """Says which gates a run passed, and which one was closed.

    Args:
      result: a value of `store.Result`.
      reason: why it did not publish.

    Returns:
      A few words; empty where the run did not come to a verdict, or to no gate.
    """
    if result in ("published", "unchanged"):
        return "all passed"
    if result == "withdrawn":
        return "all passed, then withdrawn"
    if result == "data rejected":
        return "gate 1 closed"
    if result == "decided":
        return "gate 1 passed"
    if result == "model rejected":
        return next((f"gate {n} closed" for n in (2, 3, 4) if f"gate {n} is closed" in reason), "closed")
    return ""
