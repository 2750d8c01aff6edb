"""What one retraining would do now, and why: the span, the window, what is decided already, what is missing.

`make` is pure: it reads what it is given and touches neither files nor ML Metadata; `plan_run` gathers its inputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from evergreen.components.errors import DataRejected, SpanError
from evergreen.components.pusher import catalog
from evergreen.components.pusher.manifest import Manifest
from evergreen.components.pusher.versions import read_hold
from evergreen.components.span_records import SpanRecord
from evergreen.pipeline import spans as span_files
from evergreen.pipeline.config import Config
from evergreen.pipeline.span_pattern import Pattern
from evergreen.pipeline.store import Result, Run, Store

_FIRST_RUNS = 8


class SpanState(str, Enum):
    """Where a span version stands with gate 1."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    REJECTED = "rejected"


class Action(str, Enum):
    """What `run` does."""

    TRAIN = "train"
    RESUME = "resume"
    NOTHING = "nothing"


@dataclass(frozen=True)
class Entry:
    """One span version of the plan.

    Attributes:
      span: its number.
      version: its version's number; where the pattern has no `{VERSION}`, deliveries are counted from 0.
      label: the span as the user writes it.
      files: data files relative to `data.path`.
      digest: `<hash of the contents>.<hash of names, sizes and times>`.
      state: gate 1's decision, or pending.
      rows: rows in it, None while it is pending.
      decided: when gate 1 decided it, milliseconds since 1970; 0 while it is pending.
    """

    span: int
    version: int
    label: str
    files: tuple[str, ...]
    digest: str
    state: SpanState
    rows: int | None = None
    decided: int = 0

    @property
    def key(self) -> tuple[int, int]:
        return self.span, self.version


@dataclass(frozen=True)
class Plan:
    """One retraining, planned.

    Attributes:
      action: what `run` does.
      reason: why, in one sentence.
      target: the newest span of the run; None where there is nothing to do and nothing to point at.
      window: the span versions of the window, the target last.
      champion: the live version's manifest, None before the first version.
      attempt: 1, or more where a run that was cut off is taken up.
      warnings: what the user should know although it stops nothing.
      decide_only: the run ends behind gate 1 and the champion's exam.
    """

    action: Action
    reason: str
    target: Entry | None
    window: tuple[Entry, ...]
    champion: Manifest | None
    attempt: int = 1
    warnings: tuple[str, ...] = ()
    decide_only: bool = False

    @property
    def ingest(self) -> tuple[Entry, ...]:
        """The older span versions that gate 1 must decide first, oldest first."""
        return tuple(entry for entry in self.window[:-1] if entry.state is SpanState.PENDING)


def entries(
    found: Iterable[span_files.SpanVersion],
    records: Sequence[SpanRecord],
    content_digest: Callable[[span_files.SpanVersion], str],
) -> list[Entry]:
    """Joins the files of complete spans with gate 1's decisions, one entry a span: its newest version.

    Where the pattern has no `{VERSION}`, contents that differ from every decided delivery are a new version of the
    span. The contents are only hashed where names, sizes and times have changed since.

    Args:
      found: what lies in the data directory.
      records: gate 1's decisions, oldest first.
      content_digest: hashes a span's files.

    Returns:
      The entries in the order of the spans.
    """
    by_span: dict[int, list[SpanRecord]] = {}
    for record in records:
        by_span.setdefault(record.span, []).append(record)
    return [_entry(span, by_span.get(span.span, []), content_digest) for span in newest_versions(found)]


def newest_versions(found: Iterable[span_files.SpanVersion]) -> list[span_files.SpanVersion]:
    """Picks the newest complete version of each span.

    Args:
      found: what lies in the data directory.

    Returns:
      One version a span, in the order of the spans.
    """
    newest: dict[int, span_files.SpanVersion] = {}
    for span in found:
        known = newest.get(span.span)
        if span.complete and (known is None or (span.version or 0) > (known.version or 0)):
            newest[span.span] = span
    return [newest[number] for number in sorted(newest)]


