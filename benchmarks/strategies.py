"""Every strategy and precision on one model: what a step takes, what it is made of, what it needs, what it learns.

The flights model trains for as many steps and on the same rows under each, in processes of their own; the programs'
table is that of docs/training.md. On one machine without GPUs all devices and processes share the cores: the table says
what distribution costs, not what it gains. `evergreen scaling` says what to expect of devices of their own.

    .venv/bin/python benchmarks/strategies.py [--steps 200] [--only single,mirrored] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = Path(__file__).resolve().parent
sys.path += [str(HERE), str(HERE.parent / "examples" / "flights")]

import training_data  # noqa: E402

from evergreen.components.trainer import child, cluster  # noqa: E402
from evergreen.components.trainer.settings import MULTI_WORKER, PARAMETER_SERVER  # noqa: E402

BATCH = 512
LOCAL = {"cluster": {"workers": 2, "ps": 1}}
CASES: dict[str, dict[str, Any]] = {
    "single": {},
    "single, mixed_bfloat16": {"precision": "mixed_bfloat16"},
    "single, mixed_float16": {"precision": "mixed_float16"},
    "mirrored, 2 devices": {"strategy": "mirrored", "devices": 2},
    "central_storage, 2 devices": {"strategy": "central_storage", "devices": 2},
    "model_parallel, mesh 1 x 2": {"strategy": "model_parallel", "mesh": [1, 2]},
    "multi_worker_mirrored, 2 workers": {"strategy": "multi_worker_mirrored", **LOCAL},
    "parameter_server, sync, 2 workers": {"strategy": "parameter_server", **LOCAL},
    "parameter_server, sync, 3 workers, 1 backup": {
        "strategy": "parameter_server",
        "cluster": {"workers": 3, "ps": 1},
        "backup_workers": 1,
    },
    "parameter_server, async, 2 workers": {"strategy": "parameter_server", "update": "async", **LOCAL},
}


def measure(work: Path, settings: dict[str, Any], steps: int) -> dict[str, Any]:
    """Trains in a process of its own; returns the report."""
    with tempfile.TemporaryDirectory() as name:
        asked = training_data.request(work, Path(name), {"steps": steps, "global_batch_size": BATCH, **settings})
        local = asked.settings.strategy in (MULTI_WORKER, PARAMETER_SERVER)
        return cluster.with_restarts(lambda: child.train(asked), 0) if local else child.train(asked)


def row(name: str, report: dict[str, Any]) -> dict[str, Any]:
    """Returns what the table says of a case."""
    return {
        "case": name,
        "step_ms": report["step_ms"],
        "step_parts_ms": report["step_parts_ms"],
        "input_share": report["input_share"],
        "examples_per_second": report["examples_per_second"],
        "peak_bytes": report["peak_bytes"],
        "val_auc": report["final"].get("val_auc"),
    }


def cell(value: float | None, digits: int = 1) -> str:
    """Writes a number, or that there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def main() -> None:
    """Trains under each, and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--only", help="the first words of the cases to measure, with commas between")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    wanted = tuple(arguments.only.split(",")) if arguments.only else ("",)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "rows"
        training_data.write(work, [1])
        for name, settings in CASES.items():
            if name.startswith(wanted):
                print(f"{name} ...", file=sys.stderr, flush=True)
                rows.append(row(name, measure(work, settings, arguments.steps)))
    if arguments.json:
        json.dump({"steps": arguments.steps, "batch": BATCH, "rows": rows}, sys.stdout, indent=1)
        print()
        return
    print(
        "| trained by | step p50 (p90), ms | input + compute + communication, ms | rows a second | peak memory | AUC |"
    )
    print("|---|---|---|---|---|---|")
    for one in rows:
        parts = " + ".join(cell(one["step_parts_ms"][part]) for part in ("input", "compute", "communication"))
        peak = max(one["peak_bytes"].values()) / 1e6
        print(
            f"| {one['case']} | {one['step_ms']['p50']:.1f} ({one['step_ms']['p90']:.1f}) | {parts} | "
            f"{one['examples_per_second']:,.0f} | {peak:,.0f} MB | {cell(one['val_auc'], 4)} |"
        )


if __name__ == "__main__":
    main()
