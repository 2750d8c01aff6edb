"""`evergreen plan`: what `run` would do now, and why."""

from __future__ import annotations

from typing import Any

import click

from evergreen.pipeline import config as configuration
from evergreen.pipeline import console, options
from evergreen.pipeline.plan import Action, Plan, SpanState, plan_run
from evergreen.pipeline.store import Store


@click.command()
@click.option("--span", "asked", type=str, default=None, help="Plan a run on this span.")
@options.config
@options.json_output
def command(config_file: str | None, overrides: tuple[str, ...], asked: str | None, as_json: bool) -> None:
    """What `run` would do now: the span, the window, what is decided already, what is missing, and why.

    Reads only; starts nothing.
    """
    config = configuration.load(config_file, overrides)
    configuration.check_files(config)
    plan = plan_run(config, Store(config.connection, config.name), asked)
    if as_json:
        console.print_json(to_json(plan))
        return
    out = console.Console()
    for warning in plan.warnings:
        out.warn(warning)
    out.note(headline(config, plan))
    rows = [
        [
            entry.label,
            str(entry.version),
            entry.state.value,
            f"{entry.rows:,}" if entry.rows is not None else "",
            str(len(entry.files)),
            _step(plan, position),
        ]
        for position, entry in enumerate(plan.window)
    ]
    out.table(["span", "version", "gate 1", "rows", "files", "run would"], rows)


def headline(config: configuration.Config, plan: Plan) -> str:
    """Says in one line what the plan is."""
    if plan.action is Action.NOTHING or plan.target is None:
        return f"{config.name}: nothing to do: {plan.reason}"
    # The target is decided anew where the user named it, so it counts although it was rejected once.
    spans = [e.label for e in plan.window if e.state is not SpanState.REJECTED or e is plan.target]
    live = f"champion: version {plan.champion.version}" if plan.champion else "no version is published yet"
    verb = "train on" if plan.action is Action.TRAIN else "take up training on"
    return f"{config.name}: {verb} span{'s' if len(spans) > 1 else ''} {', '.join(spans)}, since {plan.reason}; {live}"


def to_json(plan: Plan) -> dict[str, Any]:
    """Returns the plan as plain values for `--json`."""
    return {
        "action": plan.action.value,
        "reason": plan.reason,
        "span": plan.target.span if plan.target else None,
        "span_version": plan.target.version if plan.target else None,
        "champion": plan.champion.version if plan.champion else None,
        "attempt": plan.attempt,
        "warnings": list(plan.warnings),
        "window": [
            {
                "span": entry.span,
                "version": entry.version,
                "label": entry.label,
                "state": entry.state.value,
                "rows": entry.rows,
                "files": list(entry.files),
            }
            for entry in plan.window
        ],
    }


def _step(plan: Plan, position: int) -> str:
    entry = plan.window[position]
    newest = position == len(plan.window) - 1
    if plan.action is Action.NOTHING:
        return "nothing"
    if entry.state is SpanState.REJECTED and not newest:
        return "leave it out"
    return ("validate, " if entry.state is SpanState.PENDING else "") + (
        "train, examine, publish" if newest else "use it as training rows"
    )
