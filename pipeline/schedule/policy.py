"""What becomes of due times and of new spans: a pure state machine.

`tick` is asked every few seconds and says what is to be started; `ended` (in `verdicts`) is told how a run ended. Both
take the state and give the next one, with what is to be said. No clock, no file and no process is touched here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field

from evergreen.pipeline.schedule.look import Look
from evergreen.pipeline.schedule.state import Ended, Job, State
from evergreen.pipeline.schedule.times import Timetable, text
from evergreen.pipeline.settings_schedule import ScheduleSettings, seconds

# A run that starts no later than this after its time was not missed. The loop looks more often; a busy machine may not.
FRESH_S = 60.0


@dataclass(frozen=True)
class Rules:
    """What the configuration says.

    Attributes:
      settings: the section `schedule`.
      timetable: when runs are due; None where only triggers start them.
      expected: the label of the span that a scheduled time is about; None where spans are numbers.
    """

    settings: ScheduleSettings
    timetable: Timetable | None
    expected: Callable[[float], str | None]

    @property
    def name(self) -> str:
        """What tells this timetable from another one."""
        return f"{self.settings.cron} {self.settings.timezone}" if self.settings.cron else self.settings.every or ""

    @property
    def wait_s(self) -> float:
        """Seconds for which a late span is waited for."""
        return seconds(self.settings.wait_for_span) if self.settings.wait_for_span else 0.0

    def span_of(self, job: Job) -> str | None:
        """The label of a run's span; None for the newest."""
        return job.span if job.span is not None else self.expected(job.scheduled)


@dataclass
class Decision:
    """What follows.

    Attributes:
      state: the next state.
      says: lines for the log.
      notices: events with their messages and further values, for `notify`.
      start: the run to be started, with its span's label and files.
      finished: how many runs came to their end, also those for which nothing was to be done.
    """

    state: State
    says: list[str] = field(default_factory=list)
    notices: list[tuple[str, str, dict[str, object]]] = field(default_factory=list)
    start: tuple[Job, str, str] | None = None
    finished: int = 0

    def change(self, **values: object) -> None:
        """Replaces fields of the state."""
        self.state = dataclasses.replace(self.state, **values)  # type: ignore[arg-type]

    def tell(self, event: str, message: str, **values: object) -> None:
        """Says something and notifies of it."""
        self.says.append(message)
        self.notices.append((event, message, values))


def tick(state: State, rules: Rules, now: float, look: Callable[[], Look]) -> Decision:
    """Decides what is to be done now.

    Args:
      state: what is remembered.
      rules: what the configuration says.
      now: the present.
      look: looks at the data directory; it is called where that is needed, once at most.

    Returns:
      The decision; its state must be remembered before anything of it is done.
    """
    decision = Decision(state)
    if state.cursor is None or state.timetable != rules.name:
        decision.change(cursor=now, timetable=rules.name)
    elif state.cursor > now:
        decision.says.append(f"the clock was set back behind {text(state.cursor)}; times since then are not repeated")
        decision.change(cursor=now)
    if state.paused is not None:
        return decision
    _take_due(decision, rules, now)
    head_is_ready = state.running is None and bool(decision.state.queue) and _ready(decision.state.queue[0], rules, now)
    if not head_is_ready and not rules.settings.watches_spans:
        return decision
    seen = look()
    _watch(decision, rules, now, seen)
    while decision.state.running is None and decision.start is None and decision.state.queue:
        if not _ready(decision.state.queue[0], rules, now) or not _begin(decision, rules, now, seen):
            break
    return decision


def _ready(job: Job, rules: Rules, now: float) -> bool:
    # A pause that is longer than any can be was made before the clock was set back.
    longest = seconds(rules.settings.retries.longest) * (1 + rules.settings.retries.jitter)
    return job.not_before <= now or job.not_before > now + longest


def _take_due(decision: Decision, rules: Rules, now: float) -> None:
    """Puts what is due into the queue, or leaves it out and says so."""
    settings, state = rules.settings, decision.state
    if rules.timetable is None or state.cursor is None:
        return
    due = rules.timetable.between(state.cursor, now, settings.catch_up_limit + 1)
    if not due:
        return
    new = [slot for slot in due if slot not in state.slots]
    decision.state = state.with_slots(due)
    if not new:
        return
    trigger = "cron" if settings.cron else "every"
    busy = state.running is not None or bool(state.queue)
    fresh = [slot for slot in new if slot > now - FRESH_S]
    missed = [] if busy else [slot for slot in new if slot <= now - FRESH_S]
    jobs = _caught_up(decision, rules, missed, bool(fresh))
    if busy:
        jobs += _overrun(decision, settings, [Job(trigger, slot) for slot in new])
    elif fresh:
        jobs += _overrun(decision, settings, [Job(trigger, slot) for slot in fresh[:-1]])
        jobs.append(Job(trigger, fresh[-1]))
    decision.change(queue=(*decision.state.queue, *jobs))


def _overrun(decision: Decision, settings: ScheduleSettings, jobs: list[Job]) -> list[Job]:
    """Returns those that wait for the run before them; the others are left out."""
    room = settings.catch_up_limit - len(decision.state.queue) if settings.overrun == "queue" else 0
    kept = jobs[: max(room, 0)]
    for job in jobs[len(kept) :]:
        decision.says.append(f"the run of {text(job.scheduled)} is left out: an earlier one is not done yet")
    return kept


