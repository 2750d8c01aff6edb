"""`evergreen run`: one retraining, from the newest span to a published version or a verdict why not."""

from __future__ import annotations

import click
from filelock import FileLock, Timeout

from evergreen.components.errors import LockHeld
from evergreen.pipeline import config as configuration
from evergreen.pipeline import console, options
from evergreen.pipeline import stages as stages_of
from evergreen.pipeline.commands import plan as plan_command
from evergreen.pipeline.plan import Action, plan_run
from evergreen.pipeline.recovery import recover
from evergreen.pipeline.store import Store


@click.command()
@click.option("--span", "asked", type=str, default=None, help="Train on this span instead of the newest new one.")
@options.config
@options.json_output
def command(config_file: str | None, overrides: tuple[str, ...], asked: str | None, as_json: bool) -> None:
    """One retraining: validate the newest span, train on the window, examine, quantize, publish.

    Says so and exits 0 where there is nothing new. Exits 3 where the data was rejected, 4 where the model was, 5 where
    another run holds the workspace.

    \b
    Example:
      evergreen run --span 4
    """
    config = configuration.load(config_file, overrides)
    configuration.check_files(config)
    config.lock_path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(str(config.lock_path))
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        raise LockHeld(
            "another run holds this workspace",
            f"the lock {config.lock_path} is held by a live process",
            "wait for it (evergreen status shows it), then run again",
        ) from None
    with held:
        _run(config, asked, as_json)


def _run(config: configuration.Config, asked: str | None, as_json: bool) -> None:
    store = Store(config.connection, config.name)
    out = console.Console(quiet=as_json)
    recovered = recover(config, store, console.slowly(out.note))
    for line in recovered.lines() if recovered else []:
        out.note(f"put right: {line}")
    plan = plan_run(config, store, asked)
    for warning in plan.warnings:
        out.warn(warning)
    if plan.action is Action.NOTHING or plan.target is None:
        if as_json:
            console.print_json({"result": "nothing", **plan_command.to_json(plan)})
        else:
            out.note(f"nothing to do: {plan.reason}")
        return
    warn_of_servers(config, out)
    from evergreen.pipeline import runner
    from evergreen.pipeline.run_log import RunLog

    with (
        RunLog(config.logs_dir, runner.new_run_id()) as log,
        console.StageProgress(log.terminal, quiet=as_json) as stages,
    ):
        stages.heading(plan_command.headline(config, plan), log.run_id)
        outcome = runner.retrain(config, plan, store, stages, log, {"trigger": "manual"})
    if as_json:
        console.print_json(
            {
                "run": outcome.run_id,
                "result": outcome.result.value,
                "version": outcome.version or None,
                "reason": outcome.reason,
                "metrics": stages_of.exam_metrics(outcome.outputs),
                "seconds": {node: round(seconds, 3) for node, seconds in outcome.seconds.items()},
            }
        )
    if outcome.error is not None:
        raise outcome.error
    if not as_json:
        out.note(
            f"published version {outcome.version} into {config.publish.base_path}"
            if not outcome.reason
            else outcome.reason
        )


def warn_of_servers(config: configuration.Config, out: console.Console) -> None:
    """Says before a training that a server is away without which its model cannot be published.

    Args:
      config: the project's configuration.
      out: where.
    """
    if config.publish.server is None:
        return
    from evergreen.components.pusher import servers, watch_plan

    addresses = watch_plan.parse_settings(config.publish_settings()).servers
    with servers.Servers(addresses, config.name) as there:
        for address in addresses:
            if there.see(address, 0).state == watch_plan.UNREACHABLE:
                out.warn(f"the server {address} does not answer; while it is away nothing can be published")
