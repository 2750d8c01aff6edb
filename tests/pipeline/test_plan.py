"""What `plan` decides: the target, the window, resuming, and what it refuses."""

from __future__ import annotations

import dataclasses

import pytest

from evergreen.components.errors import DataRejected
from evergreen.components.pusher.manifest import Manifest
from evergreen.components.span_records import SpanRecord
from evergreen.pipeline.connection import parse
from evergreen.pipeline.plan import Action, Entry, SpanState, entries, make, runs_to_read
from evergreen.pipeline.spans import SpanVersion
from evergreen.pipeline.store import Result, Run, Store


def entry(span: int, state: SpanState = SpanState.PENDING, version: int = 0) -> Entry:
    return Entry(span, version, str(span), (f"{span}/a.parquet",), f"c{span}.q{span}", state)


def manifest(span: int, version: int = 1000) -> Manifest:
    return Manifest(version, "m", "2024-01-01T00:00:00Z", "run", span, 7, "/models/7", 10, span_version=0)


def run(span: int, result: Result, attempt: int = 1, started: int = 1) -> Run:
    return Run(f"r{span}-{started}", span, 0, str(span), result, "", "manual", attempt, started, 0, 0)


def record(span: int, accepted: bool = True, version: int = 0, digest: str | None = None, anomalies_id: int = 1):
    return SpanRecord(span, version, accepted, 100, (), digest or f"c{span}.q{span}", 1, 2, anomalies_id, 3)


def found(span: int, quick: str, version: int | None = None, complete: bool = True) -> SpanVersion:
    return SpanVersion(
        span=span,
        version=version,
        label=str(span),
        files=(f"{span}/a.parquet",),
        complete=complete,
        reason="" if complete else "no _SUCCESS",
        quick_digest=quick,
        bytes=1,
    )


def plan(spans, runs=(), champion=None, window=3, min_window=2, **named):
    return make(spans, runs, champion, window=window, min_window=min_window, **named)


def test_a_first_run_takes_the_newest_span_and_decides_the_older_ones_of_the_window():
    planned = plan([entry(n) for n in (1, 2, 3, 4)])
    assert planned.action is Action.TRAIN
    assert [e.span for e in planned.window] == [2, 3, 4]
    assert [e.span for e in planned.ingest] == [2, 3]
    assert planned.target is not None and planned.target.span == 4


def test_decided_spans_are_not_decided_again():
    spans = [entry(1, SpanState.ACCEPTED), entry(2, SpanState.ACCEPTED), entry(3)]
    assert plan(spans, champion=manifest(2)).ingest == ()


def test_nothing_to_do_where_the_live_model_rests_on_the_newest_span():
    planned = plan(
        [entry(1, SpanState.ACCEPTED), entry(2, SpanState.ACCEPTED)], [run(2, Result.PUBLISHED)], manifest(2)
    )
    assert planned.action is Action.NOTHING
    assert "1000" in planned.reason


def test_a_rejected_span_is_left_out_with_a_warning_and_not_replaced_by_an_older_one():
    spans = [entry(1, SpanState.ACCEPTED), entry(2, SpanState.ACCEPTED), entry(3, SpanState.REJECTED), entry(4)]
    planned = plan(spans)
    assert [e.span for e in planned.window] == [2, 3, 4]
    assert any("span 3 was rejected" in warning for warning in planned.warnings)


def test_too_few_spans_are_refused_with_exit_status_3():
    with pytest.raises(DataRejected) as refused:
        plan([entry(1, SpanState.REJECTED), entry(2)])
    assert refused.value.exit_status == 3
    assert "min_window" in refused.value.headline


def test_a_late_older_span_starts_no_run_of_its_own():
    spans = [entry(1, SpanState.ACCEPTED), entry(2), entry(3, SpanState.ACCEPTED)]
    planned = plan(spans, [run(3, Result.PUBLISHED)], manifest(3))
    assert planned.action is Action.NOTHING
    # It is decided when the next span comes.
    later = plan([*spans, entry(4)], [run(3, Result.PUBLISHED)], manifest(3))
    assert [e.span for e in later.ingest] == [2]


@pytest.mark.parametrize("result", [Result.KILLED, Result.FAILED])
def test_a_run_that_was_cut_off_is_taken_up_again(result):
    spans = [entry(1, SpanState.ACCEPTED), entry(2, SpanState.ACCEPTED)]
    planned = plan(spans, [run(2, result, attempt=2)], manifest(1))
    assert planned.action is Action.RESUME
    assert planned.attempt == 3


