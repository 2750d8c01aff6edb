"""Looks fifty times a second at what the threads of this process do. It only notes; `split` judges."""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import NamedTuple

from evergreen.pipeline.profiling import parts
from evergreen.pipeline.profiling.parts import Frame

INTERVAL_S = 0.02
# Who looks must have the interpreter's lock. Python lets a thread keep it for 5 ms, but a thread gives it away earlier
# where it calls what needs no lock (compressing, reading, much of TensorFlow). At 5 ms a look thus finds a thread there
# four times in five where it spends a fifth of its time; at 0.1 ms about as often as it should.
SWITCH_S = 0.0001
# After so many looks they become rarer: what is noted grows with the logarithm of a run's length.
_MANY = 20_000
# Linux's clock of a thread's CPU time is the inverted thread id above these bits: per thread, and what was scheduled.
_THREAD_CLOCK = 0b110


class Seen(NamedTuple):
    """A thread at a moment.

    Attributes:
      thread: its identifier.
      stack: a number of `Stacks`.
      cpu: seconds of CPU time that it has used so far; NaN where the system does not say.
    """

    thread: int
    stack: int
    cpu: float


class Tick(NamedTuple):
    """A moment.

    Attributes:
      time: by `time.perf_counter`.
      cpu: seconds of CPU time that the process has used so far.
      late: seconds that the sampler was kept from looking, by the interpreter's lock or by other processes.
      threads: the main thread, those that run a stage, and of the others those that do not wait.
    """

    time: float
    cpu: float
    late: float
    threads: tuple[Seen, ...]


class Mark(NamedTuple):
    """The beginning or the end of a stage.

    Attributes:
      time: by `time.perf_counter`.
      stage: its name.
      thread: that runs it.
      begins: which of the two.
    """

    time: float
    stage: str
    thread: int
    begins: bool


class Stacks:
    """Numbers stacks, each distinct one once."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[int, ...], int] = {}
        self._codes: dict[int, Frame] = {}
        self._waits: dict[int, bool] = {}
        self._kept: list[CodeType] = []  # an id is another object's once its own is gone

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, frames: Sequence[FrameType]) -> int:
        """Returns the number of a stack, whose frames are given from the innermost one on."""
        key = tuple([id(frame.f_code) for frame in frames])
        found = self._numbers.get(key)
        if found is None:
            for frame in frames:
                self._learn(frame)
            found = self._numbers[key] = len(self._numbers)
        return found

    def waits(self, frame: FrameType) -> bool:
        """Whether a frame is of a function that waits."""
        self._learn(frame)
        return self._waits[id(frame.f_code)]

    def all(self) -> list[tuple[Frame, ...]]:
        """Returns the stacks by their numbers, each from its outermost frame to its innermost."""
        return [tuple(self._codes[code] for code in reversed(key)) for key in self._numbers]

    def _learn(self, frame: FrameType) -> None:
        code = frame.f_code
        if id(code) not in self._codes:
            self._kept.append(code)
            found = Frame(str(frame.f_globals.get("__name__", "?")), code.co_name, code.co_firstlineno)
            self._waits[id(code)] = parts.waits(found)
            self._codes[id(code)] = found


@dataclass
class Recording:
    """What was seen.

    Attributes:
      main: the thread whose work is the run's.
      began: when, by `time.perf_counter`.
      ended: when.
      ticks: the moments, in their order.
      marks: the stages' beginnings and ends, in their order.
      stacks: from the outermost frame to the innermost, by the number that `ticks` name.
      names: of the threads.
    """

    main: int
    began: float
    ended: float = math.nan
    ticks: list[Tick] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    stacks: list[tuple[Frame, ...]] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)


def _stack(frame: FrameType) -> list[FrameType]:
    """Returns a frame and those that called it, the innermost first."""
    found, at = [frame], frame.f_back
    while at is not None:
        found.append(at)
        at = at.f_back
    return found


class Sampler:
    """Samples, from when it is made to `stop`. The thread that makes it is the main one."""

    def __init__(self) -> None:
        self._recording = Recording(threading.get_ident(), time.perf_counter())
        self._stacks = Stacks()
        self._running: set[int] = {threading.get_ident()}
        self._clocks: dict[int, int | None] = {}
        self._stopped = False
        self._switch_s = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_S)
        self._thread = threading.Thread(target=self._run, name="profiler", daemon=True)
        self._thread.start()

    def mark(self, stage: str, begins: bool) -> None:
        """Notes that this thread begins or ends a stage.

        Args:
          stage: its name.
          begins: which of the two.
        """
        thread = threading.get_ident()
        self._recording.marks.append(Mark(time.perf_counter(), stage, thread, begins))
        self._running = self._running | {thread}

    def stop(self) -> Recording:
        """Ends the sampling.

        Returns:
          What was seen; the same once more when called again.
        """
        if self._stopped:
            return self._recording
        self._stopped = True
        self._thread.join()
        sys.setswitchinterval(self._switch_s)
        self._recording.ended = time.perf_counter()
        self._recording.stacks = self._stacks.all()
        return self._recording

    def _run(self) -> None:
        woken = time.perf_counter()
        while True:
            wait = max(INTERVAL_S, (woken - self._recording.began) / _MANY)
            due = time.perf_counter() + wait
            time.sleep(wait)  # a third of the cost of an Event's wait
            if self._stopped:
                return
            woken = time.perf_counter()
            self._look(woken, woken - due)

    def _look(self, now: float, late: float) -> None:
        # First the stacks, for which this thread has the lock for SWITCH_S: a function that returns leaves its caller.
        own, running = threading.get_ident(), self._running
        looked_at = [
            (thread, _stack(frame))
            for thread, frame in sys._current_frames().items()
            if thread in running or (thread != own and not self._stacks.waits(frame))
        ]
        cpu = time.process_time()
        seen = [Seen(thread, self._stacks.number(frames), self._cpu(thread)) for thread, frames in looked_at]
        self._recording.ticks.append(Tick(now, cpu, late, tuple(seen)))

    def _cpu(self, thread: int) -> float:
        if thread not in self._clocks:
            self._clocks[thread] = None
            for known in threading.enumerate():
                if known.ident == thread:
                    self._recording.names[thread] = known.name
                    if sys.platform == "linux" and known.native_id is not None:
                        self._clocks[thread] = (~known.native_id << 3) | _THREAD_CLOCK
        clock = self._clocks[thread]
        if clock is not None:
            with contextlib.suppress(OSError):
                return time.clock_gettime(clock)
            del self._clocks[thread]  # it has ended, and another may get its identifier
        return math.nan
