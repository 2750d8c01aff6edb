"""TFX's look-ups give what they gave, and ask ML Metadata for less."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from web_world import lineage_store

pytestmark = pytest.mark.tensorflow
RUNS = 30


class Counted:
    """A store that counts the protos that it gives."""

    def __init__(self, store: Any):
        self.store = store
        self.given: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.store, name)

        def ask(*arguments: Any, **options: Any) -> Any:
            found = method(*arguments, **options)
            self.given[name] += len(found) if isinstance(found, list) else 1
            return found

        return ask


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Any:
    writer = lineage_store().Writer(tmp_path_factory.mktemp("store") / "metadata.db")
    writer.write(RUNS)
    return writer.store


@pytest.fixture
def store(written) -> Counted:
    return Counted(written)


def contexts(store: Any, **names: str) -> list[Any]:
    return [store.get_context_by_type_and_name(kind, name) for kind, name in names.items()]


def test_a_node_of_a_run_is_found_among_that_run_s_executions(store, written):
    from evergreen.pipeline import short_lookups

    for number in (3, RUNS - 1):
        asked = contexts(written, pipeline="many", pipeline_run=f"20200101T{number:06d}-1", node="many.Trainer")
        (found,) = short_lookups.executions_of_all(store, asked)
        assert found in short_lookups._stock_executions(written, asked)
    assert store.given["get_executions_by_context"] < 30
    asked = contexts(written, pipeline="many", node="many.Trainer")
    assert len(short_lookups.executions_of_all(store, asked)) == RUNS


@pytest.mark.parametrize("gone", [0, 1, 12, RUNS])
def test_the_newest_result_whose_files_are_there_answers(store, written, tmp_path, gone):
    from ml_metadata.proto import metadata_store_pb2 as pb

    from evergreen.pipeline import short_lookups

    class Handle:
        def __init__(self, store: Any):
            self.store = store

    node = written.get_context_by_type_and_name("node", "many.StatisticsGen")
    executions = sorted(execution.id for execution in written.get_executions_by_context(node.id))
    kind = written.put_context_type(pb.ContextType(name="execution_cache"))
    (key,) = written.put_contexts([pb.Context(type_id=kind, name=f"key-{gone}")])
    written.put_attributions_and_associations(
        [], [pb.Association(execution_id=execution, context_id=key) for execution in executions]
    )
    events = [e for e in written.get_events_by_execution_ids(executions) if e.type == pb.Event.OUTPUT]
    artifacts = written.get_artifacts_by_id(
        [event.artifact_id for event in sorted(events, key=lambda e: e.execution_id)]
    )
    for index, artifact in enumerate(sorted(artifacts, key=lambda a: a.id)):
        artifact.uri = str(tmp_path) if index < RUNS - gone else "/nowhere"
    written.put_artifacts(artifacts)
    context = written.get_context_by_type_and_name("execution_cache", f"key-{gone}")
    found = short_lookups.cached_outputs(Handle(store), context)
    expected = short_lookups._stock_cached_outputs(Handle(written), context)
    if gone == RUNS:
        assert found is None and expected is None
    else:
        assert found is not None and expected is not None
        assert [a.id for a in found["statistics"]] == [a.id for a in expected["statistics"]]
    if gone < 4:
        assert store.given["get_executions_by_context"] == 4
