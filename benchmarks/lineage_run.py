"""A cached run of Evergreen behind as many synthetic runs as one likes; for `lineage.py` beside it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from lineage_store import PIPELINE

_ROOT = Path(__file__).resolve().parents[1]
_FLIGHTS = _ROOT / "examples" / "flights"
_EVERY = 20  # of the rows


def measure(folder: Path, database: Path, runs: int) -> dict[str, str]:
    """Trains once behind the synthetic runs, then measures the same run again, which the cache answers.

    Args:
      folder: where the project goes, or is since an earlier call.
      database: the synthetic store; is copied.
      runs: how many runs it holds. The project's two spans get the next numbers.

    Returns:
      Seconds of the cached run's nodes together, of its slowest one, and of the command.

    Raises:
      SystemExit: a run failed, or was not answered by the cache.
    """
    file = folder / "evergreen.yaml"
    run = ("run", "--span", str(runs + 1), "--json")
    if not file.exists():
        _project(folder, database, runs)
        # The first publishes; the second meets a champion, so that what follows it is done again; later ones meet the
        # same champion.
        _evergreen(file, *run)
        _evergreen(file, *run)
    began = time.monotonic()
    answer = _evergreen(file, *run)
    wall = time.monotonic() - began
    (newest,) = _evergreen(file, "runs", "--last", "1", "--stages", "--json")
    states = {stage["node"]: stage["state"] for stage in newest["stages"]}
    again = [node for node, state in states.items() if state != "cached" and not _is_light(node)]
    if answer["result"] != "unchanged" or again:
        raise SystemExit(f"the cache did not answer: {answer['result']}, {again}")
    slowest = max(answer["seconds"], key=answer["seconds"].get)
    return {
        "cached run: nodes": f"{sum(answer['seconds'].values()):.2f} s",
        "cached run: slowest": f"{slowest} {answer['seconds'][slowest]:.2f} s",
        "cached run: command": f"{wall:.1f} s",
    }


def _is_light(node: str) -> bool:
    """Whether a node has nothing to cache: resolvers ask anew each time."""
    return node.partition(".")[0] in ("PreviousStatistics", "Window", "Champion", "AnalyzerCache", "Schema")


def _project(folder: Path, database: Path, runs: int) -> None:
    folder.mkdir(parents=True)
    for name in ("features.py", "model.py"):
        shutil.copy(_FLIGHTS / name, folder / name)
    schema = (_ROOT / "schemas" / "flights" / "schema.pbtxt").read_text(encoding="utf-8")
    # The thresholds of drift are for whole months.
    (folder / "schema.pbtxt").write_text(re.sub(r"threshold: [0-9.]+", "threshold: 0.9", schema), encoding="utf-8")
    sys.path.insert(0, str(_FLIGHTS))
    import data

    data.write_spans(folder / "months", [1, 2])
    for month in (1, 2):
        path = folder / "months" / str(month) / "flights.parquet"
        rows = pq.read_table(path)
        pq.write_table(rows.take(list(range(0, rows.num_rows, _EVERY))), path)
        (folder / "data").mkdir(exist_ok=True)
        os.replace(folder / "months" / str(month), folder / "data" / str(runs + month - 1))
    settings: dict[str, Any] = yaml.safe_load((_FLIGHTS / "evergreen.yaml").read_text(encoding="utf-8"))
    settings.update(name=PIPELINE, workspace=".evergreen", schema="schema.pbtxt", publish={"base_path": "serving"})
    settings["data"].update(path="data", min_rows=100, window=2, min_window=1)
    settings["trainer"].update(steps=20, warm_start=None)
    settings["evaluate"].update(min={"auc": 0.1}, max_regression={"auc": 0.9})
    settings["quantize"].update(max_drop={"auc": 0.5})
    (folder / ".evergreen").mkdir()
    shutil.copy(database, folder / ".evergreen" / "metadata.db")
    (folder / "evergreen.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")


def _evergreen(file: Path, *arguments: str) -> Any:
    code = "import sys; from evergreen.pipeline.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "-c", str(file), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"evergreen {' '.join(arguments)}: exit status {done.returncode}")
    return json.loads(done.stdout)
