"""How the schedule stands, for `evergreen status`: what comes next, what waits, and the last runs with their gates.

Reads the scheduler's files and ML Metadata; writes nothing and needs no scheduler at work.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from evergreen.components.errors import ConfigError
from evergreen.pipeline import locks
from evergreen.pipeline.config import Config
from evergreen.pipeline.console import clock
from evergreen.pipeline.run_result import gates
from evergreen.pipeline.schedule import state
from evergreen.pipeline.schedule.state import Ended, Places
from evergreen.pipeline.store import Run

SHOWN = 10


def read(config: Config, runs: Iterable[Run]) -> dict[str, Any] | None:
    """Gathers how the schedule stands, as plain values.

    Args:
      config: the project's configuration.
      runs: the project's runs.

    Returns:
      `at_work`, whether a scheduler is; `next`, the next due time in milliseconds since 1970, or None; `paused`, the
      reason, or None; `waiting`, what is in the queue; `running`, or None; `last`, the last runs, newest first. None
      where the project has no schedule and never had one.
    """
    places = Places(config.workspace_dir)
    if config.schedule is None and not places.state.exists():
        return None
    remembered = state.read(places.state)
    by_id = {run.id: run for run in runs}
    return {
        "at_work": locks.is_held(places.lock),
        "next": _next(config, remembered),
        "paused": remembered.paused.reason if remembered.paused else None,
        "paused_since": _ms(remembered.paused.since) if remembered.paused else None,
        "failures": remembered.failures,
        "waiting": [
            {
                "trigger": job.trigger,
                "scheduled_time": _ms(job.scheduled),
                "span": job.span,
                "attempt": job.attempt,
                "not_before": _ms(job.not_before),
            }
            for job in remembered.queue
        ],
        "running": None
        if remembered.running is None
        else {
            "trigger": remembered.running.job.trigger,
            "scheduled_time": _ms(remembered.running.job.scheduled),
            "span": remembered.running.span,
            "started": _ms(remembered.running.started),
        },
        "last": [_ended(ended, by_id) for ended in remembered.ended[: -SHOWN - 1 : -1]],
    }


def lines(status: Mapping[str, Any]) -> list[str]:
    """Says in a few lines how the schedule stands.

    Args:
      status: what `read` gives.
    """
    found = []
    if status["paused"]:
        found.append(f"paused since {clock(status['paused_since'])}: {status['paused']}")
    elif not status["at_work"]:
        found.append("no scheduler is at work; `evergreen schedule` starts one")
    if status["next"]:
        found.append(f"the next run is due at {clock(status['next'])}")
    for job in status["waiting"]:
        span = f" on span {job['span']}" if job["span"] else ""
        attempt = f", attempt {job['attempt']}" if job["attempt"] > 1 else ""
        since = f", not before {clock(job['not_before'])}" if job["not_before"] else ""
        found.append(f"waits: the run of {clock(job['scheduled_time'])}{span} ({job['trigger']}{attempt}{since})")
    return found


def rows(status: Mapping[str, Any]) -> list[list[str]]:
    """Returns the last runs as rows of a table: time, trigger, span, result, gates, version, why.

    Args:
      status: what `read` gives.
    """
    return [
        [
            clock(run["scheduled_time"]),
            run["trigger"],
            run["span"],
            run["result"],
            run["gates"],
            str(run["version"] or ""),
            run["reason"],
        ]
        for run in status["last"]
    ]


def _ended(ended: Ended, runs: Mapping[str, Run]) -> dict[str, Any]:
    return {
        "trigger": ended.trigger,
        "scheduled_time": _ms(ended.scheduled),
        "ended": _ms(ended.ended),
        "span": ended.span,
        "result": ended.result,
        "gates": gates(*_end(ended, runs.get(ended.run))),
        "run": ended.run or None,
        "version": ended.version or None,
        "reason": ended.reason,
        "attempt": ended.attempt,
        "seconds": round(ended.seconds, 3),
    }


def _end(ended: Ended, run: Run | None) -> tuple[str, str]:
    """Returns a run's result and the reason, from its own record where there is one."""
    return (ended.result, ended.reason) if run is None else (run.result.value, run.reason)


def _next(config: Config, remembered: state.State) -> int | None:
    from evergreen.pipeline.schedule import project

    try:
        due = project.next_run(remembered, project.rules(config))
    except ConfigError:
        return None
    return None if due is None else _ms(due)


def _ms(moment: float) -> int:
    """Returns milliseconds since 1970, as ML Metadata keeps time; 0 for none."""
    return int(moment * 1000)
