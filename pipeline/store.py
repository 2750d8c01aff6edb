"""Reading ML Metadata for the commands: span decisions, runs with their stages, and what was published.

Writes only the context of a run (`begin_run`, `end_run`) and the repair of what a dead process left (`recovery`
decides, this module does). ml_metadata alone is imported, which takes a fifth of a second; no tfx, no TensorFlow.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from evergreen.components import span_records
from evergreen.pipeline.store_connection import open_store

RUN_TYPE = "pipeline_run"
NODE_TYPE = "node"


class Result(str, Enum):
    """How a run ended."""

    RUNNING = "running"
    PUBLISHED = "published"
    UNCHANGED = "unchanged"
    DECIDED = "decided"
    DATA_REJECTED = "data rejected"
    MODEL_REJECTED = "model rejected"
    WITHDRAWN = "withdrawn"
    ROLLED_BACK = "rolled back"
    FAILED = "failed"
    KILLED = "killed"

    @property
    def finished(self) -> bool:
        """Whether the span needs no further run: it was published or refused with a verdict.

        A span that was only decided passed gate 1 and was not trained on.
        """
        return self not in (Result.RUNNING, Result.FAILED, Result.KILLED, Result.DECIDED)


class State(str, Enum):
    """How a stage of a run stands."""

    RUNNING = "running"
    DONE = "done"
    CACHED = "cached"
    FAILED = "failed"


@dataclass(frozen=True)
class Stage:
    """One execution of one node.

    Attributes:
      node: the node's id, such as `Trainer`.
      state: how it stands.
      execution_id: its id in ML Metadata.
      seconds: from registration to the last change.
      started: milliseconds since 1970, UTC.
    """

    node: str
    state: State
    execution_id: int
    seconds: float
    started: int


@dataclass(frozen=True)
class Run:
    """One retraining.

    Attributes:
      id: the run's id, which starts with its time.
      span: newest span of the run, None where another tool made the run.
      version: that span's version.
      label: the span as the user writes it.
      result: how it ended.
      reason: why, in one sentence; empty where it published.
      trigger: what started it: `manual`, `rollback`, or what the schedule has (`schedule.state.Job`).
      attempt: 1, or more where it goes on with a run that was cut off.
      started: milliseconds since 1970, UTC.
      ended: the same, 0 while it runs.
      pushed_version: what it published, 0 where nothing.
      properties: everything that the run's context holds.
      stages: its executions in the order in which they were registered.
    """

    id: str
    span: int | None
    version: int | None
    label: str
    result: Result
    reason: str
    trigger: str
    attempt: int
    started: int
    ended: int
    pushed_version: int
    properties: Mapping[str, Any] = field(default_factory=dict)
    stages: tuple[Stage, ...] = ()

    @property
    def seconds(self) -> float:
        """Wall-clock seconds, up to now while it runs."""
        return ((self.ended or int(time.time() * 1000)) - self.started) / 1000


class Store:
    """A workspace's ML Metadata store; a store that does not exist yet reads as empty.

    Args:
      connection: what `Config.connection` gives: an `ml_metadata` ConnectionConfig is made from it when first needed.
      pipeline: the pipeline's name.
    """

    def __init__(self, connection: Any, pipeline: str):
        self._connection = connection
        self.pipeline = pipeline
        self._store: Any = None

    @property
    def kind(self) -> str:
        """The connection's: `sqlite`, `mysql` or `postgresql`."""
        return str(self._connection.kind)

    @property
    def exists(self) -> bool:
        """Whether there is anything to read."""
        return self._connection.kind != "sqlite" or Path(self._connection.path).exists()

    @property
    def mlmd(self) -> Any:
        """The `ml_metadata.MetadataStore`, connected on first use (which creates a SQLite file)."""
        if self._store is None:
            self._store = open_store(self._connection)
        return self._store

    def reopen(self) -> None:
        """Connects anew on the next use: ML Metadata's PostgreSQL client stays with a connection that broke."""
        self._store = None

    def span_records(self, spans: Collection[int] | None = None) -> list[span_records.SpanRecord]:
        """Lists gate 1's decisions, oldest first.

        Args:
          spans: only of these spans; all by default.
        """
        return span_records.span_records(self.mlmd, spans) if self.exists else []

    def runs(self, stages: bool = False) -> list[Run]:
        """Lists the runs, oldest first.

        Args:
          stages: also read each run's executions.
        """
        if not self.exists:
            return []
        contexts = [c for c in self.mlmd.get_contexts_by_type(RUN_TYPE) if self._own(c)]
        nodes = self._nodes() if stages else {}
        runs = [self._run(context, self._stages(context.id, nodes) if stages else ()) for context in contexts]
        return sorted(runs, key=lambda run: (run.started, run.id))

    def newest_runs(self, count: int, skip: int = 0, stages: bool = False) -> list[Run]:
        """Lists the newest runs, newest first, without reading all the others.

        Args:
          count: how many.
          skip: how many newer ones to pass over.
          stages: also read each run's executions.
        """
        if not self.exists:
            return []
        from ml_metadata import ListOptions, OrderByField

        wanted, limit = count + skip, count + skip
        while True:
            options = ListOptions(limit=limit, order_by=OrderByField.CREATE_TIME, is_asc=False)
            contexts = self.mlmd.get_contexts(options)
            own = [context for context in contexts if context.type == RUN_TYPE and self._own(context)]
            if len(own) >= wanted or len(contexts) < limit:
                return [self._run(context, self._stages(context.id) if stages else ()) for context in own[skip:wanted]]
            limit *= 2  # contexts of nodes, of the cache and of other pipelines lie between them

    def begin_run(self, run_id: str, properties: Mapping[str, str | int]) -> None:
        """Registers the run's context before its first node does, so that a run that dies at once is seen too.

        Args:
          run_id: the id, which TFX uses as the context's name.
          properties: custom properties.
        """
        self._put(run_id, {**properties, "pipeline": self.pipeline, "result": Result.RUNNING.value, "started": _now()})

    def end_run(self, run_id: str, result: Result, properties: Mapping[str, str | int]) -> None:
        """Writes how the run ended.

        Args:
          run_id: the run.
          result: how it ended.
          properties: more custom properties.
        """
        self._put(run_id, {**properties, "result": result.value, "ended": _now()})

    def running_executions(self) -> list[tuple[Any, str]]:
        """Lists executions still marked RUNNING, with their node's id."""
        if not self.exists:
            return []
        from ml_metadata.proto import metadata_store_pb2 as pb

        found: dict[int, tuple[Any, str]] = {}
        for context in self.mlmd.get_contexts_by_type(NODE_TYPE):
            if not context.name.startswith(self.pipeline + "."):
                continue
            for execution in self.mlmd.get_executions_by_context(context.id):
                if execution.last_known_state in (pb.Execution.RUNNING, pb.Execution.NEW):
                    found[execution.id] = (execution, context.name[len(self.pipeline) + 1 :])
        return list(found.values())

    def mark_failed(self, executions: list[Any]) -> None:
        """Marks executions as FAILED.

        Args:
          executions: the protos.
        """
        from ml_metadata.proto import metadata_store_pb2 as pb

        for execution in executions:
            execution.last_known_state = pb.Execution.FAILED
        if executions:
            self.mlmd.put_executions(executions)

    def execution_state(self, execution_id: int) -> State:
        """Returns how an execution stands."""
        return _STATES.get(self.mlmd.get_executions_by_id([execution_id])[0].last_known_state, State.FAILED)

    def node_of(self, execution_id: int) -> str | None:
        """Returns the id of an execution's node; None where it belongs to another pipeline."""
        prefix = self.pipeline + "."
        contexts = self.mlmd.get_contexts_by_execution(execution_id)
        own = (c.name[len(prefix) :] for c in contexts if c.type == NODE_TYPE and c.name.startswith(prefix))
        return next(own, None)

    def inputs(self, execution_id: int) -> dict[str, list[Any]]:
        """Returns an execution's input artifacts (protos) by key, in their order."""
        return self._artifacts(execution_id, _INPUT_EVENTS)

    def outputs(self, execution_id: int) -> dict[str, list[Any]]:
        """Returns an execution's output artifacts (protos) by key, in their order."""
        return self._artifacts(execution_id, _OUTPUT_EVENTS)

    def artifact(self, artifact_id: int) -> Any | None:
        """Returns the proto of an artifact, or None where there is none with this id."""
        found = self.mlmd.get_artifacts_by_id([artifact_id]) if self.exists else []
        return found[0] if found else None

    def _artifacts(self, execution_id: int, kinds: tuple[int, ...]) -> dict[str, list[Any]]:
        events = [e for e in self.mlmd.get_events_by_execution_ids([execution_id]) if e.type in kinds]
        protos = {a.id: a for a in self.mlmd.get_artifacts_by_id([e.artifact_id for e in events])}
        found: dict[str, list[Any]] = {}
        for event in events:
            found.setdefault(event.path.steps[0].key, []).append(protos[event.artifact_id])
        return found

    def _own(self, context: Any) -> bool:
        return span_records.property_value(context, "pipeline", self.pipeline) == self.pipeline

    def _put(self, run_id: str, properties: Mapping[str, str | int]) -> None:
        from ml_metadata.proto import metadata_store_pb2 as pb

        context = self.mlmd.get_context_by_type_and_name(RUN_TYPE, run_id)
        if context is None:
            kind = pb.ContextType(name=RUN_TYPE)
            context = pb.Context(type_id=self.mlmd.put_context_type(kind, can_add_fields=True), name=run_id)
        for name, value in properties.items():
            if isinstance(value, int) and abs(value) < _INT_LIMIT:
                context.custom_properties[name].int_value = value
            elif isinstance(value, int):
                context.custom_properties[name].double_value = value
            else:
                context.custom_properties[name].string_value = value
        self.mlmd.put_contexts([context])

    def _nodes(self) -> dict[int, str]:
        """Maps execution ids to node ids."""
        prefix = self.pipeline + "."
        return {
            execution.id: context.name[len(prefix) :]
            for context in self.mlmd.get_contexts_by_type(NODE_TYPE)
            if context.name.startswith(prefix)
            for execution in self.mlmd.get_executions_by_context(context.id)
        }

    def _stages(self, context_id: int, known: Mapping[int, str | None] | None = None) -> tuple[Stage, ...]:
        executions = sorted(self.mlmd.get_executions_by_context(context_id), key=lambda execution: execution.id)
        nodes = known if known is not None else {e.id: self.node_of(e.id) for e in executions}
        return tuple(
            Stage(
                node=nodes.get(execution.id) or "?",
                state=_STATES.get(execution.last_known_state, State.FAILED),
                execution_id=execution.id,
                seconds=(execution.last_update_time_since_epoch - execution.create_time_since_epoch) / 1000,
                started=execution.create_time_since_epoch,
            )
            for execution in executions
        )

    def _run(self, context: Any, stages: tuple[Stage, ...]) -> Run:
        values = span_records.properties(context)
        known = {result.value for result in Result}
        return Run(
            id=context.name,
            span=values.get("span"),
            version=values.get("span_version"),
            label=str(values.get("span_label", values.get("span", ""))),
            result=Result(values["result"]) if values.get("result") in known else Result.FAILED,
            reason=str(values.get("reason", "")),
            trigger=str(values.get("trigger", "")),
            attempt=int(values.get("attempt", 1)),
            started=int(values.get("started", context.create_time_since_epoch)),
            ended=int(values.get("ended", 0)),
            pushed_version=int(values.get("pushed_version", 0) or 0),
            properties=values,
            stages=stages,
        )