def test_a_window_that_was_too_small_is_tried_again():
    spans = [entry(1), entry(2, SpanState.ACCEPTED)]
    assert plan(spans, [run(2, Result.DATA_REJECTED)]).action is Action.RESUME


def test_a_refused_model_is_not_trained_again():
    spans = [entry(1, SpanState.ACCEPTED), entry(2, SpanState.ACCEPTED)]
    assert plan(spans, [run(2, Result.MODEL_REJECTED)], manifest(1)).action is Action.NOTHING


def test_a_newer_span_goes_before_a_run_that_was_cut_off():
    spans = [entry(1, SpanState.ACCEPTED), entry(2, SpanState.ACCEPTED), entry(3)]
    planned = plan(spans, [run(2, Result.KILLED)], manifest(1))
    assert planned.action is Action.TRAIN
    assert planned.target is not None and planned.target.span == 3


@pytest.mark.parametrize("result", [Result.RUNNING, Result.KILLED])
def test_a_run_that_died_after_it_had_published_is_not_taken_up(result):
    spans = [entry(1, SpanState.ACCEPTED), entry(2, SpanState.ACCEPTED)]
    dead = run(2, result)
    live = dataclasses.replace(manifest(2), run=dead.id)
    assert plan(spans, [dead], live).action is Action.NOTHING
    assert plan(spans, [dead], manifest(1)).action is Action.RESUME


def test_a_named_span_is_taken_and_its_window_ends_with_it():
    spans = [entry(n, SpanState.ACCEPTED) for n in (1, 2, 3)]
    planned = plan(spans, champion=manifest(3), asked=2)
    assert planned.action is Action.TRAIN
    assert [e.span for e in planned.window] == [1, 2]


def test_an_unchanged_span_is_known_without_reading_its_contents():
    def never(_):
        raise AssertionError("the contents were read")

    (known,) = entries([found(1, "q1")], [record(1)], never)
    assert known.state is SpanState.ACCEPTED
    assert known.rows == 100


def test_touched_files_with_the_same_contents_are_the_same_version():
    (known,) = entries([found(1, "touched")], [record(1)], lambda _: "c1")
    assert (known.version, known.state, known.digest) == (0, SpanState.ACCEPTED, "c1.q1")


def test_a_rejected_span_that_is_delivered_again_is_a_new_version():
    (known,) = entries([found(1, "other")], [record(1, accepted=False)], lambda _: "new")
    assert (known.version, known.state) == (1, SpanState.PENDING)


def test_the_newest_version_of_a_pattern_with_versions_is_taken():
    first, second = found(1, "a", version=0), found(1, "b", version=1)
    (known,) = entries([first, second], [record(1, digest="c1.a")], lambda span: f"c-{span.version}")
    assert (known.version, known.state) == (1, SpanState.PENDING)


def test_an_incomplete_span_does_not_exist_yet():
    assert entries([found(1, "a", complete=False)], [], lambda _: "c") == []


class TestScheduled:
    """The span of a scheduled run is trained on like the newest one, once, though newer ones lie there."""

    SPANS = (entry(1, SpanState.ACCEPTED), entry(2), entry(3))

    def test_it_is_the_target_and_newer_ones_stay_out_of_the_window(self):
        planned = plan(self.SPANS, champion=manifest(1), due=2)
        assert (planned.action, planned.target.span) == (Action.TRAIN, 2)
        assert [e.span for e in planned.window] == [1, 2]

    def test_it_is_not_trained_on_twice(self):
        spans = (entry(1, SpanState.ACCEPTED), entry(2, SpanState.ACCEPTED), entry(3))
        assert plan(spans, [run(2, Result.PUBLISHED)], manifest(2), due=2).action is Action.NOTHING
        planned = plan(spans, [run(2, Result.MODEL_REJECTED)], manifest(1), due=2)
        assert planned.action is Action.NOTHING
        assert "span 2 is decided and its model was not published" in planned.reason

    def test_a_model_that_was_rolled_back_is_not_called_unpublished(self):
        spans = (entry(1, SpanState.ACCEPTED), entry(2, SpanState.ACCEPTED))
        planned = plan(spans, [run(1, Result.PUBLISHED), run(2, Result.PUBLISHED)], manifest(1))
        assert planned.action is Action.NOTHING
        assert planned.reason == "the model of the newest span, 2, was published and is not live any more"

    def test_an_older_one_than_the_live_model_s_is_never_trained_on(self):
        planned = plan((entry(1), entry(2), entry(3, SpanState.ACCEPTED)), [], manifest(3), due=2)
        assert planned.action is Action.NOTHING
        assert "rests on a newer span than 2" in planned.reason

    def test_a_run_that_was_cut_off_goes_on(self):
        spans = (entry(1, SpanState.ACCEPTED), entry(2, SpanState.ACCEPTED), entry(3))
        planned = plan(spans, [run(2, Result.KILLED)], manifest(1), due=2)
        assert (planned.action, planned.attempt) == (Action.RESUME, 2)
        assert plan(spans, [run(2, Result.KILLED)], manifest(3), due=2).action is Action.NOTHING


