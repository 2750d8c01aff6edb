"""How a retraining grows: time and memory by stage with the rows of a span, and with the spans of a window.

Each point is two real `evergreen run` in fresh processes on flights made of the example's: a first run, which reads its
whole window, and a retraining when one more span has come. The training steps are fixed, so that the growth of the rest
shows; the gates are on and let every model through. Data is written before the clock starts. Lines are fitted by least
squares to the points of up to a million rows; a point beyond them is held against the line.

    .venv/bin/python benchmarks/scale.py [--keep FILE] [--plot docs/scale.png]
    .venv/bin/python benchmarks/scale.py --keep FILE --rows 10000000 --windows ""

`--keep` adds the points to a file of earlier ones, and prints and draws them all.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

import scale_data
import scale_watch
import vs_tfx

FIRST, RETRAINING = "first run", "one more span"
WINDOW_ROWS = 100_000
FITTED_ROWS = 1_000_000
TRAINING = "train and export"
_GIB = 1 << 30
_MILLION = 1e6

Point = dict[str, Any]


def measure(folder: Path, rows: int, window: int, steps: int) -> Iterator[Point]:
    """Measures a first run, then a retraining.

    Args:
      folder: an empty folder.
      rows: of each span.
      window: spans of a window.
      steps: of each training.

    Yields:
      Two points: `run`, `rows`, `window`, `seconds`, and by row of `vs_tfx.ROWS` `stages` (seconds), `processor`
      (seconds), `peak` (bytes of resident memory, all processes together).
    """
    for span in range(1, window + 1):
        scale_data.write(folder / "data", span, rows)
    for run in (FIRST, RETRAINING):
        if run == RETRAINING:
            scale_data.write(folder / "data", window + 1, rows)
        command, environment = _command(folder, window, steps), {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        seen = scale_watch.watch(command, folder / "workspace" / "logs", environment)
        if seen.result["result"] != "published":
            raise SystemExit(f"{rows:,} rows, window {window}, {run}: {json.dumps(seen.result)}")
        stages = _by_row(seen.result["seconds"])
        stages[vs_tfx.START] = seen.seconds - sum(stages.values())
        point = {
            "run": run,
            "rows": rows,
            "window": window,
            "seconds": seen.seconds,
            "stages": stages,
            "processor": _by_row(seen.processor),
            "peak": _by_row(seen.peak, max),
        }
        print(f"{rows:>10,} rows, window {window:>2}, {run}: {seen.seconds:.1f} s", file=sys.stderr)
        yield point


def _command(folder: Path, window: int, steps: int) -> list[str]:
    settings = {
        "workspace": folder / "workspace",
        "data.path": folder / "data",
        "data.window": window,
        "data.min_window": 1,
        "data.min_rows": 1,
        "publish.base_path": folder / "serving",
        "trainer.steps": steps,
        "trainer.hyperparameters.decay_steps": steps,
        "evaluate.min": "{}",
        "evaluate.max_regression": "{auc: 1}",
        "quantize.max_drop": "{auc: 1}",
    }
    command = [str(Path(sys.executable).with_name("evergreen")), "run", "--json"]
    command += ["-c", str(vs_tfx.EXAMPLE / "evergreen.yaml")]
    return command + [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]


def _by_row(nodes: dict[str, float], join: Any = lambda one, other: one + other) -> dict[str, float]:
    """Sorts figures by node (`SpanExampleGen.3`) into the table's rows; whatever is no stage's is the runner's."""
    row_of = {name: row for row, names in vs_tfx.ROWS.items() for name in names}
    found: dict[str, float] = Counter()
    for node, value in nodes.items():
        row = row_of.get(node.partition(".")[0], vs_tfx.START)
        found[row] = join(found[row], value)
    return dict(found)


