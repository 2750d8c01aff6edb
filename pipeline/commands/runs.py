"""`evergreen runs`: every run, how it ended and why."""

from __future__ import annotations

import click

from evergreen.pipeline import config as configuration
from evergreen.pipeline import options, stages
from evergreen.pipeline.console import Console, clock, duration, print_json
from evergreen.pipeline.run_result import gates
from evergreen.pipeline.store import Run, State, Store, to_json

SHOWN = 20


@click.command()
@click.option("--last", type=click.IntRange(min=1), default=SHOWN, show_default=True, help="How many.")
@click.option("--all", "everything", is_flag=True, help="Every run.")
@click.option("--stages", "with_stages", is_flag=True, help="Each run's stages, with what was cached.")
@options.config
@options.json_output
def command(
    config_file: str | None, overrides: tuple[str, ...], last: int, everything: bool, with_stages: bool, as_json: bool
) -> None:
    """List the runs, newest first: span, result, why, time, what was published.

    \b
    Example:
      evergreen runs --stages
    """
    config = configuration.load(config_file, overrides)
    store, staged = Store(config.connection, config.name), with_stages or as_json
    # One more than is shown tells whether there are more.
    runs = store.runs(stages=staged)[::-1] if everything else store.newest_runs(last + 1, stages=staged)
    shown = runs if everything else runs[:last]
    if as_json:
        print_json([{**to_json(run), "gates": gates(run.result.value, run.reason)} for run in shown])
        return
    console = Console()
    if not runs:
        console.note("there are no runs yet; `evergreen run` makes the first")
        return
    console.table(
        ["run", "started", "span", "trigger", "gates", "result", "took", "version", "why"],
        [
            [
                run.id,
                clock(run.started),
                run.label,
                run.trigger,
                gates(run.result.value, run.reason),
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
        console.note("there are older ones: --last N, --all")


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
