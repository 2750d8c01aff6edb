"""`Lineage`: the questions that a project's ML Metadata answers."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from evergreen.components.errors import ConfigError
from evergreen.components.pusher import catalog
from evergreen.components.pusher.catalog import VersionRecord
from evergreen.components.span_records import LIVE, properties, property_value
from evergreen.pipeline.config import Config
from evergreen.pipeline.lineage.graph import Graph
from evergreen.pipeline.lineage.model import ModelReader, is_gone
from evergreen.pipeline.lineage.records import Descendant, Node, Provenance, SpanLineage, Verdict
from evergreen.pipeline.store import RUN_TYPE, Store

_ARTIFACT_STATES = {0: "unknown", 1: "pending", 2: "live", 3: "marked for deletion", 4: "deleted", 5: "abandoned"}


class Lineage:
    """Answers from ML Metadata and from the manifests in the base path; changes nothing.

    Args:
      config: the project's configuration.
      store: its metadata store, where one is open already.
    """

    def __init__(self, config: Config, store: Store | None = None):
        self.config = config
        self.store = store or Store(config.connection, config.name)
        self.graph = Graph(self.store)
        self._models = ModelReader(self.graph)

    @cached_property
    def _records(self) -> dict[int, VersionRecord]:
        return {record.version: record for record in catalog.list_versions(str(self.config.publish.base_path))}

    @cached_property
    def _published(self) -> dict[int, int]:
        """Models by version, of what the base path holds and this project published."""
        return {
            record.version: record.model_artifact_id
            for record in self._records.values()
            if record.model_artifact_id is not None and record.name == self.config.name
        }

    @cached_property
    def _live(self) -> int | None:
        return next((version for version, record in self._records.items() if record.live), None)

    def version(self, number: int | None = None) -> Provenance:
        """Says what a version was made from.

        Args:
          number: the version; the live one by default. One that retention has deleted is found in ML Metadata.

        Returns:
          Everything behind it.

        Raises:
          ConfigError: there is no such version.
        """
        if number is None:
            number = self._live
            if number is None:
                raise ConfigError(
                    "nothing is published yet",
                    f"{self.config.publish.base_path} holds no version that a server could load",
                    "`evergreen run` publishes the first; `evergreen lineage --run ID` shows a run without a version.",
                )
        record = self._records.get(number)
        push = self._push_of(number, record.run if record else None)
        model_id = record.model_artifact_id if record else None
        run = (record.run if record else None) or (self.graph.run_of(push) if push is not None else None) or ""
        if model_id is None and push is not None:
            model_id = next((e.artifact_id for e in self.graph.inputs([push]) if e.key == "model"), None)
        if record is None and push is None:
            raise self._no_version(number)
        return self._provenance(number, record, push, model_id, run)

    def run(self, run_id: str) -> Provenance:
        """Says what a run was made from and what it made.

        Args:
          run_id: the run, or the beginning of its id where no other begins so; `last` for the last one.

        Returns:
          Everything behind the model that it trained, with its version where it published one.

        Raises:
          ConfigError: there is no such run, or several.
        """
        name = self._run_name(run_id)
        context = self.store.mlmd.get_context_by_type_and_name(RUN_TYPE, name)
        executions = self.store.mlmd.get_executions_by_context(context.id)
        outputs = self.graph.outputs(execution.id for execution in executions)
        trainers = {e.id for e in executions if self.graph.kind(e) == "Trainer"}
        models = [edge.artifact_id for edge in outputs if edge.execution_id in trainers and edge.key == "model"]
        pushes = [e.id for e in executions if self.graph.kind(e) == "Pusher"]
        version = int(property_value(context, "pushed_version", 0) or 0) or None
        record = self._records.get(version) if version else None
        # A rollback trains nothing; its version's manifest names the model.
        model = models[-1] if models else record.model_artifact_id if record else None
        found = self._provenance(version, record, pushes[-1] if pushes else None, model, name)
        in_order = sorted(executions, key=lambda execution: execution.id)
        return found if found.gates else dataclasses.replace(found, gates=self._models.data_gate(in_order))

    def span(self, number: int) -> SpanLineage:
        """Says what was made from a span, through every chain of warm starts.

        Args:
          number: the span.

        Returns:
          Every model that rests on it, and which live version does.

        Raises:
          ConfigError: ML Metadata knows no such span.
        """
        examples = [
            artifact
            for artifact in (self.store.mlmd.get_artifacts_by_type("Examples") if self.store.exists else [])
            if int(property_value(artifact, "span", -1)) == number
        ]
        if not examples:
            known = sorted({record.span for record in self.store.span_records()})
            raise ConfigError(
                f"nothing was ever made from span {number}",
                f"received --span {number}; ML Metadata knows spans {known[0]} to {known[-1]}"
                if known
                else "ML Metadata knows no span yet",
                "`evergreen plan` shows which spans there are.",
            )
        direct, through = self._descend({artifact.id for artifact in examples})
        models = self.graph.artifacts(through)
        versions = self._models.versions_of(through, self._published)
        live = self._live
        makers = self.graph.producers(through)
        descendants = tuple(
            Descendant(
                model_id=model.id,
                # Models of earlier releases do not name their run.
                run=property_value(model, "run") or self.graph.run_of(makers[model.id]),
                span=int(property_value(model, "span", -1)),
                direct=model.id in direct,
                through=through[model.id],
                versions=versions[model.id],
                live=live is not None and live in versions[model.id],
            )
            for model in models
        )
        return SpanLineage(
            span=number,
            deliveries=self._models.span_uses([artifact.id for artifact in examples], {}),
            models=descendants,
            live_versions=tuple(sorted({live for found in descendants if found.live and live is not None})),
        )

    def verdicts(self, executions: Iterable[Any]) -> tuple[Verdict, ...]:
        """Reads the verdicts that executions gave: those of many runs by one query.

        Args:
          executions: protos; those that are no gates give none.
        """
        return self._models.verdicts(executions)

    def artifact(self, artifact_id: int) -> Node:
        """Says who made an artifact, of what, and who used it.

        Args:
          artifact_id: its id in ML Metadata.

        Returns:
          The artifact among its neighbours.

        Raises:
          ConfigError: there is no such artifact.
        """
        found = self.graph.artifacts([artifact_id]) if self.store.exists else []
        if not found:
            raise ConfigError(
                f"there is no artifact {artifact_id}",
                f"received --artifact {artifact_id}; {self.config.connection.describe()} does not hold it",
                "`evergreen lineage --verbose` names the artifacts behind a version.",
            )
        (artifact,) = found
        return Node(
            id=artifact.id,
            type=self.graph.artifact_type(artifact),
            name=artifact.uri,
            state="gone" if artifact.state == LIVE and is_gone(artifact) else _ARTIFACT_STATES.get(artifact.state, "?"),
            created=artifact.create_time_since_epoch,
            properties=properties(artifact),
            made_by=self._made_by(artifact_id),
            used_by=self._used_by(artifact_id),
        )

    def _made_by(self, artifact_id: int) -> dict[str, Any]:
        for execution in self.graph.executions(self.graph.producers([artifact_id]).values()):
            edges = self.graph.inputs([execution.id])
            artifacts = {a.id: a for a in self.graph.artifacts(edge.artifact_id for edge in edges)}
            return {
                "execution": execution.id,
                "type": self.graph.kind(execution),
                "run": self.graph.run_of(execution.id),
                "inputs": [
                    {"key": edge.key, "artifact": edge.artifact_id, "type": self._type_of(artifacts, edge.artifact_id)}
                    for edge in edges
                ],
            }
        return {}

    def _used_by(self, artifact_id: int) -> tuple[dict[str, Any], ...]:
        edges = self.graph.consumers([artifact_id])
        kinds = {e.id: self.graph.kind(e) for e in self.graph.executions(edge.execution_id for edge in edges)}
        return tuple(
            {"execution": edge.execution_id, "type": kinds.get(edge.execution_id, "?"), "key": edge.key}
            for edge in edges
        )

    def _type_of(self, artifacts: dict[int, Any], artifact_id: int) -> str:
        return self.graph.artifact_type(artifacts[artifact_id]) if artifact_id in artifacts else "?"

    def _provenance(
        self, version: int | None, record: VersionRecord | None, push: int | None, model_id: int | None, run: str
    ) -> Provenance:
        context = self.store.mlmd.get_context_by_type_and_name(RUN_TYPE, run) if self.store.exists and run else None
        training = self._models.training(model_id, whole=True) if model_id is not None and self.store.exists else None
        window = self._models.window(training) if training else ()
        gates = self._models.gates(training, window, push) if training else ()
        ancestors, more = self._models.ancestors(training, self._published) if training else ((), 0)
        problem = record.problem or "" if record else ""
        if version is not None and training is None and not problem:
            problem = f"ML Metadata of {self.config.name} does not know its model: another workspace trained it"
        metrics = record.metrics if record else {}
        for gate in gates:
            metrics = metrics or gate.numbers.get("metrics", {})
        path = record.path if record else ""
        return Provenance(
            version=version,
            live=bool(record and record.live),
            on_disk=record is not None,
            published=(record.published or "") if record else "",
            restores=record.restores if record else None,
            path=path or (str(Path(str(self.config.publish.base_path)) / str(version)) if version else ""),
            bytes=record.bytes if record else 0,
            metrics=metrics,
            run=run,
            run_properties=properties(context) if context is not None else {},
            push_execution_id=push,
            gates=gates,
            quantization=self._models.quantization(gates),
            training=training,
            ancestors=ancestors,
            more_ancestors=more,
            transform=self._models.transform(training) if training else {},
            schema=self._models.schema(training) if training else {},
            window=window,
            problem=problem,
        )

    def _push_of(self, number: int, run: str | None) -> int | None:
        """Finds the execution that pushed a version: in the run that the manifest names, else among all pushes."""
        if not self.store.exists:
            return None
        context = self.store.mlmd.get_context_by_type_and_name(RUN_TYPE, run) if run else None
        if context is not None:
            executions = self.store.mlmd.get_executions_by_context(context.id)
            return max((e.id for e in executions if self.graph.kind(e) == "Pusher"), default=None)
        pushed = [
            artifact.id
            for artifact in self.store.mlmd.get_artifacts_by_type("PushedModel")
            if str(property_value(artifact, "pushed_version", "")) == str(number)
        ]
        # A later run that offered the same model names the version too; who came first pushed it.
        return min(self.graph.producers(pushed).values(), default=None)

    def _descend(self, examples: set[int]) -> tuple[set[int], dict[int, tuple[int, ...]]]:
        """Finds the models that rest on examples: those trained on them, and for each model the way it came."""
        trainers = self._trainers()
        edges = self.graph.inputs(trainers)
        made = {edge.execution_id: edge.artifact_id for edge in self.graph.outputs(trainers) if edge.key == "model"}
        direct = {
            made[edge.execution_id]
            for edge in edges
            if edge.key == "examples" and edge.artifact_id in examples and edge.execution_id in made
        }
        warm = {model.id for model in self.graph.artifacts(made.values()) if property_value(model, "warm_start", 0)}
        started_from: dict[int, list[int]] = defaultdict(list)
        for edge in edges:
            child = made.get(edge.execution_id)
            if edge.key == "base_model" and child in warm and child is not None:
                started_from[edge.artifact_id].append(child)
        through: dict[int, tuple[int, ...]] = dict.fromkeys(sorted(direct), ())
        frontier = sorted(direct)
        while frontier:
            following = []
            for model in frontier:
                for child in started_from[model]:
                    if child not in through:
                        through[child] = (*through[model], model)
                        following.append(child)
            frontier = following
        return direct, through

    def _trainers(self) -> list[int]:
        """Every Trainer's execution: a chain can be as long as the history, and one query reads them all."""
        names = [t.name for t in self.store.mlmd.get_execution_types() if t.name.rpartition(".")[2] == "Trainer"]
        return sorted(e.id for name in names for e in self.store.mlmd.get_executions_by_type(name))

    def _run_name(self, run_id: str) -> str:
        if run_id == "last":
            newest = self.store.newest_runs(1)
            if newest:
                return newest[0].id
            raise ConfigError(
                "there are no runs yet",
                f"{self.config.connection.describe()} holds none of {self.config.name}",
                "`evergreen run` makes the first.",
            )
        if self.store.exists and self.store.mlmd.get_context_by_type_and_name(RUN_TYPE, run_id) is not None:
            return run_id
        runs = [run.id for run in self.store.runs()]
        near = [run for run in runs if run.startswith(run_id)]
        if len(near) == 1:
            return near[0]
        raise ConfigError(
            f"there is no run {run_id}" if not near else f"several runs begin with {run_id}",
            f"received --run {run_id}; " + (f"they are {', '.join(near)}" if near else f"there are {len(runs)} runs"),
            "`evergreen runs` lists them.",
        )

    def _no_version(self, number: int) -> ConfigError:
        there = ", ".join(str(version) for version in self._records) or "none"
        return ConfigError(
            f"there is no version {number}",
            f"{self.config.publish.base_path} holds {there}, and ML Metadata knows of no push of {number}",
            "`evergreen versions` lists what is published.",
        )
