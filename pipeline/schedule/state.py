"""What the scheduler remembers: which times are done, what waits, what runs, and whether it is paused.

One JSON file in the workspace, replaced in one step each time something is decided and before it is done. A scheduler
that is killed at any moment finds there what it had decided; what a run came to is in the run's own result file.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evergreen.components import atomic
from evergreen.components.errors import EvergreenError

FORMAT = 1
_RESULT = "result-"
_KEPT_SLOTS = 100
_KEPT_SPANS = 100
_KEPT_ENDED = 50


@dataclass(frozen=True)
class Places:
    """The scheduler's files.

    Args:
      workspace: the project's workspace.
    """

    workspace: Path

    @property
    def folder(self) -> Path:
        """Where they lie."""
        return self.workspace / "schedule"

    @property
    def state(self) -> Path:
        """What is remembered."""
        return self.folder / "state.json"

    def result(self, token: str) -> Path:
        """What a run came to. Each has a file of its own, so that none is taken for the end of another."""
        return self.folder / f"{_RESULT}{token}.json"

    def remove_results(self) -> None:
        """Removes what runs came to, also what one that was killed had half written. None may be at work."""
        atomic.sweep(self.folder, _RESULT)
        for file in self.folder.glob(f"{_RESULT}*.json"):
            file.unlink(missing_ok=True)

    @property
    def heartbeat(self) -> Path:
        """Written anew each time the loop goes round."""
        return self.folder / "heartbeat.json"

    @property
    def lock(self) -> Path:
        """Held by the scheduler that is at work."""
        return self.folder / "lock"

    @property
    def resume(self) -> Path:
        """Left for the scheduler by whoever wants it to go on."""
        return self.folder / "resume"


@dataclass(frozen=True)
class Job:
    """A run that is to be.

    Attributes:
      trigger: what started it: `cron`, `every`, `catch_up`, `on_new_span`, `watch`, `on_drift` or `on_metric_drop`.
      scheduled: its scheduled time.
      span: label of its span; None where the scheduled time says which, or the newest is meant.
      attempt: counted from 1.
      not_before: no earlier, where it is tried again.
      decide_only: only gate 1 and the champion's exam; nothing is trained.
    """

    trigger: str
    scheduled: float
    span: str | None = None
    attempt: int = 1
    not_before: float = 0.0
    decide_only: bool = False


@dataclass(frozen=True)
class Running:
    """A run's process.

    Attributes:
      job: what it does.
      span: label of its span.
      digest: that span's files as they were seen when the run started.
      started: when.
      result_file: where it writes what it came to.
      pid: its process, which leads a process group of its own; 0 as long as there is none.
      created: when that process was created, by which it is told from a later one of the same number.
      temporary: its folder of temporary files, which goes when the run has ended, whoever was killed.
    """

    job: Job
    span: str
    digest: str
    started: float
    result_file: str
    pid: int = 0
    created: float = 0.0
    temporary: str = ""


@dataclass(frozen=True)
class Pause:
    """Why nothing is started.

    Attributes:
      since: when the pause began.
      reason: why, in words.
      lifts: whether it ends by itself, when the project has changed and its configuration can be read.
      project: hash of the project's files at the beginning of such a pause.
    """

    since: float
    reason: str
    lifts: bool = False
    project: str = ""


@dataclass(frozen=True)
class Ended:
    """One run that came to its end, also one for which nothing was to be done.

    Attributes:
      trigger: what started it.
      scheduled: its scheduled time.
      result: how it ended.
      ended: when.
      span: label of its span; empty where there was none.
      run: the run's id in ML Metadata; empty where no process was needed.
      version: what it published; 0 for nothing.
      reason: why it did not publish.
      attempt: the last attempt.
      seconds: how long that took.
    """

    trigger: str
    scheduled: float
    result: str
    ended: float
    span: str = ""
    run: str = ""
    version: int = 0
    reason: str = ""
    attempt: int = 1
    seconds: float = 0.0


@dataclass(frozen=True)
class State:
    """Everything that is remembered. Moments are seconds since 1970.

    Attributes:
      cursor: the last due time that was taken care of; None before the first start.
      timetable: what gave these times; another one begins at the present.
      slots: the newest such times, so that a clock that is set back repeats none.
      queue: what is to be done, the next one first.
      running: the run that goes on.
      failures: failed runs in a row.
      paused: why nothing is started; None where it is.
      settled: by span label, the files for which a run came to a verdict.
      watched: the same for the triggers that look at a new span.
      seen: the newest span and its files at the last look, which must stay the same until the next.
      said: what was said last about there being nothing to do, and not again.
      late: the span that was last reported as late.
      stale: the version that was reported as stale.
      last_success: when a run last ended without failing; 0 for never.
      ended: the newest runs, the oldest first.
      counts: how many runs ended how.
      seconds: how long all of them took together.
      outbox: events of which not everybody was told yet.
    """

    cursor: float | None = None
    timetable: str = ""
    slots: tuple[float, ...] = ()
    queue: tuple[Job, ...] = ()
    running: Running | None = None
    failures: int = 0
    paused: Pause | None = None
    settled: Mapping[str, str] = field(default_factory=dict)
    watched: Mapping[str, str] = field(default_factory=dict)
    seen: tuple[str, str] | None = None
    said: str = ""
    late: str = ""
    stale: int = 0
    last_success: float = 0.0
    ended: tuple[Ended, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    outbox: tuple[Mapping[str, Any], ...] = ()

    def with_slots(self, slots: list[float]) -> State:
        """Returns the state in which these due times are taken care of."""
        return dataclasses.replace(self, cursor=slots[-1], slots=(*self.slots, *slots)[-_KEPT_SLOTS:])

    def with_ended(self, ended: Ended) -> State:
        """Returns the state in which a run has come to its end."""
        counts = {**self.counts, ended.result: self.counts.get(ended.result, 0) + 1}
        return dataclasses.replace(
            self, ended=(*self.ended, ended)[-_KEPT_ENDED:], counts=counts, seconds=self.seconds + ended.seconds
        )

    def with_settled(self, span: str, digest: str) -> State:
        """Returns the state in which a span needs no further run."""
        return dataclasses.replace(self, settled=_newest(self.settled, span, digest))

    def with_watched(self, span: str, digest: str) -> State:
        """Returns the state in which the triggers have looked at a span."""
        return dataclasses.replace(self, watched=_newest(self.watched, span, digest))


def _newest(known: Mapping[str, str], span: str, digest: str) -> dict[str, str]:
    entries = [*((key, value) for key, value in known.items() if key != span), (span, digest)]
    return dict(entries[-_KEPT_SPANS:])


def read(path: Path) -> State:
    """Reads what an earlier scheduler, or this one, remembered.

    Args:
      path: the file; a missing one is a first start.

    Raises:
      EvergreenError: the file is not one of ours.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("format") != FORMAT:
            raise ValueError("it was written by another version of Evergreen")
        return _from_json(values)
    except FileNotFoundError:
        return State()
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise EvergreenError(
            "the schedule's state cannot be read",
            f"{path}: {error}",
            "move the file away: the schedule then starts as if for the first time; what is decided stays decided",
        ) from error


def write(path: Path, state: State) -> None:
    """Replaces the file in one step, durably.

    Args:
      path: the file; its folder exists.
      state: what is to be remembered.
    """
    atomic.write_file(path, json.dumps({"format": FORMAT, **dataclasses.asdict(state)}, indent=1) + "\n")


def _from_json(values: dict[str, Any]) -> State:
    running, paused, seen = values["running"], values["paused"], values["seen"]
    return State(
        **{
            **values,
            "slots": tuple(values["slots"]),
            "queue": tuple(Job(**job) for job in values["queue"]),
            "running": Running(**{**running, "job": Job(**running["job"])}) if running else None,
            "paused": Pause(**paused) if paused else None,
            "seen": (seen[0], seen[1]) if seen else None,
            "outbox": tuple(values["outbox"]),
            "ended": tuple(Ended(**ended) for ended in values["ended"]),
        }
    )
