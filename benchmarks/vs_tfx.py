"""Evergreen against the stock TFX pipeline: the same flights, model, steps and machine, each side a fresh process.

Twice each: cold, on three months; and the retraining when one more month has come, where the stock pipeline runs on
that window as a whole (it knows no spans) and Evergreen on what is new. Both sides' gates are on. Prints the stages
side by side and two ratios: of the whole runs, and of the runs without what the stock pipeline has no stage for. All
is run five times, the sides in turn; a ratio is that of two runs that followed each other, and what is printed are
medians. The figures hold for the machine and the hour of this run.

    .venv/bin/python benchmarks/vs_tfx.py [--repeats 5] [--steps 200] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parent / "examples" / "flights"
sys.path.append(str(EXAMPLE))
START = "start and imports"
COLD, RETRAINING = "Cold: three months", "One more month"
# What does the same on both sides stands in one row.
ROWS = {
    START: (START,),
    "read the data": ("CsvExampleGen", "SpanExampleGen"),
    "statistics": ("StatisticsGen",),
    "schema": ("SchemaGen", "Schema"),
    "validate the data": ("ExampleValidator", "SpanValidator", "PreviousStatistics"),
    "transform": ("Transform", "AnalyzerCache"),
    "champion on new data": ("ChampionExam",),
    "train and export": ("Trainer",),
    "evaluate": ("Evaluator", "Resolver", "Champion", "Window"),
    "quantize": ("Quantizer",),
    "a server answers": ("ServingValidator",),
    "publish": ("Pusher",),
}


# The stock pipeline makes no TFLite variants, and its InfraValidator needs Docker.
OURS_ALONE = ("quantize", "a server answers")


def timed(command: list[str]) -> tuple[float, dict[str, Any]]:
    """Runs a command that prints JSON.

    Args:
        command: the command.

    Returns:
        Wall-clock seconds of the whole process, and what it printed.
    """
    began = time.perf_counter()
    answer = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if answer.returncode:
        raise SystemExit(
            f"{' '.join(command)} exited {answer.returncode}:\n{answer.stdout[-2000:]}\n{answer.stderr[-4000:]}"
        )
    return seconds, json.loads(answer.stdout[answer.stdout.index("{") :])


def stock(work: Path, months: str, steps: int, hyperparameters: str) -> dict[str, Any]:
    """Runs the stock pipeline on a window in a fresh process; the CSV files are written before the clock starts."""
    command = [sys.executable, str(HERE / "stock_pipeline.py"), "--work", str(work), "--months", months]
    subprocess.run([*command, "--prepare"], check=True)
    command += ["--steps", str(steps), "--hyperparameters", hyperparameters, "--json"]
    seconds, result = timed(command)
    stages = Counter(result["stages"])
    return {"seconds": seconds, "stages": rows(stages, seconds), "auc": result["auc"], "published": result["pushed"]}


def evergreen(work: Path, steps: int) -> dict[str, Any]:
    """Runs `evergreen run` in a fresh process."""
    command = [str(Path(sys.executable).with_name("evergreen")), "run", "--json", "-c", str(EXAMPLE / "evergreen.yaml")]
    for setting in (
        f"workspace={work}/workspace",
        f"data.path={work}/data",
        f"publish.base_path={work}/serving",
        f"trainer.steps={steps}",
    ):
        command += ["--set", setting]
    seconds, result = timed(command)
    stages: Counter[str] = Counter()
    for node, taken in result["seconds"].items():
        stages[node.partition(".")[0]] += taken
    return {
        "seconds": seconds,
        "stages": rows(stages, seconds),
        "auc": result["metrics"]["exam"]["auc"],
        "published": result["result"] == "published",
    }


def rows(stages: Counter[str], seconds: float) -> dict[str, float]:
    """Sorts stage times into the rows of the table; what no stage took is start, imports and the runner's own work."""
    found = {row: sum(stages[name] for name in names) for row, names in ROWS.items()}
    found[START] = seconds - sum(found.values())
    return found


