"""What lies behind one Model artifact: training, window, transform, schema, gates, variants, ancestors."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from evergreen.components.serving_validator import report as serving_report
from evergreen.components.span_records import DELETED, property_value
from evergreen.pipeline.lineage.graph import Edge, Graph
from evergreen.pipeline.lineage.records import Ancestor, SpanUse, Training, Verdict

ANCESTORS_SHOWN = 20
# Gates by the component that decides: number, name, output key, property with the verdict.
_GATES = {
    "SpanValidator": (1, "data", "anomalies", "accepted"),
    "Evaluator": (2, "quality", "blessing", "blessed"),
    "Quantizer": (3, "variants", "report", "passed"),
    "ServingValidator": (4, "serving", "blessing", "blessed"),
}


def is_gone(artifact: Any) -> bool:
    """Says whether an artifact's files are no longer there; URIs of other file systems are taken on trust."""
    return artifact.state == DELETED or ("://" not in artifact.uri and not os.path.exists(artifact.uri))


class ModelReader:
    """Reads what lies behind models.

    Args:
      graph: the store's graph.
    """

    def __init__(self, graph: Graph):
        self._graph = graph

    def training(self, model_id: int, whole: bool = False) -> Training | None:
        """Reads how a model was trained.

        Args:
          model_id: the Model artifact.
          whole: take the whole report from its file, where that is still there, and not the short one.

        Returns:
          The training; None where ML Metadata does not know who made the model.
        """
        models = self._graph.artifacts([model_id])
        makers = self._graph.executions(self._graph.producers([model_id]).values())
        if not models or not makers:
            return None
        (model,), (execution,) = models, makers
        runs = [edge.artifact_id for edge in self._graph.outputs([execution.id]) if edge.key == "model_run"]
        report: dict[str, Any] = {}
        for artifact in self._graph.artifacts(runs):
            report = (_file(artifact, "report.json") if whole else {}) or _parsed(
                property_value(artifact, "report"), {}
            )
        return Training(
            execution_id=execution.id,
            model_id=model.id,
            model_uri=model.uri,
            model_gone=is_gone(model),
            run=self._graph.run_of(execution.id),
            settings=_parsed(property_value(execution, "settings"), {}),
            report=report,
            warm=bool(property_value(model, "warm_start", 0)),
            fingerprint=str(property_value(execution, "fingerprint", "")),
            started=execution.create_time_since_epoch,
            ended=execution.last_update_time_since_epoch,
        )

    def window(self, training: Training) -> tuple[SpanUse, ...]:
        """Reads the spans that a model was trained on, the oldest first."""
        ids = self._inputs(training.execution_id, "examples")
        return self.span_uses(ids, training.report.get("rows_by_span", {}))

    def span_uses(self, examples_ids: Iterable[int], trained: dict[str, dict[str, int]]) -> tuple[SpanUse, ...]:
        """Describes span versions.

        Args:
          examples_ids: their Examples artifacts.
          trained: rows that a training used, by span and split.

        Returns:
          One record each, in the order of spans and versions.
        """
        examples = self._graph.artifacts(examples_ids)
        verdicts = {edge_id: verdict for edge_id, verdict, _ in self._decisions([a.id for a in examples])}
        uses = [
            SpanUse(
                span=int(property_value(artifact, "span", -1)),
                version=int(property_value(artifact, "version", 0)),
                rows=int(property_value(artifact, "rows", 0)),
                rows_by_split={
                    split: int(property_value(artifact, f"rows_{split}", 0))
                    for split in _parsed(property_value(artifact, "split_names"), [])
                },
                trained=trained.get(str(property_value(artifact, "span", -1)), {}),
                digest=str(property_value(artifact, "digest", "")),
                examples_id=artifact.id,
                verdict=str(property_value(verdicts[artifact.id], "verdict", "")) if artifact.id in verdicts else "",
                gone=is_gone(artifact),
            )
            for artifact in examples
        ]
        return tuple(sorted(uses, key=lambda use: (use.span, use.version, use.examples_id)))

    def gates(self, training: Training, window: tuple[SpanUse, ...], push_id: int | None) -> tuple[Verdict, ...]:
        """Reads the gates' verdicts on a model and on the newest span of its window.

        Args:
          training: the model.
          window: its spans.
          push_id: the Pusher's execution, whose inputs say which verdict counted; None for the last of each gate.
        """
        found = []
        if window:
            for _, verdict, execution_id in self._decisions([window[-1].examples_id]):
                found.append(self._verdict("SpanValidator", verdict, execution_id))
        # A model can be examined twice, when the bounds in the YAML changed; what the Pusher took is what counted.
        counted = {edge.artifact_id for edge in self._graph.inputs([push_id])} if push_id is not None else set()
        takers = self._graph.executions(edge.execution_id for edge in self._graph.consumers([training.model_id]))
        outputs = self._graph.outputs(taker.id for taker in takers)
        for kind in ("Evaluator", "Quantizer", "ServingValidator"):
            own = {taker.id for taker in takers if self._graph.kind(taker) == kind}
            edges = [edge for edge in outputs if edge.execution_id in own and edge.key == _GATES[kind][2]]
            chosen = [edge for edge in edges if edge.artifact_id in counted] or edges
            if chosen:
                last = max(chosen, key=lambda edge: edge.execution_id)
                for artifact in self._graph.artifacts([last.artifact_id]):
                    found.append(self._verdict(kind, artifact, last.execution_id))
        return tuple(found)

    def verdicts(self, executions: Iterable[Any]) -> tuple[Verdict, ...]:
        """Reads the verdicts that executions gave, whatever became of them.

        Args:
          executions: protos; those that are no gates give none.
        """
        kinds = {e.id: kind for e in executions if (kind := self._graph.kind(e)) in _GATES}
        edges = [e for e in self._graph.outputs(kinds) if e.key == _GATES[kinds[e.execution_id]][2]]
        made = {edge.artifact_id: edge.execution_id for edge in edges}
        return tuple(self._verdict(kinds[made[a.id]], a, made[a.id]) for a in self._graph.artifacts(made))

    def data_gate(self, executions: Iterable[Any]) -> tuple[Verdict, ...]:
        """Reads gate 1's verdict on the newest span of a run that made no model.

        Args:
          executions: those of the run; older spans that it decided on the way came before.
        """
        deciders = [execution.id for execution in executions if self._graph.kind(execution) == "SpanValidator"]
        edges = [edge for edge in self._graph.outputs(deciders[-1:]) if edge.key == "anomalies"]
        return tuple(
            self._verdict("SpanValidator", artifact, deciders[-1])
            for artifact in self._graph.artifacts(edge.artifact_id for edge in edges)
        )

    def quantization(self, gates: tuple[Verdict, ...]) -> dict[str, Any]:
        """Reads the variants that were made, from gate 3's report."""
        gate = next((gate for gate in gates if gate.gate == 3), None)
        if gate is None:
            return {}
        (report,) = self._graph.artifacts([gate.artifact_id])
        table = _parsed(property_value(report, "table"), {})
        return {
            "artifact_id": report.id,
            "chosen": table.get("chosen"),
            "variants": {str(row.get("variant")): row for row in table.get("variants", [])},
        }

    def transform(self, training: Training) -> dict[str, Any]:
        """Reads which Transform the model was trained behind."""
        graphs = self._inputs(training.execution_id, "transform_graph")
        for execution in self._graph.executions(self._graph.producers(graphs).values()):
            return {
                "execution_id": execution.id,
                "preprocessing_fn": property_value(execution, "preprocessing_fn", ""),
                "fingerprint": property_value(execution, "fingerprint", ""),
            }
        return {}

    def schema(self, training: Training) -> dict[str, Any]:
        """Reads which schema the model was trained under."""
        ids = self._inputs(training.execution_id, "schema")
        makers = self._graph.producers(ids)
        for artifact in self._graph.artifacts(ids):
            found = {"artifact_id": artifact.id, "uri": artifact.uri, "gone": is_gone(artifact)}
            for execution in self._graph.executions(makers.values()):
                found["file"] = property_value(execution, "schema_file", "")
                found["digest"] = property_value(execution, "fingerprint", "")
            return found
        return {}

    def ancestors(self, training: Training, published: dict[int, int]) -> tuple[tuple[Ancestor, ...], int]:
        """Follows the chain of warm starts.

        Args:
          training: the model.
          published: versions by the id of their Model, of those that the base path holds.

        Returns:
          The nearest ancestors, and how many more there are.
        """
        chain: list[Ancestor] = []
        current, seen = training, {training.model_id}
        first = self._graph.artifacts([training.model_id])
        length = int(property_value(first[0], "warm_runs", 0)) if first else 0
        while current.warm and len(chain) < ANCESTORS_SHOWN:
            base = self._inputs(current.execution_id, "base_model")
            if not base or base[0] in seen:
                break
            seen.add(base[0])
            older = self.training(base[0])
            if older is None:
                break
            (model,) = self._graph.artifacts([base[0]])
            chain.append(
                Ancestor(
                    model_id=base[0],
                    span=int(property_value(model, "span", -1)),
                    window=tuple(use.span for use in self.window(older)),
                    version=next(iter(self.versions_of([base[0]], published).get(base[0], ())), None),
                    run=older.run,
                    steps=int(property_value(model, "steps", 0)),
                    warm=older.warm,
                )
            )
            current = older
        return tuple(chain), max(0, length - len(chain)) if current.warm else 0

    def versions_of(self, model_ids: Iterable[int], published: dict[int, int]) -> dict[int, tuple[int, ...]]:
        """Maps models to the versions that they were published as, in ascending order.

        Args:
          model_ids: Model artifacts.
          published: models by version, of what the base path holds; a rollback's version is known from there.
        """
        wanted = sorted(set(model_ids))
        found: dict[int, set[int]] = {i: {v for v, model in published.items() if model == i} for i in wanted}
        edges = [edge for edge in self._graph.consumers(wanted) if edge.key == "model"]
        pushers = {e.id for e in self._graph.executions(edge.execution_id for edge in edges) if self._is_pusher(e)}
        pushed = [edge for edge in self._graph.outputs(pushers) if edge.key == "pushed_model"]
        artifacts = {artifact.id: artifact for artifact in self._graph.artifacts(edge.artifact_id for edge in pushed)}
        version = {
            edge.execution_id: str(property_value(artifacts[edge.artifact_id], "pushed_version", ""))
            for edge in pushed
            if edge.artifact_id in artifacts
        }
        for edge in edges:
            text = version.get(edge.execution_id, "")
            if edge.artifact_id in found and text.isdigit():
                found[edge.artifact_id].add(int(text))
        return {model: tuple(sorted(numbers)) for model, numbers in found.items()}

    def _is_pusher(self, execution: Any) -> bool:
        return self._graph.kind(execution) == "Pusher"

    def _inputs(self, execution_id: int, key: str) -> list[int]:
        return [edge.artifact_id for edge in self._graph.inputs([execution_id]) if edge.key == key]

    def _decisions(self, examples_ids: list[int]) -> list[tuple[int, Any, int]]:
        """Finds gate 1's last verdict on each of these examples: (examples id, verdict, execution id)."""
        edges: list[Edge] = self._graph.consumers(examples_ids)
        takers = {e.id: e for e in self._graph.executions(edge.execution_id for edge in edges)}
        deciders = {i for i, e in takers.items() if self._graph.kind(e) == "SpanValidator"}
        last: dict[int, int] = {}
        for edge in edges:
            if edge.execution_id in deciders and edge.key == "examples":
                last[edge.artifact_id] = max(edge.execution_id, last.get(edge.artifact_id, 0))
        verdicts = {e.execution_id: e.artifact_id for e in self._graph.outputs(last.values()) if e.key == "anomalies"}
        artifacts = {a.id: a for a in self._graph.artifacts(verdicts.values())}
        return [
            (examples, artifacts[verdicts[execution]], execution)
            for examples, execution in last.items()
            if verdicts.get(execution) in artifacts
        ]

    def _slices(self, execution_id: int) -> dict[str, dict[str, Any]]:
        """Reads the challenger's metrics by slice, with the rows of each."""
        ids = [edge.artifact_id for edge in self._graph.outputs([execution_id]) if edge.key == "evaluation"]
        found = {}
        for artifact in self._graph.artifacts(ids):
            for part in _file(artifact, "comparison.json").get("slices", []):
                metrics = {name: value.get("challenger") for name, value in part.get("metrics", {}).items()}
                found[str(part.get("slice"))] = {"rows": part.get("rows"), **metrics}
        return found

    def _verdict(self, kind: str, artifact: Any, execution_id: int) -> Verdict:
        gate, name, _, key = _GATES[kind]
        words = [str(word) for word in _words(_parsed(property_value(artifact, "reasons"), []))]
        reason = str(property_value(artifact, "reason", ""))
        numbers: dict[str, Any] = {}
        for number in ("metrics", "champion_metrics", "champion_on_span"):
            value = _parsed(property_value(artifact, number), None)
            if value:
                numbers[number] = value
        rows = property_value(artifact, "rows")
        if rows is not None:
            numbers["rows"] = int(rows)
        summary = str(property_value(artifact, "summary", ""))
        if kind == "Evaluator":
            numbers["slices"] = self._slices(execution_id)
        measured = _parsed(property_value(artifact, "report"), {}) if kind == "ServingValidator" else {}
        if measured:
            summary = serving_report.line(measured)
            numbers["serving"] = {
                **{key: measured.get(key) for key in ("server", "rows", "load_s", "peak_bytes")},
                **{f"{api} p50_ms": serving_report.p50(measured, api) for api in ("gRPC", "REST")},
            }
        return Verdict(
            gate=gate,
            name=name,
            open=bool(property_value(artifact, key, 0)),
            words=tuple(word for word in (summary, *words, reason) if word),
            numbers=numbers,
            execution_id=execution_id,
            artifact_id=artifact.id,
        )


def _file(artifact: Any, name: str) -> dict[str, Any]:
    """Reads a JSON file of an artifact; empty where it is not there any more."""
    try:
        found = json.loads(Path(artifact.uri, name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _words(reasons: list[Any]) -> list[str]:
    """Gate 1's reasons are objects, the other gates' are sentences."""
    return [
        f"{reason.get('feature') or 'the span'}: {reason.get('description') or reason.get('reason')}"
        if isinstance(reason, dict)
        else str(reason)
        for reason in reasons
    ]


def _parsed(text: Any, default: Any) -> Any:
    """Reads a property that holds JSON; what is no JSON counts as absent."""
    try:
        return json.loads(text) if isinstance(text, str) and text else default
    except ValueError:
        return default
