"""Writes what the sampler saw as a trace: Chrome's trace event format, which Perfetto, speedscope and chrome://tracing
open, gzip'd or not.

Rows of the trace: the stages, their parts, and each thread's stack while it does not wait.
"""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from evergreen.pipeline.profiling import parts, split
from evergreen.pipeline.profiling.sampler import Recording

_PID = 1
# The rows' ids, which decide their order: stages and parts of each thread that runs stages, then the threads.
_STAGES, _PARTS, _THREADS = 1, 2, 10


def write(recording: Recording, path: Path) -> None:
    """Writes the trace.

    Args:
      recording: what the sampler saw.
      path: the file; gzip'd where its name ends in `.gz`.
    """
    opened: Any = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8") as file:
        file.write('{"displayTimeUnit": "ms", "traceEvents": [\n')
        for index, event in enumerate(events(recording)):
            file.write((",\n" if index else "") + json.dumps(event, separators=(",", ":")))
        file.write("\n]}\n")


def events(recording: Recording) -> Iterator[dict[str, Any]]:
    """Yields the trace's events, times in microseconds since the run began.

    Args:
      recording: what the sampler saw.
    """
    yield _name("process_name", 0, "evergreen run")
    yield from _row(_STAGES, "stages", ((s.stage, s.began, s.ended) for s in split.stretches(recording)), recording)
    pieces = ((one.shares[0][0].value, one.began, one.ended) for one in split.slices(recording))
    yield from _row(_PARTS, "parts", _joined(pieces), recording)
    threads = dict.fromkeys(seen.thread for tick in recording.ticks for seen in tick.threads)
    for row, thread in enumerate(sorted(threads, key=lambda t: t != recording.main), _THREADS):
        name = "main" if thread == recording.main else recording.names.get(thread, f"thread {thread}")
        yield from _row(row, name, _calls(recording, thread), recording)


def _name(what: str, row: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "pid": _PID, "tid": row, "name": what, "args": {"name": name}}


def _row(
    row: int, name: str, calls: Iterable[tuple[str, float, float]], recording: Recording
) -> Iterator[dict[str, Any]]:
    yield _name("thread_name", row, name)
    yield {"ph": "M", "pid": _PID, "tid": row, "name": "thread_sort_index", "args": {"sort_index": row}}
    for called, began, ended in calls:
        start = round((began - recording.began) * 1e6)
        # Both ends are rounded, not the length, so that a call never reaches out of its caller's time.
        length = round((ended - recording.began) * 1e6) - start
        yield {"ph": "X", "pid": _PID, "tid": row, "name": called, "ts": start, "dur": length}


def _joined(pieces: Iterable[tuple[str, float, float]]) -> Iterator[tuple[str, float, float]]:
    """Makes one of neighbours of the same name."""
    for name, group in itertools.groupby(pieces, key=lambda piece: piece[0]):
        same = list(group)
        yield name, same[0][1], same[-1][2]


def _calls(recording: Recording, thread: int) -> list[tuple[str, float, float]]:
    """A thread's calls, by when they began: each from the first look that saw it to the last in a row."""
    found: list[tuple[float, float, int, str]] = []
    open_calls: list[tuple[parts.Frame, float]] = []
    last = recording.began

    def close(depth: int) -> None:
        while len(open_calls) > depth:
            frame, began = open_calls.pop()
            name = f"{frame.function} ({frame.module}:{frame.line})"
            found.append((began, -last, len(open_calls), name))

    for tick in recording.ticks:
        stack = next((recording.stacks[seen.stack] for seen in tick.threads if seen.thread == thread), ())
        if stack and parts.waits(stack[-1]) and thread != recording.main:
            stack = ()
        same = 0
        while same < min(len(stack), len(open_calls)) and stack[same] == open_calls[same][0]:
            same += 1
        close(same)
        open_calls.extend((frame, last) for frame in stack[same:])
        last = tick.time
    close(0)
    # A caller comes before what it called at the same moment.
    return [(name, began, -ended) for began, ended, _, name in sorted(found)]