def _entry(
    span: span_files.SpanVersion,
    records: Sequence[SpanRecord],
    content_digest: Callable[[span_files.SpanVersion], str],
) -> Entry:
    same = [r for r in records if r.digest.endswith("." + span.quick_digest)]
    if same and (span.version is None or same[-1].version == span.version):
        digest = same[-1].digest
    else:
        digest = f"{content_digest(span)}.{span.quick_digest}"
    contents = digest.partition(".")[0]
    if span.version is not None:
        matching = [r for r in records if r.version == span.version]
        version = span.version
    else:
        matching = [r for r in records if r.digest.partition(".")[0] == contents]
        version = matching[-1].version if matching else max((r.version for r in records), default=-1) + 1
    record = matching[-1] if matching else None
    state = SpanState.PENDING
    if record is not None:
        state = SpanState.ACCEPTED if record.accepted else SpanState.REJECTED
        # The recorded digest names the files as they were read: the cache key of a resumed run must not change with a
        # file's time of modification.
        digest = record.digest if record.digest.partition(".")[0] == contents else digest
    rows, decided = (record.rows, record.decided) if record is not None else (None, 0)
    return Entry(span.span, version, span.label, span.files, digest, state, rows, decided)


def make(
    spans: Sequence[Entry],
    runs: Sequence[Run],
    champion: Manifest | None,
    *,
    window: int,
    min_window: int,
    asked: int | None = None,
    due: int | None = None,
    decide_only: bool = False,
) -> Plan:
    """Decides what a retraining does now.

    Args:
      spans: the complete spans, their newest versions, in order; at least one. Those that are neither in the window nor
        the newest may be left out.
      runs: the runs so far, oldest first; at least those that `runs_to_read` gives.
      champion: the live version's manifest.
      window: how many spans a window holds.
      min_window: how few it may hold.
      asked: the span that the user named, one of `spans`; None for the newest.
      due: the span of a scheduled run, one of `spans`: like the newest, it is trained on if that was not done yet.
      decide_only: the span is put through gate 1, and the champion examined on it; nothing is trained.

    Returns:
      The plan.

    Raises:
      DataRejected: fewer than `min_window` spans could be accepted.
    """
    warnings: list[str] = []
    live = _live_key(champion)
    named = asked if asked is not None else due
    target = spans[-1] if named is None else next(entry for entry in spans if entry.span == named)
    unfinished = _unfinished(runs, target, champion)
    untrained = unfinished is not None and unfinished.result is Result.DECIDED
    if untrained:
        unfinished = None
    if asked is not None:
        action, reason = Action.TRAIN, f"span {target.label} was asked for"
    elif target.state is SpanState.PENDING and (decide_only or target.key > live):
        action, reason = Action.TRAIN, f"span {target.label} is new"
    elif decide_only and unfinished is None:
        action, reason = Action.NOTHING, f"span {target.label} is decided"
    elif untrained and target.state is SpanState.ACCEPTED and target.key > live:
        action, reason = Action.TRAIN, f"span {target.label} is accepted and was not trained on"
    elif unfinished is not None and target.state is not SpanState.REJECTED and (due is None or target.key > live):
        action, reason = Action.RESUME, f"the last run on span {target.label} did not end ({unfinished.result.value})"
    else:
        action, reason = Action.NOTHING, _why_nothing(target, champion, runs, is_newest=target is spans[-1])
    if unfinished is not None and action is Action.TRAIN:
        action = Action.RESUME
    chosen = _window(spans, target, window)
    usable = [entry for entry in chosen if entry.state is not SpanState.REJECTED]
    for entry in chosen[:-1]:
        if entry.state is SpanState.REJECTED:
            warnings.append(f"span {entry.label} was rejected and is left out of the window")
    trains = action is not Action.NOTHING and not decide_only
    if trains and target.state is not SpanState.REJECTED and len(usable) < min_window:
        raise DataRejected(
            f"too few accepted spans: {len(usable)}, and `data.min_window` is {min_window}",
            "the window would hold " + (", ".join(entry.label for entry in usable) or "nothing"),
            "deliver more spans, or lower `data.min_window`",
        )
    attempt = unfinished.attempt + 1 if unfinished is not None and action is Action.RESUME else 1
    return Plan(action, reason, target, tuple(chosen), champion, attempt, tuple(warnings), decide_only)


def _unfinished(runs: Sequence[Run], target: Entry, champion: Manifest | None) -> Run | None:
    """The last run on the target, where it did not come to a verdict."""
    own = [run for run in runs if (run.span, run.version) == target.key]
    # A run may have been killed after its version had gone live; the next one's recovery writes that down.
    if not own or (champion is not None and own[-1].id == champion.run):
        return None
    # The target itself was accepted, so it was the rest of the window that was too small then; plan again.
    starved = own[-1].result is Result.DATA_REJECTED and target.state is SpanState.ACCEPTED
    return own[-1] if starved or not own[-1].result.finished else None


