"""`evergreen run`: one retraining, from the newest span to a published version or a verdict why not."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from filelock import Timeout

from evergreen.components.errors import ConfigError, EvergreenError, LockHeld
from evergreen.pipeline import config as configuration
from evergreen.pipeline import console, locks, options, run_result
from evergreen.pipeline import stages as stages_of
from evergreen.pipeline.commands import plan as plan_command
from evergreen.pipeline.plan import Action, Plan, plan_run
from evergreen.pipeline.recovery import Recovered, recover
from evergreen.pipeline.run_result import RunResult
from evergreen.pipeline.settings_schedule import ScheduleSettings
from evergreen.pipeline.span_pattern import Pattern
from evergreen.pipeline.store import Result, Store

if TYPE_CHECKING:
    from evergreen.pipeline.profiling.session import Profile

_RECENT = 10  # runs among which the earlier attempts of one are


@click.command()
@click.option("--span", "asked", type=str, default=None, help="Train on this span instead of the newest new one.")
@click.option(
    "--scheduled-time",
    type=str,
    default=None,
    metavar="TIME",
    help="The time that a scheduler started this run for, ISO 8601 or `now`: spans that are dates then follow from it.",
)
@click.option("--trigger", type=str, default="manual", help="What started this run, for its record.")
@click.option("--decide-only", is_flag=True, help="End behind gate 1 and the champion's exam; train nothing.")
@click.option("--due-span", type=str, default=None, hidden=True, help="The span of a scheduled run.")
@click.option(
    "--result-file", type=str, default=None, metavar="FILE", help="Write what the run came to into this file, as JSON."
)
@click.option(
    "--profile", "profiled", is_flag=True, help="Say where the time went by stage, and leave a trace in the run's logs."
)
@options.config
@options.json_output
def command(
    config_file: str | None,
    overrides: tuple[str, ...],
    asked: str | None,
    scheduled_time: str | None,
    trigger: str,
    decide_only: bool,
    due_span: str | None,
    result_file: str | None,
    profiled: bool,
    as_json: bool,
) -> None:
    """One retraining: validate the newest span, train on the window, examine, quantize, publish.

    Says so and exits 0 where there is nothing new. Exits 3 where the data was rejected, 4 where the model was, 5 where
    another run holds the workspace.

    \b
    Example:
      evergreen run --span 4
    """
    with _profiling(profiled) as profile:
        try:
            config = configuration.load(config_file, overrides)
            configuration.check_files(config)
            scheduled = _moment(scheduled_time)
            due = due_span if due_span is not None or asked is not None else _due(config, scheduled)
            start = Start(asked, due, decide_only, trigger, scheduled)
            with held(config):
                result, refusal = once(config, start, as_json, profile)
        except BaseException as error:
            _tell(result_file, run_result.of_error(error))
            raise
        _tell(result_file, result)
    if refusal is not None:
        raise refusal


def _profiling(asked: bool) -> contextlib.AbstractContextManager[Profile | None]:
    if not asked:
        return contextlib.nullcontext()
    from evergreen.pipeline.profiling.session import Profile

    return Profile()


@dataclass(frozen=True)
class Start:
    """What was asked for.

    Attributes:
      asked: the span that the user named.
      due: the span of a scheduled run.
      decide_only: whether nothing is trained.
      trigger: what started the run.
      scheduled: the time that it was started for, in seconds since 1970; None where a person started it.
    """

    asked: str | None
    due: str | None
    decide_only: bool
    trigger: str
    scheduled: float | None

    @property
    def properties(self) -> dict[str, str | int]:
        """What the run's context holds of it."""
        from evergreen.pipeline.schedule import times

        scheduled = {} if self.scheduled is None else {"scheduled_time": times.text(self.scheduled)}
        return {"trigger": self.trigger, **scheduled}


def _moment(text: str | None) -> float | None:
    from evergreen.pipeline.schedule import times

    if text is None:
        return None
    try:
        return time.time() if text == "now" else times.parse(text)
    except ValueError:
        raise ConfigError(
            f"--scheduled-time {text} is not understood",
            f"received {text!r}, expected ISO 8601 such as 2013-04-01T03:00:00Z, or `now`",
            "Correct the time.",
        ) from None


def _due(config: configuration.Config, scheduled: float | None) -> str | None:
    """Returns the label of the span that follows from the scheduled time; None where none does."""
    from evergreen.pipeline.schedule import times

    if scheduled is None:
        return None
    pattern = Pattern(config.data.pattern)
    span = times.expected_span(pattern, scheduled, config.schedule or ScheduleSettings())
    return None if span is None else pattern.label(span)


def _tell(result_file: str | None, result: RunResult) -> None:
    if result_file is not None:
        result.write(Path(result_file))


