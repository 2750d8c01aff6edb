"""`evergreen status`: what is live and how old it is, what runs now, what comes next."""

from __future__ import annotations

from typing import Any

import click

from evergreen.components.errors import EvergreenError
from evergreen.components.pusher import catalog
from evergreen.components.pusher.versions import read_hold
from evergreen.pipeline import config as configuration
from evergreen.pipeline import locks, options, progress_file
from evergreen.pipeline.commands import plan as plan_command
from evergreen.pipeline.commands.versions import held_line
from evergreen.pipeline.config import Config
from evergreen.pipeline.console import Console, age, clock, moment, print_json
from evergreen.pipeline.plan import plan_run
from evergreen.pipeline.schedule import report
from evergreen.pipeline.span_pattern import Pattern
from evergreen.pipeline.store import Result, Run, State, Store

_RUNS = 100  # more than the schedule remembers
_BESIDE = 8  # rollbacks may be newer than a run that goes on


@click.command()
@options.config
@options.json_output
def command(config_file: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show what is live and how old it is, what runs now, and what the next run would do."""
    config = configuration.load(config_file, overrides)
    status = read(config)
    if as_json:
        print_json(status)
        return
    console = Console()
    live, hold = status["live"], read_hold(config.publish.base_path)
    if live is None:
        console.note(f"live     nothing is published in {config.publish.base_path} yet")
    else:
        published = moment(live["published"])
        when = f", published {age(published)} ({clock(live['published'])})" if published else ""
        metrics = ", ".join(f"{name} {value:.4f}" for name, value in live["metrics"].items())
        when += f" to restore version {live['restores']}" if live["restores"] else ""
        console.note(f"live     version {live['version']}{when}, rests on span {live['label']}; on its exam: {metrics}")
    if hold is not None:
        console.note(f"held     {held_line(hold)}")
    running = status["running"]
    console.note(
        f"now      run {running['id']} on span {running['label']}: {_how_far(running)}"
        if running
        else "now      nothing runs"
    )
    last = status["last"]
    if last is not None:
        reason = f": {last['reason']}" if last["reason"] else ""
        console.note(f"last     run {last['id']} on span {last['label']}, {last['result']}{reason}")
    console.note(f"next     {status['next']}")
    schedule = status["schedule"]
    if schedule is None:
        return
    for line in report.lines(schedule):
        console.note(f"schedule {line}")
    if schedule["last"]:
        console.table(["scheduled", "trigger", "span", "result", "gates", "version", "why"], report.rows(schedule))


def read(config: Config) -> dict[str, Any]:
    """Gathers the status as plain values.

    Args:
      config: the project's configuration.

    Returns:
      `live`, `held`, `running`, `last` (each None where there is none), `next`, a sentence, and `schedule`, as
      `report.read` gives it.
    """
    store = Store(config.connection, config.name)
    manifest = catalog.live_manifest(config.publish.base_path)
    hold = read_hold(config.publish.base_path)
    runs = store.newest_runs(_RUNS)[::-1]
    running = next((run for run in reversed(runs) if run.result is Result.RUNNING), None)
    if running is not None and not locks.is_held(config.lock_path):
        running = None
    ended = [run for run in runs if run.result is not Result.RUNNING]
    try:
        following = plan_command.headline(config, plan_run(config, store))
    except EvergreenError as error:
        following = f"{error.headline}: {error.reason}"
    return {
        "live": None
        if manifest is None
        else {
            "version": manifest.version,
            "published": manifest.published,
            "span": manifest.span,
            "label": Pattern(config.data.pattern).label(manifest.span),
            "run": manifest.run,
            "metrics": manifest.metrics,
            "restores": manifest.restores,
        },
        "held": None if hold is None else {"reason": hold.reason, "since": hold.since},
        "running": None if running is None else _running(config, store, running),
        "last": _brief(ended[-1]) if ended else None,
        "next": following,
        "schedule": report.read(config, runs),
    }


def _brief(run: Run) -> dict[str, Any]:
    return {
        "id": run.id,
        "label": run.label,
        "result": run.result.value,
        "reason": run.reason,
        "started": run.started,
        "ended": run.ended or None,
    }


def _running(config: Config, store: Store, run: Run) -> dict[str, Any]:
    stage = _stage(store, run)
    return {**_brief(run), "stage": stage, "progress": progress_file.read(config.workspace_dir, run.id, stage)}


def _how_far(running: dict[str, Any]) -> str:
    progress = running["progress"]
    if progress is None:
        return str(running["stage"] or "starting")
    share = "" if progress["fraction"] is None else f" {progress['fraction']:.0%}"
    return f"{running['stage']}{share}" + (f", {progress['text']}" if progress["text"] else "")


def _stage(store: Store, run: Run) -> str | None:
    """The stage that runs now."""
    own = next((full for full in store.newest_runs(_BESIDE, stages=True) if full.id == run.id), run)
    return next((stage.node for stage in reversed(own.stages) if stage.state is State.RUNNING), None)