def _live_key(champion: Manifest | None) -> tuple[int, int]:
    """The span version that the live model rests on; before every span where nothing is live."""
    return (champion.span, champion.span_version or 0) if champion else (-(2**63), 0)


def _why_nothing(target: Entry, champion: Manifest | None, runs: Sequence[Run], is_newest: bool) -> str:
    span = f"the newest span, {target.label}," if is_newest else f"span {target.label}"
    if target.state is SpanState.REJECTED:
        return f"{span} was rejected; deliver it again, or the next one"
    if champion is not None and target.key == _live_key(champion):
        return f"the live version {champion.version} already rests on {span.rstrip(',')}"
    if champion is not None and target.key < _live_key(champion):
        live = f"the live version {champion.version} rests on a newer span"
        return live + (" than any that is there" if is_newest else f" than {target.label}")
    if any((run.span, run.version) == target.key and run.result is Result.PUBLISHED for run in runs):
        return f"the model of {span} was published and is not live any more"
    return f"{span} is decided and its model was not published"


def _window(spans: Sequence[Entry], target: Entry, size: int) -> list[Entry]:
    """The last `size` spans up to the target."""
    until = [entry for entry in spans if entry.span <= target.span]
    return until[-size:]


def plan_run(
    config: Config, store: Store, asked: str | None = None, due: str | None = None, decide_only: bool = False
) -> Plan:
    """Plans the next retraining from the data directory, ML Metadata and the base path.

    Args:
      config: the project's configuration.
      store: its metadata store.
      asked: the span that the user named, as people write it.
      due: the span of a scheduled run, likewise.
      decide_only: see `make`.

    Returns:
      The plan.

    Raises:
      ConfigError: the data directory or the pattern is wrong.
      SpanError: no complete span, or not the one that was asked for.
      DataRejected: too few spans.
    """
    found = span_files.discover(config.data)
    named = asked if asked is not None else due
    number = None
    if named is not None:
        number = Pattern(config.data.pattern).parse(named)
        span_files.require(found, number, named)
    complete = newest_versions(found)
    if not complete:
        raise SpanError(
            "there is no complete span",
            "; ".join(f"span {s.label}: {s.reason}" for s in found[-3:]),
            "deliver a span with its marker, or change `data.success_marker`",
        )
    target = complete[-1].span if number is None else number
    # Gate 1's decisions on other spans, and the contents of their files, do not matter here.
    near = [span for span in complete if span.span <= target][-config.data.window :]
    near += complete[-1:] if near[-1] is not complete[-1] else []
    records = store.span_records({span.span for span in near})
    known = entries(near, records, lambda span: span_files.content_digest(config.data, span))
    champion = catalog.live_manifest(config.publish.base_path)
    planned = make(
        known,
        runs_to_read(store, next(entry for entry in known if entry.span == target)),
        champion,
        window=config.data.window,
        min_window=config.data.min_window,
        asked=number if asked is not None else None,
        due=number if asked is None else None,
        decide_only=decide_only,
    )
    newest = complete[-1].span
    waiting = [f"span {s.label} is not complete yet: {s.reason}" for s in found if not s.complete and s.span > newest]
    hold = read_hold(config.publish.base_path)
    if hold is not None and planned.action is not Action.NOTHING:
        waiting.append(f"publishing is held, nothing will be published before `evergreen release`: {hold.reason}")
    return dataclasses.replace(planned, warnings=(*planned.warnings, *waiting))


def runs_to_read(store: Store, target: Entry) -> list[Run]:
    """Reads the runs that a plan rests on, newest first, and not those before.

    A span version that is decided has no run of its own from before the one that decided it. One that is pending has at
    most runs that came to no verdict, and what matters of these is whether the last one was cut off: behind the newest
    run that came to a verdict on something else nobody goes on with them.

    Args:
      store: the project's metadata store.
      target: the span version of the plan.

    Returns:
      The runs, oldest first.
    """

    def is_last(run: Run) -> bool:
        if run.span is None or run.result is Result.ROLLED_BACK:  # another tool's, or a rollback: beside the others
            return False
        if target.state is not SpanState.PENDING:
            return run.started <= target.decided
        return run.result.finished or run.result is Result.DECIDED

    count = _FIRST_RUNS
    while True:
        runs = store.newest_runs(count)
        end = next((index for index, run in enumerate(runs) if is_last(run)), None)
        if end is not None or len(runs) < count:
            return runs[: None if end is None else end + 1][::-1]
        count *= 4
