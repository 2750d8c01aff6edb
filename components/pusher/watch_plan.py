"""What a watch over a new version knows and decides: its settings, its file beside the versions, its verdicts.

Pure but for the file `.watch.json`, which a push writes before it commits and removes when the servers have answered:
as long as it lies there the version is on probation, and whoever comes next finishes the watch. Asking the servers
lives in `watch`.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from evergreen.components import atomic
from evergreen.components.errors import EvergreenError

WATCH_FILE = ".watch.json"
AVAILABLE, END = "AVAILABLE", "END"
UNREACHABLE, UNKNOWN = "UNREACHABLE", "UNKNOWN"


@dataclass(frozen=True)
class CanarySettings:
    """A trial; the meanings are those of the configuration's `publish.canary`."""

    label: str = "canary"
    stable: str = "stable"
    minutes: float = 10.0
    max_error_ratio: float = 0.01
    max_latency_ratio: float = 1.5
    metrics: tuple[str, ...] = ()


@dataclass(frozen=True)
class WatchSettings:
    """How the versions of a base path are watched.

    Attributes:
      servers: `host:port` of each server; none where nothing is watched.
      timeout: seconds within which a server must answer with a new version.
      rows: how many exam rows are sent.
      tolerance: how far an answer may be from the Trainer's own; see `evergreen.components.model_server.compare`.
      canary: the trial; None for none.
      models_config: the file that the servers read; None where no labels are kept.
    """

    servers: tuple[str, ...] = ()
    timeout: float = 300.0
    rows: int = 20
    tolerance: float = 1e-3
    canary: CanarySettings | None = None
    models_config: str | None = None

    @property
    def stable(self) -> str:
        """The label of the version that clients are to use."""
        return self.canary.stable if self.canary else CanarySettings.stable


def parse_settings(publish: Mapping[str, Any]) -> WatchSettings:
    """Reads the configuration's section `publish`.

    Args:
      publish: its values as JSON has them; keys that are not given have the configuration's defaults.

    Returns:
      The settings.
    """
    server = publish.get("server") or ()
    canary = publish.get("canary")
    return WatchSettings(
        servers=(server,) if isinstance(server, str) else tuple(server),
        canary=CanarySettings(**{**canary, "metrics": tuple(canary.get("metrics", ()))}) if canary else None,
        models_config=publish.get("models_config"),
        **(publish.get("watch") or {}),
    )


@dataclass(frozen=True)
class Pending:
    """A version whose watch is not finished.

    Attributes:
      version: its number.
      model: the name by which servers know the model.
      examples_uri: the Examples whose exam rows are sent; empty to send none.
      evaluation_uri: the ModelEvaluation with the Trainer's answers to them.
      reason: why the version is being withdrawn; empty before that was decided.
    """

    version: int
    model: str
    examples_uri: str = ""
    evaluation_uri: str = ""
    reason: str = ""


def write_pending(base: Path, pending: Pending) -> None:
    """Puts a version on probation, durably; call it before the version can be seen.

    Args:
      base: the base path.
      pending: what the watch needs to know, also in another process.

    Raises:
      OSError: it cannot be written.
    """
    atomic.write_file(base / WATCH_FILE, json.dumps(dataclasses.asdict(pending), indent=2) + "\n")


def read_pending(base: Path) -> Pending | None:
    """Returns the version that is on probation, or None.

    Args:
      base: the base path.

    Raises:
      EvergreenError: the file says something else.
    """
    path = base / WATCH_FILE
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        values = json.loads(text)
        pending = Pending(**values)
        if not isinstance(pending.version, int):
            raise TypeError(f"received version={pending.version!r}, expected a whole number")
        return pending
    except (ValueError, TypeError) as error:
        raise EvergreenError(
            "the file that says which version is being watched cannot be read",
            f"{path}: {error}",
            "Look at `evergreen versions`, then remove the file; the version stays as it is.",
        ) from error


def forget_pending(base: Path) -> None:
    """Ends the probation, durably; fine where there is none.

    Args:
      base: the base path.

    Raises:
      OSError: the file cannot be removed.
    """
    try:
        os.unlink(base / WATCH_FILE)
    except FileNotFoundError:
        return
    atomic.sync_directory(base)


@dataclass(frozen=True)
class Seen:
    """What one server said of a version at one moment.

    Attributes:
      server: its address.
      state: ModelService's name of the state; UNKNOWN where the server does not know the version yet, UNREACHABLE where
        no answer came.
      failed: whether the server says that something went wrong with it.
      message: the server's own words.
    """

    server: str
    state: str
    failed: bool = False
    message: str = ""


class State(Enum):
    """How a version's loading stands, over all servers."""

    WAITING = "waiting"
    LOADED = "loaded"
    FAILED = "failed"


@dataclass(frozen=True)
class Verdict:
    """What is to be done now.

    Attributes:
      state: go on waiting, ask for predictions, or withdraw.
      text: what is waited for, or why the version failed; empty where it is loaded everywhere.
    """

    state: State
    text: str = ""


def judge(seen: Sequence[Seen], version: int, waited: float, timeout: float) -> Verdict:
    """Decides whether a version is loaded by every server, will not be, or must be waited for.

    An error while it still loads is no verdict: the server tries again. A server that does not answer may be one that
    the version brought down, so that it counts against the version when the time is over, and not before.

    Args:
      seen: of each server, what it said last.
      version: the version's number.
      waited: seconds since the version was published.
      timeout: seconds that it has.

    Returns:
      The verdict.
    """
    for one in seen:
        if one.state == END:
            why = one.message or ("it failed" if one.failed else "it was unloaded")
            return Verdict(State.FAILED, f"{one.server} does not serve version {version}: {why}")
    missing = [one for one in seen if one.state != AVAILABLE]
    if not missing:
        return Verdict(State.LOADED)
    first, others = missing[0], len(missing) - 1
    more = f" and {others} more" if others else ""
    if waited >= timeout:
        return Verdict(
            State.FAILED,
            f"{first.server}{more} did not answer with version {version} within {timeout:.0f} s: {_words(first)}",
        )
    doing = "answer" if first.state == UNREACHABLE else f"load version {version}"
    return Verdict(State.WAITING, f"waiting for {first.server}{more} to {doing}, {waited:.0f} s")


def _words(seen: Seen) -> str:
    if seen.state == UNREACHABLE:
        return f"no answer ({seen.message})" if seen.message else "no answer"
    if seen.state == UNKNOWN:
        return "it does not know the version"
    return f"it is {seen.state}" + (f" ({seen.message})" if seen.message else "")


@dataclass(frozen=True)
class Watched:
    """How a watch ended.

    Attributes:
      version: the version.
      reason: why it was withdrawn; empty where it was kept.
      text: one sentence for the user.
      measured: what a trial measured, as plain values; empty without one.
      warnings: what could not be done and harms nothing yet.
    """

    version: int
    reason: str
    text: str
    measured: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def withdrawn(self) -> bool:
        """Whether the version was taken back."""
        return bool(self.reason)
