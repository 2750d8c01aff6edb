"""`evergreen logs`: the runs that left logs, and what is in them."""

from __future__ import annotations

import datetime
import difflib
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import click

from evergreen.components.errors import ConfigError
from evergreen.pipeline import config as configuration
from evergreen.pipeline import options
from evergreen.pipeline.console import Console, clock, print_json, size

RUN_LOG = "run"
_POLL_SECONDS = 0.5


@click.command()
@click.argument("run", required=False)
@click.argument("stage", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on printing what is added, until Ctrl-C.")
@click.option("-n", "--tail", "tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines.")
@options.config
@options.json_output
def command(
    config_file: str | None,
    overrides: tuple[str, ...],
    run: str | None,
    stage: str | None,
    follow: bool,
    tail: int | None,
    as_json: bool,
) -> None:
    """Show the log of a RUN, or of one STAGE of it; without a RUN, list the runs that left logs.

    RUN is a run's id, the beginning of one, or `last`. The run's own log says which stage ran when; what TensorFlow,
    Beam and your functions printed is in the stages' logs.

    \b
    Example:
      evergreen logs last Trainer --tail 50
    """
    folder = configuration.load(config_file, overrides).logs_dir
    runs = list_runs(folder)
    if run is None:
        if as_json:
            print_json([{**entry, "folder": str(entry["folder"])} for entry in runs])
        elif not runs:
            Console().note(f"no run has left a log in {folder} yet")
        else:
            columns = ["run", "last change", "size", "stages", "last stage"]
            Console().table(columns, [_row(entry) for entry in runs], right=("size", "stages"))
        return
    _show(_log_file(_run_folder(runs, run), stage), follow, tail)


def _row(entry: dict[str, Any]) -> list[Any]:
    stages = entry["stages"]
    last = stages[-1] if stages else None
    return [entry["run"], clock(entry["changed"]), size(entry["bytes"]), len(stages), last]


def list_runs(folder: Path) -> list[dict[str, Any]]:
    """Lists the runs that left logs.

    Args:
      folder: the workspace's folder of logs.

    Returns:
      For each run, oldest first: `run`, `folder`, `changed` (ISO-8601), `bytes`, and `stages` in the order in which
      they were last written.
    """
    found = []
    for path in sorted(entry for entry in folder.glob("*") if (entry / f"{RUN_LOG}.log").is_file()):
        files = {log.stem: log.stat() for log in path.glob("*.log")}
        changed = max(status.st_mtime for status in files.values())
        stages = sorted((name for name in files if name != RUN_LOG), key=lambda name: (files[name].st_mtime_ns, name))
        found.append(
            {
                "run": path.name,
                "folder": path,
                "changed": datetime.datetime.fromtimestamp(changed, datetime.timezone.utc).isoformat(),
                "bytes": sum(status.st_size for status in files.values()),
                "stages": stages,
            }
        )
    return found


def _run_folder(runs: list[dict[str, Any]], wanted: str) -> Path:
    """Finds a run by its id, the beginning of its id, or `last`."""
    by_name = {entry["run"]: entry["folder"] for entry in runs}
    if wanted == "last" and runs:
        return runs[-1]["folder"]
    matching = [name for name in by_name if name.startswith(wanted)]
    if wanted in by_name:
        matching = [wanted]
    if len(matching) == 1:
        return by_name[matching[0]]
    newest = ", ".join(list(by_name)[-3:]) or "none"
    problem = f"{len(matching)} runs begin so: {', '.join(matching[:5])}" if matching else f"the newest are: {newest}"
    raise ConfigError(f"there is no log of run {wanted}", problem, "`evergreen logs` lists the runs.")


def _log_file(folder: Path, stage: str | None) -> Path:
    if stage is None:
        return folder / f"{RUN_LOG}.log"
    stages = {path.stem: path for path in sorted(folder.glob("*.log"))}
    for name, path in stages.items():
        if name.lower() == stage.lower():
            return path
    near = difflib.get_close_matches(stage, stages, n=1)
    guess = f"did you mean {near[0]}? " if near else ""
    raise ConfigError(
        f"run {folder.name} has no log of a stage {stage}",
        f"{guess}it has: {', '.join(stages)}",
        "A stage that was skipped or answered by the cache leaves none.",
    )


def _show(path: Path, follow: bool, tail: int | None) -> None:
    """Prints a file's lines, or the last of them, and goes on while lines are added if wanted."""
    with open(path, encoding="utf-8", errors="replace") as file:
        sys.stdout.writelines(file if tail is None else deque(file, maxlen=tail))
        while follow:
            sys.stdout.flush()
            added = file.read()
            sys.stdout.write(added)
            if not added:
                time.sleep(_POLL_SECONDS)