def fit(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Fits a line by least squares.

    Args:
      x: at least two different numbers.
      y: as many.

    Returns:
      What it is at 0, and its slope.
    """
    slope, fixed = np.polyfit(np.asarray(x, float), np.asarray(y, float), 1)
    return float(fixed), float(slope)


def sweep(points: Sequence[Point], run: str, along: str) -> list[Point]:
    """Returns the points of a run along one axis, smallest first: all rows at window 1, or all windows at 10^5 rows."""
    other, fixed = ("window", 1) if along == "rows" else ("rows", WINDOW_ROWS)
    return sorted((p for p in points if p["run"] == run and p[other] == fixed), key=lambda point: point[along])


def table(points: Sequence[Point], run: str, along: str, clock: str = "stages") -> list[str]:
    """Lays out a sweep: seconds of each stage at each point, the fitted line, and the memory's peak.

    Args:
      points: all that were measured.
      run: `FIRST` or `RETRAINING`.
      along: `rows` (slopes per million rows) or `window` (slopes per span).
      clock: `stages` (by the wall clock) or `processor` (of all processes, which other work on the machine stretches
        less).
    """
    found = sweep(points, run, along)
    fitted = [p for p in found if p["rows"] <= FITTED_ROWS]
    if len(fitted) < 2:
        return []
    unit, per = (_MILLION, "million rows") if along == "rows" else (1, "span")
    head = "".join(f"{_short(point[along]):>9}" for point in found)
    what = "rows of a span, window 1" if along == "rows" else f"spans of {WINDOW_ROWS:,} rows in the window"
    words = "seconds" if clock == "stages" else "processor seconds"
    lines = [f"{run}: {words} by {what}", f"  {'':<22}{head}{'fixed':>9}{'slope':>9} s per {per}"]

    def line(name: str, values: list[float]) -> str:
        fixed, slope = fit([p[along] / unit for p in fitted], values[: len(fitted)])
        return f"  {name:<22}" + "".join(f"{value:>9.1f}" for value in values) + f"{fixed:>9.1f}{slope:>9.2f}"

    for row in vs_tfx.ROWS:
        lines.append(line(row, [p[clock].get(row, 0.0) for p in found]))
    lines.append(line("in all", [sum(p[clock].values()) for p in found]))
    lines.append(line("without the training", [sum(p[clock].values()) - p[clock].get(TRAINING, 0.0) for p in found]))
    lines.append("  resident memory, GiB, all processes together, at most")
    for row in vs_tfx.ROWS:
        lines.append(f"  {row:<22}" + "".join(f"{p['peak'].get(row, 0) / _GIB:>9.2f}" for p in found))
    lines.append(f"  {'at the most':<22}" + "".join(f"{max(p['peak'].values()) / _GIB:>9.2f}" for p in found))
    return [*lines, ""]


def _short(count: int) -> str:
    return str(count) if count < 10_000 else f"{count / _MILLION:g}M"


def plot(points: Sequence[Point], out: Path, clock: str = "stages") -> None:
    """Draws what the tables say: seconds with the fitted lines, and memory, along both axes.

    Args:
      points: all that were measured.
      out: the picture's file; its ending is its format.
      clock: as for `table`.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(10, 6.4))
    words = "seconds" if clock == "stages" else "processor seconds"
    colours = {FIRST: "#4a6fa5", RETRAINING: "#2f6f4e"}
    for row, along in zip(axes, ("rows", "window"), strict=True):
        for run, colour in colours.items():
            found = sweep(points, run, along)
            if not found:
                continue
            unit = _MILLION if along == "rows" else 1
            x = np.array([p[along] for p in found], float) / unit
            seconds, peaks = [sum(p[clock].values()) for p in found], [max(p["peak"].values()) / _GIB for p in found]
            row[0].plot(x, seconds, "o", color=colour, label=run)
            row[1].plot(x, peaks, "o-", color=colour, label=run)
            fitted = [p for p in found if p["rows"] <= FITTED_ROWS]
            if len(fitted) > 1:
                fixed, slope = fit([p[along] / unit for p in fitted], seconds[: len(fitted)])
                row[0].plot(x, fixed + slope * x, "-", color=colour, linewidth=1)
            if along == "window" and run == RETRAINING:
                rest = [total - p[clock].get(TRAINING, 0.0) for total, p in zip(seconds, found, strict=True)]
                row[0].plot(x, rest, "o:", color=colour, markersize=3, linewidth=1, label="without the training")
        what = "million rows of a span, window 1" if along == "rows" else f"spans of {WINDOW_ROWS:,} rows in the window"
        for axis, measure_of in zip(row, (words, "resident memory, GiB"), strict=True):
            axis.set(xlabel=what, ylabel=measure_of)
            axis.set_ylim(0, 1.1 * axis.dataLim.y1)
            axis.grid(alpha=0.3)
            axis.spines[["top", "right"]].set_visible(False)
    axes[1, 0].legend(frameon=False, loc="upper left")
    figure.tight_layout(w_pad=2)
    figure.savefig(out, dpi=110)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="How a retraining grows with rows and with the window.")
    parser.add_argument("--rows", type=_numbers, default=[10_000, 30_000, 100_000, 300_000, 1_000_000])
    parser.add_argument("--windows", type=_numbers, default=[1, 3, 6, 12], help=f"of spans of {WINDOW_ROWS:,} rows")
    parser.add_argument("--steps", type=int, default=200, help="training steps of 512 rows")
    parser.add_argument("--keep", type=Path, help="a JSON file: the points are added to what it holds")
    parser.add_argument("--processor", action="store_true", help="print processor seconds instead of the wall clock's")
    parser.add_argument("--plot", type=Path, help="draw the points into this file")
    parser.add_argument("--work", type=Path, help="where spans and workspaces go, temporarily")
    options = parser.parse_args()
    wanted = dict.fromkeys([(rows, 1) for rows in options.rows] + [(WINDOW_ROWS, window) for window in options.windows])
    points: list[Point] = json.loads(options.keep.read_text()) if options.keep and options.keep.exists() else []
    for rows, window in wanted:
        with tempfile.TemporaryDirectory(prefix="scale-", dir=options.work) as folder:
            for point in measure(Path(folder), rows, window, options.steps):
                key = ("run", "rows", "window")
                points = [p for p in points if any(p[name] != point[name] for name in key)] + [point]
                if options.keep:
                    options.keep.write_text(json.dumps(points, indent=1) + "\n")
    for along in ("rows", "window"):
        for run in (FIRST, RETRAINING):
            print("\n".join(table(points, run, along, "processor" if options.processor else "stages")))
    if options.plot:
        plot(points, options.plot, "processor" if options.processor else "stages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
