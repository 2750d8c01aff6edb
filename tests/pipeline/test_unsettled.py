"""What a dead process left as running is found, whatever lies between, and what is settled is not read again."""

from __future__ import annotations

import pytest
from ml_metadata.proto import metadata_store_pb2 as pb
from web_world import lineage_store

from evergreen.pipeline.connection import parse
from evergreen.pipeline.store import Result, Store
from evergreen.pipeline.unsettled import runs_and_executions


@pytest.fixture
def store(tmp_path) -> Store:
    path = tmp_path / "metadata.db"
    lineage_store().Writer(path).write(12)
    return Store(parse("sqlite", path), "many")


def register(store: Store, run: str, state: int, pipeline: str = "many", trigger: str = "manual") -> int:
    """Registers a run of one execution, and returns the execution's id."""
    other = Store(store._connection, pipeline)
    other.begin_run(run, {"trigger": trigger} if trigger else {})
    mlmd = store.mlmd
    context = mlmd.get_context_by_type_and_name("pipeline_run", run)
    node_type = mlmd.put_context_type(pb.ContextType(name="node"))
    node = mlmd.get_context_by_type_and_name("node", f"{pipeline}.Trainer")
    if node is None:
        node = pb.Context(type_id=node_type, name=f"{pipeline}.Trainer")
    kind = mlmd.put_execution_type(pb.ExecutionType(name="Training"))
    execution = pb.Execution(type_id=kind, last_known_state=state)
    return mlmd.put_execution(execution, [], [context, node])[0]


def test_a_store_at_rest_has_its_newest_run_to_look_at_and_nothing_running(store):
    runs, executions = runs_and_executions(store)
    assert [run.id for run in runs] == ["20200101T000011-1"] and executions == []


def test_the_run_that_was_cut_off_is_found_behind_rollbacks_and_other_tools_runs(store):
    dead = register(store, "cut-off", pb.Execution.RUNNING)
    for number in range(9):
        register(store, f"rollback-{number}", pb.Execution.COMPLETE, trigger="rollback")
        register(store, f"stock-{number}", pb.Execution.COMPLETE, trigger="")
    runs, executions = runs_and_executions(store)
    assert [execution.id for execution in executions] == [dead]
    assert runs[-1].id == "cut-off" and runs[-1].result is Result.RUNNING and len(runs) == 19


def test_a_rollback_and_a_stock_run_that_were_cut_off_are_found(store):
    dead = [
        register(store, "stock", pb.Execution.RUNNING, trigger=""),
        register(store, "rollback", pb.Execution.RUNNING, trigger="rollback"),
    ]
    _, executions = runs_and_executions(store)
    assert sorted(execution.id for execution in executions) == dead


def test_a_run_that_died_before_its_first_stage_hides_none_before_it(store):
    dead = register(store, "cut-off", pb.Execution.RUNNING)
    store.begin_run("died-at-once", {"trigger": "manual"})
    runs, executions = runs_and_executions(store)
    assert [run.id for run in runs] == ["died-at-once", "cut-off"]
    assert [execution.id for execution in executions] == [dead]


def test_another_pipeline_s_stages_are_its_own(store):
    register(store, "theirs", pb.Execution.RUNNING, pipeline="other")
    assert runs_and_executions(store)[1] == []


def test_a_store_that_does_not_exist_holds_nothing(tmp_path):
    assert runs_and_executions(Store(parse("sqlite", tmp_path / "none.db"), "many")) == ([], [])
