"""What follows from the way in which a run ended: another attempt, a pause, or nothing more. Pure."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from evergreen.components.evaluator.metrics import gain
from evergreen.pipeline.run_result import RunResult
from evergreen.pipeline.schedule.policy import Decision, Rules
from evergreen.pipeline.schedule.state import Ended, Job, Pause, Running, State
from evergreen.pipeline.schedule.times import text
from evergreen.pipeline.settings_schedule import seconds

_VERDICTS = ("published", "unchanged", "nothing", "data rejected", "model rejected", "withdrawn")


@dataclass(frozen=True)
class End:
    """How a run's process ended.

    Attributes:
      result: what the run wrote; None where it wrote nothing.
      status: the exit status, negative for a signal; None where nobody knows, because the scheduler died too.
      cut_off: why the scheduler ended it: `time`, `memory` or `stop`; empty where it ended by itself.
      seconds: how long it took.
    """

    result: RunResult | None
    status: int | None
    cut_off: str = ""
    seconds: float = 0.0


def ended(state: State, rules: Rules, now: float, end: End, draw: float) -> Decision:
    """Decides what follows from a run's end.

    Args:
      state: what is remembered; its `running` is the run.
      rules: what the configuration says.
      now: the present.
      end: how it ended.
      draw: a random number in [0, 1), which spreads the pauses between attempts.

    Returns:
      The decision.
    """
    decision = Decision(state)
    running = state.running
    assert running is not None
    decision.change(running=None)
    result = _result(end, rules)
    if end.cut_off == "stop" and result.result == "killed":
        # Whoever stopped the scheduler will start it again: the same attempt goes on by the cache.
        decision.change(queue=(running.job, *decision.state.queue))
        decision.says.append(f"the run of {text(running.job.scheduled)} was stopped; the next start goes on with it")
    elif end.status is None and result.result == "killed":
        _taken_up(decision, rules, now, running, end)
    elif result.result == "locked":
        again = dataclasses.replace(running.job, not_before=now + seconds(rules.settings.retries.first))
        decision.change(queue=(again, *decision.state.queue))
        decision.says.append("another run holds the workspace; it is waited for")
    elif result.result == "configuration":
        decision.change(queue=(running.job, *decision.state.queue))
        pause(decision, now, result.reason, lifts=True)
    elif result.result == "decided":
        _decided(decision, rules, now, running, end, result)
    elif result.result in _VERDICTS:
        _verdict(decision, now, running, end, result)
    elif result.result == "late":
        _close(decision, now, running, end, result)
        decision.tell("late", result.reason, span=running.span, scheduled_time=text(running.job.scheduled))
    elif result.retryable and running.job.attempt < rules.settings.retries.attempts:
        _again(decision, rules, now, running.job, result, draw)
    else:
        _failed(decision, rules, now, running, end, result)
    return decision


def _taken_up(decision: Decision, rules: Rules, now: float, running: Running, end: End) -> None:
    """Puts a run back that died with its scheduler. It counts as an attempt: the run may be what killed both."""
    job = running.job
    if job.attempt >= rules.settings.retries.attempts:
        reason = "it died with the scheduler in its last attempt; does the machine run out of memory?"
        _failed(decision, rules, now, running, end, RunResult("failed", reason=reason))
        return
    decision.change(queue=(dataclasses.replace(job, attempt=job.attempt + 1, not_before=0.0), *decision.state.queue))
    decision.says.append(f"the run of {text(job.scheduled)} was cut off; it is taken up again")


def _result(end: End, rules: Rules) -> RunResult:
    """Returns what the run wrote, or what its end means."""
    # A run that came to a verdict has one, whatever killed it afterwards.
    if end.result is not None and (not end.cut_off or end.result.result in (*_VERDICTS, "decided")):
        return end.result
    if end.cut_off == "time":
        return RunResult("failed", reason=f"it took longer than {rules.settings.time_limit}", retryable=True)
    if end.cut_off == "memory":
        return RunResult("failed", reason=f"it held more than {rules.settings.memory_limit} of memory")
    if end.cut_off or end.status is None:
        return RunResult("killed", reason="interrupted", retryable=True)
    if end.status < 0:
        return RunResult("failed", reason=f"its process was ended by signal {-end.status}", retryable=True)
    # Wrong usage, and a Python that cannot even begin, end without a result.
    return RunResult("failed", reason=f"its process ended with exit status {end.status}")


def _close(decision: Decision, now: float, running: Running, end: End, result: RunResult) -> None:
    """Writes down that a run has come to its end."""
    job = running.job
    closed = Ended(
        job.trigger,
        job.scheduled,
        result.result,
        now,
        running.span,
        result.run,
        result.version,
        result.reason,
        job.attempt,
        end.seconds,
    )
    decision.state = decision.state.with_ended(closed)
    decision.finished += 1


def _verdict(decision: Decision, now: float, running: Running, end: End, result: RunResult) -> None:
    _close(decision, now, running, end, result)
    # Nothing to decide is not the same as nothing to train on.
    if result.result != "nothing" or not running.job.decide_only:
        decision.state = decision.state.with_settled(running.span, running.digest)
    decision.change(failures=0, last_success=now, late="")
    values = {"span": running.span, "run": result.run, "metrics": result.metrics, "trigger": running.job.trigger}
    if result.result == "published":
        message = f"span {running.span}: published version {result.version}"
        decision.tell("published", message, version=result.version, **values)
    elif result.result in ("data rejected", "model rejected", "withdrawn"):
        message = f"span {running.span}: not published, {result.result}: {result.reason}"
        decision.tell("not_published", message, reason=result.reason, **values)
    else:
        decision.says.append(f"span {running.span}: {result.reason or 'nothing to do'}")


def _decided(decision: Decision, rules: Rules, now: float, running: Running, end: End, result: RunResult) -> None:
    """Starts a retraining where the examination of a new span asks for one."""
    _close(decision, now, running, end, result)
    decision.change(failures=0, last_success=now)
    why = "" if running.job.trigger != "watch" else _alarm(rules, result)
    if not why:
        decision.says.append(f"span {running.span} is accepted; nothing is trained")
        return
    trigger, _, words = why.partition(": ")
    decision.says.append(f"span {running.span}: {words}")
    decision.change(queue=(Job(trigger, running.job.scheduled, running.span), *decision.state.queue))


def _alarm(rules: Rules, result: RunResult) -> str:
    """Says which trigger the new span sets off, and why; empty where none."""
    settings = rules.settings
    measured = result.metrics.get("champion_on_span")
    if measured is None:
        return f"{'on_drift' if settings.on_drift else 'on_metric_drop'}: there is no live model yet"
    if settings.on_drift and result.drift:
        return f"on_drift: drifted from what the live model was trained on: {', '.join(result.drift)}"
    for metric, bound in settings.on_metric_drop.items():
        value = measured.get(metric)
        if value is not None and gain(metric, value, bound) < 0:
            return f"on_metric_drop: the live model's {metric} is {value:.4f}, and the bound is {bound:g}"
    return ""


def backoff(rules: Rules, attempt: int, draw: float) -> float:
    """Returns the pause before another attempt, in seconds.

    Args:
      rules: what the configuration says.
      attempt: the attempt that failed, from 1.
      draw: a random number in [0, 1).
    """
    retries = rules.settings.retries
    pause_s = min(seconds(retries.first) * 2.0 ** min(attempt - 1, 40), seconds(retries.longest))
    return pause_s * (1 + retries.jitter * (2 * draw - 1))


def _again(decision: Decision, rules: Rules, now: float, job: Job, result: RunResult, draw: float) -> None:
    pause_s = backoff(rules, job.attempt, draw)
    again = dataclasses.replace(job, attempt=job.attempt + 1, not_before=now + pause_s)
    decision.change(queue=(again, *decision.state.queue))
    of = f"attempt {job.attempt} of {rules.settings.retries.attempts}"
    decision.says.append(f"{of} failed: {result.reason}; the next one in {pause_s:.0f} s")


def _failed(decision: Decision, rules: Rules, now: float, running: Running, end: End, result: RunResult) -> None:
    _close(decision, now, running, end, result)
    failures = decision.state.failures + 1
    decision.change(failures=failures)
    message = f"span {running.span}: the run failed in attempt {running.job.attempt}: {result.reason}"
    decision.tell("failed", message, span=running.span, run=result.run, reason=result.reason)
    if failures >= rules.settings.max_consecutive_failures:
        pause(decision, now, f"{failures} runs failed in a row, the last by: {result.reason}")


def pause(decision: Decision, now: float, reason: str, lifts: bool = False) -> None:
    """Pauses the schedule, and says so.

    Args:
      decision: takes the pause.
      now: the present.
      reason: why.
      lifts: whether it ends when the configuration can be read again.
    """
    if decision.state.paused is not None:
        return
    decision.change(paused=Pause(now, reason, lifts))
    how = "it goes on when the configuration is mended" if lifts else "evergreen schedule --resume goes on"
    decision.tell("paused", f"the schedule pauses: {reason}; {how}", reason=reason)
