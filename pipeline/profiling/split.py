"""Splits a run's wall time by stage and part. Pure: from what the sampler saw to seconds that sum up."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from evergreen.pipeline.profiling import parts
from evergreen.pipeline.profiling.parts import Part
from evergreen.pipeline.profiling.sampler import Recording, Seen, Tick

BEFORE, BETWEEN = "(before)", "(between)"

# Less of an interval than this on a CPU, and a thread, or the process, did nothing in it.
_IDLE_THREAD, _IDLE_PROCESS = 0.1, 0.2
# Later than this part of the time since the last look, and the sampler was kept away by a busy interpreter or machine.
_LATE = 0.5


@dataclass
class Row:
    """A stage's time.

    Attributes:
      stage: its name; BEFORE the first one, and BETWEEN and after them.
      parts: wall seconds by part; they sum up to `wall`.
      wall: seconds.
      cpu: seconds of CPU time of the process, children apart.
    """

    stage: str
    parts: dict[Part, float]
    wall: float
    cpu: float

    def to_json(self) -> dict[str, float]:
        """Returns the seconds by the parts' names, with `wall` and `cpu`, in milliseconds' precision."""
        named = {part.value: round(seconds, 3) for part, seconds in self.parts.items() if seconds >= 0.0005}
        return {"wall": round(self.wall, 3), **named, "cpu": round(self.cpu, 3)}


class Slice(NamedTuple):
    """A short time in a stage.

    Attributes:
      stage: its name.
      began: by `time.perf_counter`.
      ended: the same.
      shares: for each stack that is the stage's in this time, its part and its number; each has an equal share.
      cpu: seconds of CPU time of the process.
    """

    stage: str
    began: float
    ended: float
    shares: Sequence[tuple[Part, int | None]]
    cpu: float


class Stretch(NamedTuple):
    """A stage's time from beginning to end, or the time when no stage ran."""

    stage: str
    thread: int
    began: float
    ended: float


def rows(recording: Recording) -> list[Row]:
    """Returns the stages' times, in the order in which they began.

    Args:
      recording: what the sampler saw.
    """
    found: dict[str, Row] = {}
    for stretch in stretches(recording):
        row = found.setdefault(stretch.stage, Row(stretch.stage, dict.fromkeys(Part, 0.0), 0.0, 0.0))
        row.wall += stretch.ended - stretch.began
    for one in slices(recording):
        row = found[one.stage]
        row.cpu += one.cpu
        for part, _ in one.shares:
            row.parts[part] += (one.ended - one.began) / len(one.shares)
    return list(found.values())


def total(found: Sequence[Row]) -> Row:
    """Returns the sum of all rows."""
    summed = {part: sum(row.parts[part] for row in found) for part in Part}
    return Row("total", summed, sum(row.wall for row in found), sum(row.cpu for row in found))


def stretches(recording: Recording) -> list[Stretch]:
    """Returns the stages, and the times between them, by when they began. Together they cover the whole time.

    Args:
      recording: what the sampler saw.
    """
    found: list[Stretch] = []
    open_marks: dict[tuple[str, int], float] = {}
    free = recording.began
    for mark in recording.marks:
        if mark.begins:
            if not open_marks and mark.time > free:
                found.append(Stretch(BETWEEN if found else BEFORE, recording.main, free, mark.time))
            open_marks[mark.stage, mark.thread] = mark.time
        else:
            found.append(Stretch(mark.stage, mark.thread, open_marks.pop((mark.stage, mark.thread)), mark.time))
            free = mark.time
    found += [Stretch(stage, thread, began, recording.ended) for (stage, thread), began in open_marks.items()]
    if not open_marks and recording.ended > free:
        found.append(Stretch(BETWEEN if found else BEFORE, recording.main, free, recording.ended))
    return sorted(found, key=lambda stretch: stretch.began)


def slices(recording: Recording) -> Iterator[Slice]:
    """Cuts the stages at the moments that were seen. What was seen at a moment holds for the time before it.

    Args:
      recording: what the sampler saw.

    Yields:
      The slices, stage after stage.
    """
    judge = _Judge(recording)
    times = [tick.time for tick in recording.ticks]
    for stretch in stretches(recording):
        first, behind = (bisect.bisect_right(times, moment) for moment in (stretch.began, stretch.ended))
        at, shares = stretch.began, judge.unseen
        for index in range(first, behind):
            shares = judge.shares(index, stretch.thread)
            yield Slice(stretch.stage, at, times[index], shares, judge.cpu(index, at, times[index]))
            at = times[index]
        # Behind the last look what was seen then goes on.
        if at < stretch.ended:
            yield Slice(stretch.stage, at, stretch.ended, shares, judge.cpu(behind, at, stretch.ended))


class _Judge:
    """Says what a thread's time went into between two looks."""

    unseen: Sequence[tuple[Part, int | None]] = ((Part.WORK, None),)

    def __init__(self, recording: Recording):
        self._ticks = recording.ticks
        self._began = recording.began
        self._stage_threads = {recording.main} | {mark.thread for mark in recording.marks}
        self._waits = [parts.waits(stack[-1]) for stack in recording.stacks]
        self._waited_for = [parts.waited_for(stack) for stack in recording.stacks]
        self._busy_with = [parts.busy_with(stack) for stack in recording.stacks]

    def cpu(self, index: int, began: float, ended: float) -> float:
        """CPU seconds of the process in a piece of the time before a look."""
        if not 0 < index < len(self._ticks):
            return 0.0
        tick, last = self._ticks[index], self._ticks[index - 1]
        return (tick.cpu - last.cpu) * (ended - began) / (tick.time - last.time)

    def shares(self, index: int, thread: int) -> Sequence[tuple[Part, int | None]]:
        """The parts, and the stacks, that the time of a stage before a look goes to.

        Args:
          index: of the look.
          thread: that runs the stage.
        """
        tick = self._ticks[index]
        last = self._ticks[index - 1] if index else Tick(self._began, 0.0, 0.0, ())
        seconds = tick.time - last.time
        before = {seen.thread: seen.cpu for seen in last.threads}
        own = next((seen for seen in tick.threads if seen.thread == thread), None)
        if own is None:
            return self.unseen
        idle = tick.cpu - last.cpu < _IDLE_PROCESS * seconds and tick.late < _LATE * seconds
        if not self._waits[own.stack]:
            return ((self._in_c(own, idle), own.stack),)
        if self._waited_for[own.stack] is Part.CHILDREN:
            return ((Part.CHILDREN, own.stack),)

        def ran(seen: Seen) -> bool:
            # A thread that was not noted at the last look waited then. Comparing with NaN is false.
            return not seen.cpu - before.get(seen.thread, -1.0) < _IDLE_THREAD * seconds

        others = [seen for seen in tick.threads if seen.thread not in self._stage_threads]
        busy = [seen for seen in others if not self._waits[seen.stack] and ran(seen)]
        if busy:
            return [(self._busy_with[seen.stack], seen.stack) for seen in busy]
        return ((Part.WAITING if idle else Part.WORK, own.stack),)

    def _in_c(self, seen: Seen, idle: bool) -> Part:
        """The part of a stack whose innermost frame may be in a compiled function, which waits or does not."""
        busy = self._busy_with[seen.stack]
        return self._waited_for[seen.stack] if idle and busy not in (Part.IMPORTS, Part.IO) else busy
