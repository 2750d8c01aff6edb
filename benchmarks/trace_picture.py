"""Draws a training step from a trace that `trainer.profile` wrote: what every thread did, and when it waited.

    .venv/bin/python benchmarks/trace_picture.py RUN_FOLDER [--step 2] [--out trace.png]

RUN_FOLDER is a ModelRun artifact, for example `.evergreen/flights/artifacts/Trainer/model_run/12`. TensorBoard with
its plugin `profile` shows the same and more; this needs neither.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import trace_ops

_BEGIN = "Root"  # of tf.data's operations
# What an operation belongs to, by how its kind begins; the first that fits counts.
_GROUPS = {
    "matrix products": ("MatMul", "_Mkl", "_Fused", "BatchMatMul", "Conv", "BiasAddGrad"),
    "embedding tables": ("ResourceGather", "ResourceScatter", "Unique", "UnsortedSegment", "StridedSlice"),
    "input": ("Root", "Prefetch", "ParallelMap", "Rebatch", "Shuffle", "Split", "GatherV2", "DoCompute", "RunAsync"),
    "optimizer and metrics": ("Assign", "Sqrt", "RealDiv", "Square", "Mul", "AddV2", "Sub", "Read", "Sum", "Pow"),
}
_COLOURS = {
    "matrix products": "#2f6f4e",
    "embedding tables": "#d98e04",
    "input": "#4a6fa5",
    "optimizer and metrics": "#a23b72",
    "other operations": "#9a9a9a",
}
_LEFT_OUT = (
    "Process",
    "ParallelFor",
    "MemoryAllocation",
    "MemoryDeallocation",
    "ExecutorDoneCallback",
    "Start",
    "Done",
)


def group(kind: str) -> str:
    """Names what an operation belongs to."""
    for name, beginnings in _GROUPS.items():
        if kind.startswith(beginnings):
            return name
    return "other operations"


def window(threads: dict[str, list[tuple[str, float, float]]], step: int) -> tuple[float, float]:
    """Returns begin and end of a step, in milliseconds: it begins where it takes its batch.

    Raises:
      SystemExit: the trace has no such step.
    """
    begins = sorted(begin for events in threads.values() for kind, begin, _ in events if kind == _BEGIN)
    if not 1 <= step < len(begins):
        sys.exit(f"the trace has {max(0, len(begins) - 1)} whole steps")
    return begins[step - 1], begins[step]


def draw(threads: dict[str, list[tuple[str, float, float]]], step: int, out: Path) -> None:
    """Draws a step.

    Args:
      threads: from `trace_ops.threads`.
      step: which of the traced ones, from 1 on.
      out: the picture's file; its ending is its format.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    first, last = window(threads, step)
    lanes = []
    for events in threads.values():
        bars = defaultdict(list)
        for kind, begin, end in events:
            if end > first and begin < last and kind not in _LEFT_OUT:
                bars[group(kind)].append((max(begin, first) - first, min(end, last) - max(begin, first)))
        if bars:
            lanes.append((sum(width for group_bars in bars.values() for _, width in group_bars), bars))
    lanes.sort(key=lambda lane: lane[0])
    figure, axes = pyplot.subplots(figsize=(11, 1.6 + 0.45 * len(lanes)), constrained_layout=True)
    for number, (_, bars) in enumerate(lanes):
        for name, spans in bars.items():
            axes.broken_barh(spans, (number - 0.38, 0.76), color=_COLOURS[name], linewidth=0)
    axes.set_yticks(range(len(lanes)), [f"thread {len(lanes) - number}" for number in range(len(lanes))])
    axes.set_xlim(0, last - first)
    axes.set_xlabel("milliseconds since the step took its batch")
    axes.set_title(f"One training step, {last - first:.1f} ms: what each thread of TensorFlow's executor ran")
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=colour) for colour in _COLOURS.values()]
    figure.legend(handles, list(_COLOURS), loc="outside lower center", ncols=len(_COLOURS), frameon=False)
    figure.savefig(out, dpi=110)
    pyplot.close(figure)


def main() -> None:
    """Reads the trace and draws."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--step", type=int, default=2, help="which of the traced steps")
    parser.add_argument("--out", type=Path, default=Path("trace.png"))
    arguments = parser.parse_args()
    threads = trace_ops.threads(arguments.folder)
    if not threads:
        sys.exit(f"there is no trace below {arguments.folder}: set trainer.profile to [first step, last step]")
    draw(threads, arguments.step, arguments.out)
    print(f"drawn into {arguments.out}")


if __name__ == "__main__":
    main()