def ratios(one: dict[str, Any], other: dict[str, Any]) -> tuple[float, float]:
    """Returns the stock pipeline's time in Evergreen's: of the whole runs, and of the stages that both have."""
    alone = sum(other["stages"][row] for row in OURS_ALONE)
    return one["seconds"] / other["seconds"], one["seconds"] / (other["seconds"] - alone)


def middle(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the medians of one side's runs, row by row."""
    return {
        "seconds": statistics.median(run["seconds"] for run in runs),
        "stages": {row: statistics.median(run["stages"][row] for run in runs) for row in ROWS},
        "auc": statistics.median(run["auc"] for run in runs),
        "published": all(run["published"] for run in runs),
    }


def compared(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    """Returns both sides' medians, and the ratios of each pair of runs with theirs."""
    found = [ratios(one, other) for one, other in pairs]
    return {
        "stock": middle([one for one, _ in pairs]),
        "evergreen": middle([other for _, other in pairs]),
        "ratios": [whole for whole, _ in found],
        "ratios_of_shared_stages": [shared for _, shared in found],
        "ratio": statistics.median(whole for whole, _ in found),
        "ratio_of_shared_stages": statistics.median(shared for _, shared in found),
    }


def table(title: str, result: dict[str, Any]) -> list[str]:
    """Lays both sides out."""
    one, other = result["stock"], result["evergreen"]
    lines = [title, f"  {'':<22}{'stock TFX':>12}{'Evergreen':>12}"]
    for row in ROWS:
        left, right = one["stages"][row], other["stages"][row]
        lines.append(f"  {row:<22}{left:>10.1f} s{right:>10.1f} s")
    lines.append(f"  {'in all':<22}{one['seconds']:>10.1f} s{other['seconds']:>10.1f} s")
    lines.append(f"  {'published':<22}{one['published']!s:>12}{other['published']!s:>12}")
    for words, key in (("times as fast", "ratio"), ("times in the stages that both have", "ratio_of_shared_stages")):
        every = key.replace("ratio", "ratios", 1)
        each = ", ".join(f"{ratio:.2f}" for ratio in sorted(result[every]))
        lines.append(f"  Evergreen is {result[key]:.2f} {words} ({each})")
    return [*lines, ""]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Evergreen against the stock TFX pipeline.")
    parser.add_argument("--repeats", type=int, default=5, help="how often all is run")
    parser.add_argument("--steps", type=int, default=200, help="training steps of 512 rows, on both sides")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    import data
    import yaml

    settings = yaml.safe_load((EXAMPLE / "evergreen.yaml").read_text(encoding="utf-8"))
    hyperparameters = json.dumps(settings["trainer"]["hyperparameters"])
    cold, retraining = [], []
    for number in range(1, options.repeats + 1):
        with tempfile.TemporaryDirectory(prefix="vs-tfx-") as folder:
            work = Path(folder)
            data.write_spans(work / "ours" / "data", [1, 2, 3])
            one = stock(work / "stock", "1-3", options.steps, hyperparameters)
            cold.append((one, evergreen(work / "ours", options.steps)))
            data.write_spans(work / "ours" / "data", [4])
            one = stock(work / "stock", "2-4", options.steps, hyperparameters)
            retraining.append((one, evergreen(work / "ours", options.steps)))
        for title, pairs in ((COLD, cold), (RETRAINING, retraining)):
            left, right = (side["seconds"] for side in pairs[-1])
            print(f"{number} of {options.repeats}, {title}: {left:.1f} s, {right:.1f} s", file=sys.stderr, flush=True)
    result = {"cold": compared(cold), "retraining": compared(retraining)}
    if options.json:
        print(json.dumps(result, indent=1))
        return 0
    for title, key in ((COLD, "cold"), (RETRAINING, "retraining")):
        print("\n".join(table(title, result[key])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