@contextlib.contextmanager
def held(config: configuration.Config) -> Iterator[None]:
    """Holds the workspace for the time of a block; where hosts share a metadata server, the pipeline too.

    SIGTERM, by which containers and other schedulers end a run, ends the block as Ctrl-C does.

    Args:
      config: the project's configuration.

    Raises:
      LockHeld: another run does.
    """
    config.lock_path.parent.mkdir(parents=True, exist_ok=True)
    try:
        held = locks.take(config.lock_path)
    except Timeout:
        raise LockHeld(
            "another run holds this workspace",
            f"the lock {config.lock_path} is held by a live process",
            "wait for it (evergreen status shows it), then run again",
        ) from None
    with held, _terminable():
        if config.connection.kind == "sqlite":
            yield
            return
        from evergreen.pipeline.lease import Lease

        with Lease(Store(config.connection, config.name)):
            yield


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Takes SIGTERM for Ctrl-C for the time of a block, unless somebody else listens to it."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def once(
    config: configuration.Config, start: Start, as_json: bool, profile: Profile | None = None
) -> tuple[RunResult, EvergreenError | None]:
    """Runs one retraining, and says what came of it.

    Args:
      config: the project's configuration.
      start: what was asked for.
      as_json: print JSON instead.
      profile: says where the time went; ended where there is a run.

    Returns:
      The result, and the error that the user is told where it did not publish.
    """
    store = Store(config.connection, config.name)
    out = console.Console(quiet=as_json)
    recovered = recover(config, store, console.slowly(out.note))
    for line in recovered.lines() if recovered else []:
        out.note(f"put right: {line}")
    plan = plan_run(config, store, start.asked, start.due, start.decide_only)
    for warning in plan.warnings:
        out.warn(warning)
    if plan.action is Action.NOTHING or plan.target is None:
        if as_json:
            console.print_json({"result": "nothing", **plan_command.to_json(plan)})
        else:
            out.note(f"nothing to do: {plan.reason}")
        label = plan.target.label if plan.target else ""
        nothing = RunResult("nothing", span=label, reason=plan.reason)
        return _unheard(config, store, plan, start, recovered) or nothing, None
    if not start.decide_only:
        warn_of_servers(config, out)
    from evergreen.pipeline import runner
    from evergreen.pipeline.run_log import RunLog

    with (
        RunLog(config.logs_dir, runner.new_run_id(), profile.stage if profile else None) as log,
        console.StageProgress(log.terminal, quiet=as_json) as stages,
    ):
        stages.heading(plan_command.headline(config, plan), log.run_id)
        outcome = runner.retrain(config, plan, store, stages, log, start.properties)
        drift = _drift(config, plan, store, outcome.result)
    if profile is not None:
        profile.end(log.folder)
        profile.show(out)
    result = RunResult(
        outcome.result.value,
        run=outcome.run_id,
        span=plan.target.label,
        version=outcome.version,
        reason=outcome.reason,
        retryable=outcome.retryable,
        metrics=stages_of.exam_metrics(outcome.outputs),
        drift=drift,
    )
    if as_json:
        seconds = {node: round(seconds, 3) for node, seconds in outcome.seconds.items()}
        where = {"profile": profile.to_json()} if profile else {}
        shown = {"run": result.run, "result": result.result, "version": result.version or None, "reason": result.reason}
        console.print_json({**shown, "metrics": result.metrics, "seconds": seconds, **where})
    elif outcome.error is None:
        out.note(_end(config, outcome.result, result))
    return result, outcome.error


def _unheard(
    config: configuration.Config, store: Store, plan: Plan, start: Start, recovered: Recovered
) -> RunResult | None:
    """Returns what an earlier attempt came to that was killed before whoever started it had heard.

    Args:
      config: the project's configuration.
      store: its metadata store.
      plan: the plan, by which there is nothing to do.
      start: what was asked for; another attempt has the same trigger and scheduled time.
      recovered: what was put right.

    Returns:
      The verdict; None where there is none that was not heard.
    """
    if plan.target is None:
        return None
    for run in store.newest_runs(_RECENT):
        own = (run.span, run.version) == plan.target.key and (run.result.finished or start.decide_only)
        again = start.scheduled is not None and start.properties.items() <= run.properties.items()
        if own and run.result is not Result.ROLLED_BACK and (again or run.id in recovered.adopted):
            return RunResult(
                run.result.value,
                run=run.id,
                span=plan.target.label,
                version=run.pushed_version,
                reason=run.reason,
                metrics=json.loads(str(run.properties.get("metrics", "{}"))),
                drift=_drift(config, plan, store, run.result),
            )
    return None


def _drift(config: configuration.Config, plan: Plan, store: Store, ended: Result) -> list[str] | None:
    """Lists what has drifted where a span was only decided and the schedule asks; None where nobody does."""
    if ended is not Result.DECIDED or config.schedule is None or not config.schedule.on_drift:
        return None
    from evergreen.pipeline import runner

    return runner.drift(config, plan, store)


def _end(config: configuration.Config, ended: Result, result: RunResult) -> str:
    if ended is Result.DECIDED:
        return f"span {result.span} is accepted; nothing was trained"
    return result.reason or f"published version {result.version} into {config.publish.base_path}"


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