class TestDecideOnly:
    def test_an_older_span_and_a_small_window_are_no_obstacle(self):
        planned = plan((entry(1), entry(2)), [], manifest(9), due=1, decide_only=True, min_window=2)
        assert (planned.action, planned.decide_only) == (Action.TRAIN, True)

    def test_what_is_decided_is_not_decided_again(self):
        spans = (entry(1, SpanState.ACCEPTED), entry(2, SpanState.ACCEPTED))
        assert plan(spans, [run(2, Result.DECIDED)], due=2, decide_only=True).action is Action.NOTHING

    def test_what_was_only_decided_is_trained_on_when_it_is_wanted(self):
        spans = (entry(1, SpanState.ACCEPTED), entry(2, SpanState.ACCEPTED))
        planned = plan(spans, [run(2, Result.DECIDED)], manifest(1))
        assert (planned.action, planned.attempt) == (Action.TRAIN, 1)
        assert "was not trained on" in planned.reason

    def test_but_not_where_a_newer_model_is_live(self):
        spans = (entry(1, SpanState.ACCEPTED), entry(2, SpanState.ACCEPTED), entry(3, SpanState.ACCEPTED))
        assert plan(spans, [run(2, Result.DECIDED)], manifest(3), due=2).action is Action.NOTHING


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(parse("sqlite", tmp_path / "metadata.db"), "many")


def write(store: Store, *runs: tuple[int | None, Result]) -> None:
    """Writes runs, a span and a result each, a second apart, the first at second 1."""
    for second, (span, result) in enumerate(runs, start=len(store.runs()) + 1):
        named = {} if span is None else {"span": span, "span_version": 0}
        store.begin_run(f"r{second:03d}", {"trigger": "manual", **named})
        store.end_run(f"r{second:03d}", result, {"started": second * 1000})


def decided(span: int, second: float) -> Entry:
    return dataclasses.replace(entry(span, SpanState.ACCEPTED), decided=int(second * 1000))


def test_of_a_new_span_only_what_was_cut_off_since_the_last_verdict_is_read(store):
    write(store, *[(n, Result.PUBLISHED) for n in range(1, 40)], (40, Result.KILLED), (None, Result.FAILED))
    write(store, (39, Result.ROLLED_BACK), (40, Result.FAILED))
    read = runs_to_read(store, entry(40))
    assert [run.span for run in read] == [39, 40, None, 39, 40]
    assert make([decided(39, 39), entry(40)], read, None, window=2, min_window=1).attempt == 2


def test_of_a_decided_span_the_runs_since_its_decision_are_read(store):
    write(store, *[(n, Result.PUBLISHED) for n in range(1, 40)])
    assert [run.span for run in runs_to_read(store, decided(39, 39.5))] == [39]
    assert [run.span for run in runs_to_read(store, decided(20, 20.5))] == [*range(20, 40)]
    write(store, (39, Result.KILLED), (39, Result.ROLLED_BACK))
    read = runs_to_read(store, decided(39, 39.5))
    assert [run.result for run in read] == [Result.PUBLISHED, Result.KILLED, Result.ROLLED_BACK]


def test_where_no_run_bounds_the_search_every_run_is_read(store):
    assert runs_to_read(store, entry(1)) == []
    write(store, *[(7, Result.FAILED)] * 20)
    assert len(runs_to_read(store, entry(7))) == 20
