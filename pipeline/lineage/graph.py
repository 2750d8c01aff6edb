"""Walking ML Metadata's events in batches: one query for many artifacts, never one for each.

MLMD on TFX 1.21 has neither `filter_query` nor `get_lineage_subgraph`, so the walk is ours on both stacks. A node that
TFX answered from its cache, or a resolver, lists an artifact among its outputs too; the maker is the first one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from evergreen.components.span_records import INPUT_EVENTS, OUTPUT_EVENTS
from evergreen.pipeline.store import RUN_TYPE, Store


@dataclass(frozen=True)
class Edge:
    """One event: an artifact that went into an execution, or came out of it.

    Attributes:
      execution_id: the execution.
      artifact_id: the artifact.
      key: the channel's name, such as `examples`; TFX puts conditions in under names with a leading underscore.
    """

    execution_id: int
    artifact_id: int
    key: str


class Graph:
    """Executions and artifacts of a store, read when they are asked for and kept.

    Args:
      store: the project's metadata store.
    """

    def __init__(self, store: Store):
        self._store = store
        self._artifacts: dict[int, Any] = {}
        self._executions: dict[int, Any] = {}
        self._inputs: dict[int, list[Edge]] = {}
        self._outputs: dict[int, list[Edge]] = {}
        self._producer: dict[int, int | None] = {}
        self._consumers: dict[int, list[Edge]] = {}

    @cached_property
    def _artifact_types(self) -> dict[int, str]:
        return {kind.id: kind.name for kind in self._store.mlmd.get_artifact_types()}

    @cached_property
    def _execution_types(self) -> dict[int, str]:
        return {kind.id: kind.name.rpartition(".")[2] for kind in self._store.mlmd.get_execution_types()}

    def artifacts(self, ids: Iterable[int]) -> list[Any]:
        """Returns artifact protos in the order of their ids; those that are not there are left out."""
        wanted = sorted(set(ids))
        missing = [i for i in wanted if i not in self._artifacts]
        if missing:
            self._artifacts.update({a.id: a for a in self._store.mlmd.get_artifacts_by_id(missing)})
        return [self._artifacts[i] for i in wanted if i in self._artifacts]

    def executions(self, ids: Iterable[int]) -> list[Any]:
        """Returns execution protos in the order of their ids; those that are not there are left out."""
        wanted = sorted(set(ids))
        missing = [i for i in wanted if i not in self._executions]
        if missing:
            self._executions.update({e.id: e for e in self._store.mlmd.get_executions_by_id(missing)})
        return [self._executions[i] for i in wanted if i in self._executions]

    def artifact_type(self, artifact: Any) -> str:
        """Returns an artifact's type, such as `Examples`."""
        return self._artifact_types.get(artifact.type_id, "?")

    def kind(self, execution: Any) -> str:
        """Returns the class of the component that an execution ran, such as `Trainer`."""
        return self._execution_types.get(execution.type_id, "?")

    def inputs(self, execution_ids: Iterable[int]) -> list[Edge]:
        """Returns what went into these executions, conditions left out."""
        wanted = sorted(set(execution_ids))
        self._read_executions(wanted)
        return [edge for i in wanted for edge in self._inputs[i] if not edge.key.startswith("_")]

    def outputs(self, execution_ids: Iterable[int]) -> list[Edge]:
        """Returns what came out of these executions."""
        wanted = sorted(set(execution_ids))
        self._read_executions(wanted)
        return [edge for i in wanted for edge in self._outputs[i]]

    def producers(self, artifact_ids: Iterable[int]) -> dict[int, int]:
        """Maps artifacts to the executions that made them; an artifact that nothing made is left out."""
        wanted = sorted(set(artifact_ids))
        self._read_artifacts(wanted)
        return {i: maker for i in wanted if (maker := self._producer[i]) is not None}

    def consumers(self, artifact_ids: Iterable[int]) -> list[Edge]:
        """Returns where these artifacts went in, conditions left out."""
        wanted = sorted(set(artifact_ids))
        self._read_artifacts(wanted)
        return [edge for i in wanted for edge in self._consumers[i] if not edge.key.startswith("_")]

    def behind(self, execution_ids: Iterable[int], skip: Collection[str] = ()) -> list[int]:
        """Walks up: these executions and every one that made something for them.

        Args:
          execution_ids: where to begin.
          skip: input keys that are not followed, such as `champion`, which is history and not an ingredient.

        Returns:
          Execution ids in ascending order.
        """
        seen: set[int] = set()
        frontier = set(execution_ids)
        while frontier:
            seen |= frontier
            needed = {edge.artifact_id for edge in self.inputs(frontier) if edge.key not in skip}
            frontier = set(self.producers(needed).values()) - seen
        return sorted(seen)

    def run_of(self, execution_id: int) -> str | None:
        """Returns the id of the run in which an execution ran."""
        runs = [c.name for c in self._store.mlmd.get_contexts_by_execution(execution_id) if c.type == RUN_TYPE]
        return runs[0] if runs else None

    def _read_executions(self, ids: Collection[int]) -> None:
        missing = [i for i in ids if i not in self._inputs]
        if not missing:
            return
        found_in: dict[int, list[Edge]] = {i: [] for i in missing}
        found_out: dict[int, list[Edge]] = {i: [] for i in missing}
        for event in self._store.mlmd.get_events_by_execution_ids(missing):
            if event.type in INPUT_EVENTS:
                found_in[event.execution_id].append(_edge(event))
            elif event.type in OUTPUT_EVENTS:
                found_out[event.execution_id].append(_edge(event))
        self._inputs.update(found_in)
        self._outputs.update(found_out)

    def _read_artifacts(self, ids: Collection[int]) -> None:
        missing = [i for i in ids if i not in self._producer]
        if not missing:
            return
        made: dict[int, int] = {}
        used: dict[int, list[Edge]] = defaultdict(list)
        for event in self._store.mlmd.get_events_by_artifact_ids(missing):
            if event.type in OUTPUT_EVENTS:
                made[event.artifact_id] = min(event.execution_id, made.get(event.artifact_id, event.execution_id))
            elif event.type in INPUT_EVENTS:
                used[event.artifact_id].append(_edge(event))
        self._producer.update({i: made.get(i) for i in missing})
        self._consumers.update({i: used[i] for i in missing})


def _edge(event: Any) -> Edge:
    steps = event.path.steps
    return Edge(event.execution_id, event.artifact_id, steps[0].key if steps else "")
