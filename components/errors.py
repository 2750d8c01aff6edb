"""The error that a user sees: one headline, the reason, the next step, and the exit status of the command.

Everything that Evergreen refuses on purpose raises one of these; anything else is a defect and exits 1. The module
imports nothing of ours, so that every layer may use it.
"""

from __future__ import annotations

from dataclasses import dataclass


class EvergreenError(Exception):
    """Base class of every refusal.

    Args:
      headline: what happened, in one line without a full stop.
      reason: why, with the value received and what was expected.
      next_step: what the user can do now.
    """

    exit_status = 1
    retryable = False

    def __init__(self, headline: str, reason: str = "", next_step: str = ""):
        super().__init__(headline)
        self.headline = headline
        self.reason = reason
        self.next_step = next_step

    def __str__(self) -> str:
        return "\n".join(part for part in (self.headline, self.reason, self.next_step) if part)

    def __reduce__(self) -> tuple[type[EvergreenError], tuple[str, str, str]]:
        return type(self), (self.headline, self.reason, self.next_step)


class ConfigError(EvergreenError):
    """The configuration, the usage or a user's function is wrong."""

    exit_status = 2


class SpanError(EvergreenError):
    """A span does not exist or is not complete."""

    exit_status = 2


class DataRejected(EvergreenError):
    """Gate 1 closed: the data cannot be read, breaks the schema, or too few spans are accepted."""

    exit_status = 3


class ModelRejected(EvergreenError):
    """Gates 2 to 4 closed, or training gave no usable model."""

    exit_status = 4


class LockHeld(EvergreenError):
    """Another run holds the workspace."""

    exit_status = 5
    retryable = True


@dataclass(frozen=True)
class Failure:
    """A refusal as plain values, for another process; `dataclasses.asdict` and `Failure(**values)` suit JSON.

    Attributes:
      error: class name in this module.
      headline: what happened.
      reason: why.
      next_step: what to do.
    """

    error: str
    headline: str
    reason: str
    next_step: str

    @classmethod
    def of(cls, error: EvergreenError) -> Failure:
        """Makes a value of an exception."""
        return cls(type(error).__name__, error.headline, error.reason, error.next_step)

    def exception(self) -> EvergreenError:
        """Makes the exception of the value again."""
        kind: type[EvergreenError] = globals()[self.error]
        return kind(self.headline, self.reason, self.next_step)