def _caught_up(decision: Decision, rules: Rules, missed: list[float], superseded: bool) -> list[Job]:
    """Returns the runs that make up for missed ones.

    Args:
      decision: takes what is to be said.
      rules: what the configuration says.
      missed: the times that were missed.
      superseded: whether a run of the present follows, which is then the newest.
    """
    settings = rules.settings
    if not missed:
        return []
    # Spans that are numbers do not say which time they belong to: the newest run takes them all in.
    each = settings.catch_up == "all" and rules.expected(missed[-1]) is not None
    if each:
        older = [Job("catch_up", slot, decide_only=True) for slot in (missed if superseded else missed[:-1])]
        jobs = [*older, *([] if superseded else [Job("catch_up", missed[-1])])][-settings.catch_up_limit :]
    elif settings.catch_up == "none" or superseded:
        jobs = []
    else:
        jobs = [Job("catch_up", missed[-1])]
    more = "or more " if len(missed) > settings.catch_up_limit else ""
    runs = f"{len(missed)} {more}runs were" if len(missed) > 1 else "a run was"
    decision.says.append(f"{runs} missed, the last at {text(missed[-1])}; making up for {len(jobs) or 'none'}")
    return jobs


def _watch(decision: Decision, rules: Rules, now: float, look: Look) -> None:
    """Lets a new span start a run, or the examination that the other triggers need."""
    settings, state = rules.settings, decision.state
    newest = look.newest
    if not settings.watches_spans or newest is None:
        return
    found = (newest, look.complete[newest])
    known = (state.settled.get(newest), state.watched.get(newest))
    # Without a marker a span that is still being written looks complete; two looks at the same files tell.
    settles, state = state.seen != found, dataclasses.replace(state, seen=found)
    decision.state = state
    at_work = [rules.span_of(job) or newest for job in state.queue]
    if state.running is not None:
        at_work.append(state.running.span)
    if settles or found[1] in known or newest in at_work:
        return
    decision.says.append(f"span {newest} has appeared")
    trigger = "on_new_span" if settings.on_new_span else "watch"
    job = Job(trigger, float(int(now)), newest, decide_only=not settings.on_new_span)
    decision.state = dataclasses.replace(state, queue=(*state.queue, job)).with_watched(*found)


def _begin(decision: Decision, rules: Rules, now: float, look: Look) -> bool:
    """Starts the first of the queue, waits for its span, or ends it where there is nothing to do.

    Returns:
      Whether it has left the queue.
    """
    job = decision.state.queue[0]
    wanted = rules.span_of(job)
    span = look.newest if wanted is None else wanted
    digest = look.complete.get(span) if span is not None else None
    settled = span is not None and digest is not None and decision.state.settled.get(span) == digest
    awaits = wanted is None and rules.wait_s > 0
    if digest is None or (settled and awaits):
        if now < job.scheduled + rules.wait_s:
            return False
        _report_late(decision, now, look, wanted)
        return True
    decision.change(queue=decision.state.queue[1:])
    assert span is not None
    if settled:
        _nothing(decision, job, now, span, f"span {span} is decided, and there is no newer one")
    else:
        decision.start = (job, span, digest)
        decision.change(said="")
    return True


def _nothing(decision: Decision, job: Job, now: float, span: str, why: str) -> None:
    """Ends a run for which there is nothing to do, and says so the first time."""
    if decision.state.said != why:
        decision.says.append(f"nothing to do: {why}")
    decision.change(said=why, failures=0, last_success=now)
    decision.state = decision.state.with_ended(Ended(job.trigger, job.scheduled, "nothing", now, span))
    decision.finished += 1


def _report_late(decision: Decision, now: float, look: Look, wanted: str | None) -> None:
    """Ends a run whose span did not come; an older one does not take its place."""
    job, *rest = decision.state.queue
    decision.change(queue=tuple(rest))
    if wanted is not None:
        there = f"the newest that is there is {look.newest}" if look.newest else "there is none"
        why = look.missing.get(wanted) or look.problem or there
        message = f"span {wanted} is late, and nothing is trained in its place: {why}"
    else:
        why = look.problem or "; ".join(f"span {label}: {reason}" for label, reason in look.missing.items())
        message = f"no new span has come since {look.newest or 'the beginning'}" + (f": {why}" if why else "")
    if decision.state.late != (wanted or message):
        decision.tell("late", message, span=wanted, scheduled_time=text(job.scheduled))
    decision.change(late=wanted or message)
    decision.state = decision.state.with_ended(
        Ended(job.trigger, job.scheduled, "late", now, wanted or "", reason=message)
    )
    decision.finished += 1


def stale(state: State, rules: Rules, now: float, version: int, published: float) -> Decision:
    """Reports a live model that has grown too old, once for each version.

    Args:
      state: what is remembered.
      rules: what the configuration says.
      now: the present.
      version: the live version.
      published: when it was published.
    """
    decision = Decision(state)
    limit = rules.settings.max_model_age
    if limit is None or now - published <= seconds(limit) or state.stale == version:
        return decision
    decision.tell("stale", f"the live version {version} is older than {limit}", version=version)
    decision.change(stale=version)
    return decision


def resume(state: State, now: float) -> Decision:
    """Lifts a pause; what was due in the meantime counts as missed, and the newest span as new.

    Args:
      state: what is remembered.
      now: the present.
    """
    decision = Decision(state)
    if state.paused is not None:
        decision.says.append(f"goes on; it was paused since {text(state.paused.since)}")
        decision.change(paused=None, failures=0, watched={})
    return decision
