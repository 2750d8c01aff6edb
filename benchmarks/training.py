"""Training: our Trainer against TFX's own and against rows in memory, and two devices of the CPU against one.

The same model (the flights example's), rows (three months of flights), batch and steps on each side, each run in a
process of its own, so that none warms another; sides take turns, and the median of the repeats counts. The stock `fit`
reads rows that Transform materialized; ours reads raw rows and transforms them before, which the column `rows` shows.
Both measure the validation rows once. `in memory` has no input path, no Trainer and no validation: it is the floor.

    .venv/bin/python benchmarks/training.py [--only trainer|mirrored] [--steps 200] [--repeats 1] [--profile] [--json]

`--profile` adds where the CPU's time goes in a step of each number of devices, by kind of operation. `--work DIR` keeps
the rows for the next run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SIDES = {
    "stock": ["stock"],
    "evergreen": ["ours"],
    "memory": ["memory"],
    "single": ["ours"],
    "mirrored": ["ours", "--strategy", "mirrored", "--devices", "2"],
}
GROUPS = {"trainer": ("stock", "evergreen", "memory"), "mirrored": ("single", "mirrored")}
TITLES = {"stock": "stock TFX", "evergreen": "Evergreen", "memory": "in memory"}
TRACED = 20  # steps of a trace
_LIMIT_S = 600
_ROWS = 16  # of the table of operations


def run(side: str, work: Path, options: argparse.Namespace, *more: str) -> dict[str, Any]:
    """Runs a side in a process of its own.

    Args:
      side: a key of SIDES, or `prepare`.
      work: where the rows lie.
      options: the command line's.
      more: further arguments.

    Returns:
      What it printed: `step_ms` (the median), `first_step_s`, `input_s` (before the fit), `fit_s` and `total_s`.
    """
    command = [sys.executable, str(HERE / "training_sides.py"), *SIDES.get(side, [side]), "--work", str(work), *more]
    with tempfile.TemporaryDirectory() as out:
        command += ["--steps", str(options.steps), "--batch", str(options.batch)]
        if "--out" not in more:
            command += ["--out", out]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S)
    if answer.returncode:
        raise SystemExit(f"{' '.join(command)} exited {answer.returncode}:\n{answer.stderr[-4000:]}")
    return json.loads(answer.stdout.splitlines()[-1]) if side in SIDES else {}


def measure(sides: tuple[str, ...], work: Path, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Runs sides in turns.

    Returns:
      By side the median of each number, and `step_ms_of_runs`.
    """
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for _ in range(options.repeats):
        for side in sides:
            runs[side].append(run(side, work, options))
    found = {}
    for side, results in runs.items():
        found[side] = {
            key: value if isinstance(value, str) else statistics.median(result[key] for result in results)
            for key, value in results[0].items()
        }
        found[side]["step_ms_of_runs"] = [result["step_ms"] for result in results]
    return found


def ratios(result: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Returns the ratios of what was measured."""
    found = {}
    if "stock" in result:
        stock, ours, memory = (result[side] for side in GROUPS["trainer"])
        found["fit_stock_to_evergreen"] = stock["fit_s"] / ours["fit_s"]
        found["fit_stock_to_evergreen_with_rows"] = stock["fit_s"] / (ours["input_s"] + ours["fit_s"])
        found["step_stock_to_evergreen"] = stock["step_ms"] / ours["step_ms"]
        found["step_evergreen_to_memory"] = ours["step_ms"] / memory["step_ms"]
    if "mirrored" in result:
        found["step_mirrored_to_single"] = result["mirrored"]["step_ms"] / result["single"]["step_ms"]
    return found


def profile(work: Path, options: argparse.Namespace) -> dict[str, dict[str, dict[str, float]]]:
    """Traces steps at the end of a training under one device and under two.

    Returns:
      By side what `trace_ops.read` gives.
    """
    import trace_ops

    first = max(1, options.steps - 2 * TRACED + 1)
    found = {}
    for side in GROUPS["mirrored"]:
        with tempfile.TemporaryDirectory() as out:
            run(side, work, options, "--out", out, "--profile", json.dumps([first, first + TRACED - 1]))
            found[side] = trace_ops.read(Path(out), TRACED)
    return found


def operations(traced: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """Lays the traces of both sides out, what two devices add first."""
    one, two = (traced[side] for side in GROUPS["mirrored"])
    nothing = {"ms": 0.0, "count": 0.0}
    rows = [(name, one.get(name, nothing), two.get(name, nothing)) for name in {**one, **two}]
    rows.sort(key=lambda row: row[1]["ms"] - row[2]["ms"])
    names = ("all", f"the {len(rows) - _ROWS} others")
    for name, chosen, place in zip(names, (rows, rows[_ROWS:]), (0, _ROWS + 1), strict=True):
        sums = [{key: sum(row[side][key] for row in chosen) for key in nothing} for side in (1, 2)]
        rows.insert(place, (name, *sums))
    lines = [f"{'CPU of a step':<26}{'single':>18}{'mirrored':>20}{'more':>12}"]
    for name, left, right in rows[: _ROWS + 2]:
        lines.append(
            f"{name:<26}{left['ms']:9.2f} ms {left['count']:5.0f} x {right['ms']:9.2f} ms {right['count']:5.0f} x "
            f"{right['ms'] - left['ms']:8.2f} ms"
        )
    return lines


def table(result: dict[str, dict[str, Any]], steps: int) -> list[str]:
    """Lays the sides out, with the ratios under them."""
    lines = [f"{'':<12}{'a step':>12}{'first step':>12}{'rows':>8}{f'fit, {steps} steps':>18}{'in all':>10}"]
    for side, values in result.items():
        times = f"{values['first_step_s']:10.1f} s{values['input_s']:6.1f} s{values['fit_s']:16.1f} s"
        lines.append(f"{TITLES.get(side, side):<12}{values['step_ms']:9.1f} ms{times}{values['total_s']:8.1f} s")
    found = ratios(result)
    if "stock" in result:
        lines.append(
            f"The stock fit takes {found['fit_stock_to_evergreen']:.1f} times ours "
            f"({found['fit_stock_to_evergreen_with_rows']:.1f} times ours with the transforming of the rows). "
            f"A step of it takes {found['step_stock_to_evergreen']:.1f} times one of ours, and ours "
            f"{found['step_evergreen_to_memory']:.2f} times one on rows in memory."
        )
    if "mirrored" in result:
        lines.append(
            f"A step of two mirrored devices takes {found['step_mirrored_to_single']:.2f} times one of single."
        )
    return lines


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=sorted(GROUPS), help="measure only this")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--profile", action="store_true", help="show where the time of one device and of two goes")
    parser.add_argument("--work", type=Path, help="where the rows are kept")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="training-") as folder:
        work = options.work or Path(folder)
        run("prepare", work, options)
        result = {name: measure(GROUPS[name], work, options) for name in GROUPS if options.only in (None, name)}
        traced = profile(work, options) if options.profile else None
    if options.json:
        flat = {side: values for group in result.values() for side, values in group.items()}
        settings = {"steps": options.steps, "batch": options.batch, "repeats": options.repeats}
        print(json.dumps({**settings, **flat, "ratios": ratios(flat), "operations": traced}, indent=1))
        return 0
    for group in result.values():
        print("\n".join(table(group, options.steps)), end="\n\n")
    if traced is not None:
        print("\n".join(operations(traced)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
