"""`evergreen runs`: every run, how it ended and why."""

from __future__ import annotations

import click

from evergreen.pipeline import config as configuration
from evergreen.pipeline import options, stages
from evergreen.pipeline.console import Console, clock, duration, print_json
from evergreen.pipeline.store import Run, State, Store, to_json

SHOWN = 20


@click.command()
@click.option("--all", "everything", is_flag=True, help=f"Every run, not the last {SHOWN} only.")
@click.option("--stages", "with_stages", is_flag=True, help="Each run's stages, with what was cached.")
@options.config
@options.json_output
def command(
    config_file: str | None, overrides: tuple[str, ...], everything: bool, with_stages: bool, as_json: bool
) -> None:
    """List the runs, newest first: span, result, why, time, what was published.

    \b
    Example:
      evergreen runs --stages
    """
    config = configuration.load(config_file, overrides)
    runs = Store(config.connection, config.name).runs(stages=with_stages or as_json)[::-1]
    shown = runs if everything else runs[:SHOWN]
    if as_json:
        print_json([to_json(run) for run in shown])
        return
    console = Console()
    if not runs:
        console.note("there are no runs yet; `evergreen run` makes the first")
        return
    console.table(
        ["run", "started", "span", "trigger", "result", "took", "version", "why"],
        [
            [
                run.id,
                clock(run.started),
                run.label,
                run.trigger,
                run.result.value,
                duration(run.seconds),
                run.pushed_version or "",
                run.reason,
            ]
            for run in shown
        ],
    )
    if with_stages:
        for run in shown:
            print_stages(console, run)
    if len(shown) < len(runs):
        console.note(f"{len(runs) - len(shown)} older ones: --all")


def print_stages(console: Console, run: Run) -> None:
    """Prints a run's stages that a person cares about.

    Args:
      console: where.
      run: the run, read with its stages.
    """
    rows = [
        [stage.node, "from the cache" if stage.state is State.CACHED else stage.state.value, duration(stage.seconds)]
        for stage in run.stages
        if stages.is_shown(stage.node)
    ]
    console.table(["stage", "state", "took"], rows, right=("took",), title=f"\n{run.id}")
