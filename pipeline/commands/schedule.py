"""`evergreen schedule`: the scheduler in the foreground."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Sequence

import click
from filelock import Timeout

from evergreen.components import atomic
from evergreen.components.errors import LockHeld
from evergreen.pipeline import config as configuration
from evergreen.pipeline import console, locks, options
from evergreen.pipeline.config import Config
from evergreen.pipeline.schedule.state import Places, Running


@click.command()
@click.option("--cron", type=str, default=None, metavar="EXPRESSION", help="Five cron fields, instead of the YAML's.")
@click.option("--every", type=str, default=None, metavar="INTERVAL", help="An interval such as 6h, instead.")
@click.option("--resume", is_flag=True, help="Lift a pause; go on in the foreground unless a scheduler is at work.")
@click.option("--max-runs", type=click.IntRange(min=1), default=None, metavar="N", help="End after so many runs.")
@options.config
def command(
    config_file: str | None,
    overrides: tuple[str, ...],
    cron: str | None,
    every: str | None,
    resume: bool,
    max_runs: int | None,
) -> int:
    """Retrain by the clock, or when data arrives, until it is stopped.

    Runs in the foreground: systemd, a container or tmux keeps it. SIGTERM lets a run that goes on end, for as long as
    `schedule.grace` says; what was cut off is taken up by the next start.

    \b
    Example:
      evergreen schedule --cron "0 3 * * *"
    """
    if cron is not None and every is not None:
        raise click.UsageError("Give --cron or --every, one of the two.")
    overrides = (*overrides, *_instead(cron, every))
    config = configuration.load(config_file, overrides)
    configuration.check_files(config)
    places = Places(config.workspace_dir)
    atomic.make_directory(places.folder)
    try:
        held = locks.take(places.lock)
    except Timeout:
        if resume:
            atomic.write_file(places.resume, "")
            _say("the scheduler that is at work was told to go on")
            return 0
        raise LockHeld(
            "another scheduler is at work on this workspace",
            f"the lock {places.lock} is held by a live process",
            "stop it, or see what it does: evergreen status",
        ) from None
    with held:
        if resume:
            atomic.write_file(places.resume, "")
        return _run(config, overrides, max_runs)


def _run(config: Config, overrides: tuple[str, ...], max_runs: int | None) -> int:
    from evergreen.pipeline.schedule import times
    from evergreen.pipeline.schedule.loop import Loop
    from evergreen.pipeline.schedule.project import next_run, rules

    def command_of(current: Config, running: Running) -> Sequence[str]:
        return child_command(current, overrides, running)

    loop = Loop(lambda: configuration.load(config.file, overrides), command_of, _say, max_runs=max_runs)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.stop())
    due = next_run(loop.state, rules(config))
    what = f"; the next run is due at {times.text(due)}" if due is not None else ""
    _say(f"schedules {config.name} in {config.workspace_dir}{what}")
    if loop.endpoint is not None:
        _say(f"monitoring: http://127.0.0.1:{loop.endpoint.port}/metrics")
    status = loop.run()
    _say("ended")
    return status


def child_command(config: Config, overrides: Sequence[str], running: Running) -> list[str]:
    """Returns the command line of a run.

    Args:
      config: the configuration.
      overrides: `--set` of the scheduler's own command line.
      running: what is to be run.
    """
    from evergreen.pipeline.schedule import times

    job = running.job
    return [
        *(sys.executable, "-m", "evergreen.pipeline.schedule.child", str(os.getpid()), "run", "-c", str(config.file)),
        *(part for override in overrides for part in ("--set", override)),
        *("--scheduled-time", times.text(job.scheduled), "--trigger", job.trigger, "--due-span", running.span),
        *(("--decide-only",) if job.decide_only else ()),
        *("--result-file", running.result_file),
    ]


def _instead(cron: str | None, every: str | None) -> list[str]:
    """Returns the overrides that put a time of the command line in the place of the YAML's."""
    if cron is not None:
        return [f"schedule.cron={json.dumps(cron)}", "schedule.every=null"]
    if every is not None:
        return [f"schedule.every={json.dumps(every)}", "schedule.cron=null"]
    return []


def _say(line: str) -> None:
    # Whoever read our output may have gone; the schedule goes on.
    with contextlib.suppress(OSError):
        console.Console().note(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}")
        sys.stdout.flush()
