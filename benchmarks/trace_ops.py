"""Reads a trace that `trainer.profile` wrote: the time of the CPU by kind of operation."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

_PS_TO_MS = 1e-9
# What an executor thread does between operations, and the shards of one operation on other threads.
_NAMES = {"Process": "(executor)", "ParallelFor": "(shards)"}
_THREADS = "tf_Compute"
_INPUT = "tf_data"


def read(folder: Path, steps: int) -> dict[str, dict[str, float]]:
    """Sums the trace of the training steps up.

    Args:
      folder: where the trace lies, at any depth.
      steps: how many steps it holds.

    Returns:
      By kind of operation the milliseconds of CPU that a step spends in it, without what it calls (`ms`), and how many
      of it a step has (`count`). `(executor)` is what TensorFlow does between operations, `(shards)` are parts of
      operations on other threads, `(input)` is all that the threads of tf.data do.
    """
    found: dict[str, dict[str, float]] = defaultdict(lambda: {"ms": 0.0, "count": 0.0})
    for path in folder.rglob("*.xplane.pb"):
        for plane in _planes(path):
            for line in plane.lines:
                if line.name.startswith((_THREADS, _INPUT)):
                    for name, picoseconds in _own_times(line.events, plane.event_metadata):
                        kind = "(input)" if line.name.startswith(_INPUT) else _NAMES.get(name, name)
                        found[kind]["ms"] += picoseconds * _PS_TO_MS / steps
                        found[kind]["count"] += 1 / steps
    return dict(found)


def threads(folder: Path) -> dict[str, list[tuple[str, float, float]]]:
    """Reads what every thread did.

    Args:
      folder: where the trace lies, at any depth.

    Returns:
      By thread its events in the order of their beginnings: the kind of operation, its begin and end in milliseconds.
      Only the executor's threads and those of tf.data that did something.
    """
    found: dict[str, list[tuple[str, float, float]]] = {}
    for path in sorted(folder.rglob("*.xplane.pb")):
        for plane in _planes(path):
            for line in plane.lines:
                if line.name.startswith((_THREADS, _INPUT)) and line.events:
                    base = line.timestamp_ns * 1e-6
                    found[f"{line.name} {line.id}"] = sorted(
                        (
                            (
                                plane.event_metadata[event.metadata_id].name.rpartition(":")[2],
                                base + event.offset_ps * _PS_TO_MS,
                                base + _end(event) * _PS_TO_MS,
                            )
                            for event in line.events
                        ),
                        key=lambda event: (event[1], -event[2]),
                    )
    return found


def _planes(path: Path) -> Any:
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    return xplane_pb2.XSpace.FromString(path.read_bytes()).planes


def _own_times(events: Any, metadata: Any) -> list[tuple[str, int]]:
    """Returns the type and the own picoseconds of each event of a thread: its duration less that of those within it."""
    ordered = sorted(events, key=lambda event: (event.offset_ps, -event.duration_ps))
    own = [event.duration_ps for event in ordered]
    open_ones: list[int] = []
    for number, event in enumerate(ordered):
        while open_ones and _end(ordered[open_ones[-1]]) <= event.offset_ps:
            open_ones.pop()
        if open_ones:
            own[open_ones[-1]] -= event.duration_ps
        open_ones.append(number)
    names = [metadata[event.metadata_id].name.rpartition(":")[2] for event in ordered]
    return list(zip(names, own, strict=True))


def _end(event: Any) -> int:
    return int(event.offset_ps + event.duration_ps)