# MLMD's tables on MySQL and PostgreSQL keep integers in 32 bits; milliseconds since 1970 go in as doubles, which hold
# whole numbers up to 2**53.
_INT_LIMIT = 2**31
# metadata_store_pb2.Event.Type: DECLARED_OUTPUT, OUTPUT, INTERNAL_OUTPUT (what a resolver gives).
_OUTPUT_EVENTS = (1, 4, 6)
_INPUT_EVENTS = (2, 3, 5)  # DECLARED_INPUT, INPUT, INTERNAL_INPUT
# metadata_store_pb2.Execution.State; the numbers are part of ML Metadata's stored format.
_STATES = {1: State.RUNNING, 2: State.RUNNING, 3: State.DONE, 4: State.FAILED, 5: State.CACHED, 6: State.FAILED}


def to_json(run: Run) -> dict[str, Any]:
    """Returns a run as plain values for `--json`."""
    return {
        "id": run.id,
        "span": run.span,
        "span_version": run.version,
        "label": run.label,
        "result": run.result.value,
        "reason": run.reason,
        "trigger": run.trigger,
        "attempt": run.attempt,
        "started": run.started,
        "ended": run.ended or None,
        "seconds": round(run.seconds, 3),
        "pushed_version": run.pushed_version or None,
        "stages": [
            {"node": s.node, "state": s.state.value, "execution": s.execution_id, "seconds": round(s.seconds, 3)}
            for s in run.stages
        ],
        "metrics": json.loads(run.properties.get("metrics", "null")),
    }


def _now() -> int:
    return int(time.time() * 1000)
