"""A metadata store with as many runs as one likes, shaped as `evergreen run` writes it, without training anything.

Every run takes in one span, trains on a window of three, starts warm but for every `cold_every`-th run, and publishes;
every tenth is refused by gate 2. For `lineage.py` beside it and for tests.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_metadata
from ml_metadata.proto import metadata_store_pb2 as pb

PIPELINE = "many"
WINDOW = 3
FIRST_VERSION = 1_700_000_000
MINUTE = 60_000
_COMPONENTS = {
    "Schema": "tfx.components.schema_gen.import_schema_gen.component.ImportSchemaGen",
    "SpanExampleGen": "evergreen.components.span_example_gen.component.SpanExampleGen",
    "StatisticsGen": "evergreen.components.statistics_gen.component.StatisticsGen",
    "SpanValidator": "evergreen.components.span_validator.component.SpanValidator",
    "ChampionExam": "evergreen.components.evaluator.component.ChampionExam",
    "Transform": "tfx.components.transform.component.Transform",
    "Trainer": "evergreen.components.trainer.component.Trainer",
    "Evaluator": "evergreen.components.evaluator.component.Evaluator",
    "Quantizer": "evergreen.components.quantizer.component.Quantizer",
    "Pusher": "evergreen.components.pusher.component.Pusher",
    "Window": "tfx.dsl.components.common.resolver.Resolver",
}
_ARTIFACTS = (
    "Schema",
    "Examples",
    "ExampleStatistics",
    "ExampleAnomalies",
    "ModelEvaluation",
    "TransformGraph",
    "TransformCache",
    "Model",
    "ModelRun",
    "ModelBlessing",
    "QuantizationReport",
    "PushedModel",
)


@dataclass
class _Batch:
    """What is put with one call of each kind."""

    executions: list[Any] = field(default_factory=list)
    artifacts: list[Any] = field(default_factory=list)
    contexts: list[Any] = field(default_factory=list)
    # (kind of event, index of the execution, artifact: its index in the batch or its id as a negative number, key)
    events: list[tuple[int, int, int, str]] = field(default_factory=list)
    associations: list[tuple[int, int]] = field(default_factory=list)


class Writer:
    """Writes runs into a store.

    Args:
      path: the SQLite file; must not exist.
      cold_every: how many runs from one training from scratch to the next.
    """

    def __init__(self, path: Path, cold_every: int = 10):
        config = pb.ConnectionConfig()
        config.sqlite.filename_uri = str(path)
        config.sqlite.connection_mode = pb.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
        self.store = ml_metadata.MetadataStore(config)
        self.cold_every = cold_every
        self.versions: dict[int, int] = {}
        self._artifact_types = {name: self.store.put_artifact_type(pb.ArtifactType(name=name)) for name in _ARTIFACTS}
        self._execution_types = {
            name: self.store.put_execution_type(pb.ExecutionType(name=name)) for name in set(_COMPONENTS.values())
        }
        self._run_type = self.store.put_context_type(pb.ContextType(name="pipeline_run"))
        node_type = self.store.put_context_type(pb.ContextType(name="node"))
        nodes = [pb.Context(type_id=node_type, name=f"{PIPELINE}.{name}") for name in _COMPONENTS]
        self._nodes = dict(zip(_COMPONENTS, self.store.put_contexts(nodes), strict=True))
        pipeline_type = self.store.put_context_type(pb.ContextType(name="pipeline"))
        (self._pipeline,) = self.store.put_contexts([pb.Context(type_id=pipeline_type, name=PIPELINE)])
        self._examples: list[int] = []
        self._champion: int | None = None
        self._warm_runs = 0
        self._schema: int | None = None
        self.written = 0

    def write(self, runs: int) -> None:
        """Writes more runs.

        Args:
          runs: how many.
        """
        for _ in range(runs):
            self._run()

    def _run(self) -> None:
        batch, number = _Batch(), self.written
        started = number * 60 * MINUTE + 1_600_000_000_000
        version = FIRST_VERSION + number * 3600
        refused = number % 10 == 9
        cold = self._champion is None or self._warm_runs + 1 >= self.cold_every
        warm_runs = 0 if cold else self._warm_runs + 1
        run = f"20200101T{number:06d}-1"
        exam = {"auc": 0.7 + number % 7 / 100, "log_loss": 0.4}
        metrics = json.dumps(exam)
        spans = [*range(max(0, number - WINDOW + 1), number + 1)]
        if self._schema is None:
            batch.artifacts.append(self._artifact("Schema", "schema/1"))
            self._event(batch, "Schema", (), [("schema", 0)])
            schema = 0
        else:
            schema = -self._schema
        examples = self._add(batch, "Examples", span=number, version=0, rows=1000, digest=f"{number:032x}")
        self._event(batch, "SpanExampleGen", (), [("examples", examples)], span=number)
        statistics = self._add(batch, "ExampleStatistics", span=number)
        self._event(batch, "StatisticsGen", [("examples", examples)], [("statistics", statistics)])
        anomalies = self._add(
            batch, "ExampleAnomalies", span=number, version=0, rows=1000, accepted=1, verdict="accepted", reasons="[]"
        )
        taken = [("examples", examples), ("statistics", statistics), ("schema", schema)]
        self._event(batch, "SpanValidator", taken, [("anomalies", anomalies)])
        window = [*(("examples", -known) for known in self._examples[-(WINDOW - 1) :]), ("examples", examples)]
        graph, cache = self._add(batch, "TransformGraph"), self._add(batch, "TransformCache")
        made = [("transform_graph", graph), ("updated_analyzer_cache", cache)]
        self._event(batch, "Transform", [*window, ("schema", schema)], made, preprocessing_fn="features.f")
        model = self._add(
            batch, "Model", run=run, span=number, seed=0, steps=600, warm_start=int(not cold), warm_runs=warm_runs
        )
        report = {"steps": 600, "strategy": "single", "seed": 0, "global_batch_size": 512, "hyperparameters": {"n": 1}}
        model_run = self._add(batch, "ModelRun", report=json.dumps(report))
        base = [] if self._champion is None else [("base_model", -self._champion)]
        taken = [*window, ("transform_graph", graph), ("schema", schema), *base]
        made = [("model", model), ("model_run", model_run)]
        self._event(batch, "Trainer", taken, made, settings='{"steps": 600}', fingerprint=f"{number:016x}")
        evaluation = self._add(batch, "ModelEvaluation", rows=250)
        blessing = self._add(batch, "ModelBlessing", blessed=int(not refused), metrics=metrics, summary="as it was")
        taken = [("examples", examples), ("model", model)]
        self._event(batch, "Evaluator", taken, [("evaluation", evaluation), ("blessing", blessing)])
        if not refused:
            table = {"chosen": "float16", "variants": [{"variant": "float16", "passed": True, "bytes": 1000}]}
            quantized = self._add(batch, "Model", quantization="float16", chosen=1, bytes=1000, metrics=metrics)
            variants = self._add(batch, "QuantizationReport", passed=1, table=json.dumps(table))
            self._event(batch, "Quantizer", [("model", model)], [("models", quantized), ("report", variants)])
            pushed = self._add(batch, "PushedModel", pushed_version=str(version), published=1, span=number)
            taken = [("model", model), ("blessing", blessing), ("quantization_report", variants)]
            self._event(batch, "Pusher", taken, [("pushed_model", pushed)])
        context = pb.Context(type_id=self._run_type, name=run)
        _set(
            context.custom_properties,
            pipeline=PIPELINE,
            span=number,
            span_label=str(number),
            result="model rejected" if refused else "published",
            reason="gate 2" if refused else "",
            trigger="every",
            attempt=1,
            started=started,
            ended=started + MINUTE,
            pushed_version=0 if refused else version,
            window=json.dumps(spans),
            metrics=json.dumps({"exam": exam, "champion_on_span": {"auc": 0.69}}),
        )
        ids = self._put(batch, context)
        self._examples.append(ids[examples])
        if self._schema is None:
            self._schema = ids[0]
        if not refused:
            self._champion, self._warm_runs = ids[model], warm_runs
            self.versions[version] = ids[model]
        self.written += 1

    def _add(self, batch: _Batch, kind: str, **properties: Any) -> int:
        batch.artifacts.append(self._artifact(kind, f"{kind}/{self.written}", **properties))
        return len(batch.artifacts) - 1

    def _artifact(self, kind: str, uri: str, **properties: Any) -> Any:
        artifact = pb.Artifact(type_id=self._artifact_types[kind], uri=f"/nowhere/{uri}", state=pb.Artifact.LIVE)
        _set(artifact.custom_properties, **properties)
        return artifact

    def _event(self, batch: _Batch, node: str, taken: Any, made: list[tuple[str, int]], **properties: Any) -> None:
        execution = pb.Execution(
            type_id=self._execution_types[_COMPONENTS[node]], last_known_state=pb.Execution.COMPLETE
        )
        _set(execution.custom_properties, **properties)
        index = len(batch.executions)
        batch.executions.append(execution)
        batch.associations.append((index, self._nodes[node]))
        batch.events += [(pb.Event.INPUT, index, artifact, key) for key, artifact in taken]
        batch.events += [(pb.Event.OUTPUT, index, artifact, key) for key, artifact in made]

    def _put(self, batch: _Batch, context: Any) -> list[int]:
        artifacts = self.store.put_artifacts(batch.artifacts)
        executions = self.store.put_executions(batch.executions)
        (run,) = self.store.put_contexts([context])
        events = []
        for kind, execution, artifact, key in batch.events:
            # A first artifact has index 0, so that ids, which begin with 1, can be told apart by their sign.
            event = pb.Event(
                type=kind,
                execution_id=executions[execution],
                artifact_id=-artifact if artifact < 0 else artifacts[artifact],
            )
            event.path.steps.add().key = key
            event.path.steps.add().index = 0
            events.append(event)
        self.store.put_events(events)
        self.store.put_attributions_and_associations(
            [],
            [pb.Association(execution_id=executions[e], context_id=node) for e, node in batch.associations]
            + [
                pb.Association(execution_id=execution, context_id=context)
                for execution in executions
                for context in (run, self._pipeline)
            ],
        )
        return list(artifacts)


def _set(properties: Any, **values: Any) -> None:
    for name, value in values.items():
        if isinstance(value, int):
            properties[name].int_value = value
        else:
            properties[name].string_value = value


def write_versions(base_path: Path, writer: Writer, keep: int = 3) -> None:
    """Puts the newest versions into a base path: a graph file and the manifest, no model.

    Args:
      base_path: the folder.
      writer: what wrote the store.
      keep: how many.
    """
    for version in sorted(writer.versions)[-keep:]:
        folder = base_path / str(version)
        (folder / "assets.extra").mkdir(parents=True)
        (folder / "saved_model.pb").write_bytes(b"graph")
        number = (version - FIRST_VERSION) // 3600
        manifest = {
            "format": 1,
            "version": version,
            "name": PIPELINE,
            "published": "2020-01-01T00:00:00Z",
            "run": f"20200101T{number:06d}-1",
            "span": number,
            "model_artifact_id": writer.versions[version],
            "model_uri": f"/nowhere/Model/{number}",
            "bytes": 5,
            "metrics": {"auc": 0.7 + number % 7 / 100},
        }
        (folder / "assets.extra" / "evergreen.json").write_text(json.dumps(manifest))
