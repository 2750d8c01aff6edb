"""`create_pipeline(config)`: one retraining as an ordinary TFX pipeline.

The stock LocalDagRunner runs it; `evergreen run` runs it with progress, a lock and recovery around it. Older spans of
the window that gate 1 has not decided yet get nodes of their own (`SpanExampleGen.<span>`, ...), so that a first run
needs no other command. What follows a gate stands under `Cond` on the gate's verdict: a closed gate skips it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfx.components.schema_gen.import_schema_gen.component import ImportSchemaGen
from tfx.components.transform.component import Transform
from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.common.resolver import Resolver
from tfx.dsl.experimental.conditionals.conditional import Cond
from tfx.orchestration import pipeline as tfx_pipeline
from tfx.proto import transform_pb2
from tfx.types import standard_artifacts
from tfx.types.channel import Channel

from evergreen.components import fast_beam, resolvers, user_code
from evergreen.components.errors import ConfigError
from evergreen.components.evaluator.component import ChampionExam, Evaluator
from evergreen.components.fingerprinted import with_fingerprint
from evergreen.components.gate.component import Gate
from evergreen.components.pusher import versions
from evergreen.components.pusher.component import Pusher
from evergreen.components.quantizer.component import Quantizer
from evergreen.components.serving_validator.component import ServingValidator
from evergreen.components.span_example_gen.component import SpanExampleGen
from evergreen.components.span_validator.component import SpanValidator
from evergreen.components.statistics_gen.component import StatisticsGen
from evergreen.components.trainer.component import Trainer
from evergreen.pipeline import fingerprint
from evergreen.pipeline.config import Config
from evergreen.pipeline.plan import Entry, Plan, plan_run
from evergreen.pipeline.store import Store
from evergreen.pipeline.store_connection import connection_config

SchemaImporter = with_fingerprint(ImportSchemaGen)
WindowTransform = with_fingerprint(Transform)


def create_pipeline(config: Config, plan: Plan | None = None) -> tfx_pipeline.Pipeline:
    """Builds the pipeline of one retraining.

    Args:
      config: the project's configuration.
      plan: what to do; by default, what `evergreen plan` would print now. Where there is nothing to do, the newest span
        again, which the cache answers.

    Returns:
      A pipeline for any of TFX's runners.

    Raises:
      SpanError: there is no complete span.
      DataRejected: too few spans are accepted.
      ConfigError: a user's function cannot be found.
    """
    plan = plan or plan_run(config, Store(config.connection, config.name))
    if plan.target is None:
        raise ConfigError("there is nothing to train on", plan.reason, "deliver a span")
    return tfx_pipeline.Pipeline(
        pipeline_name=config.name,
        pipeline_root=str(config.pipeline_root),
        metadata_connection_config=connection_config(config.connection),
        components=_Builder(config, plan, plan.target).build(),
        enable_cache=True,
        beam_pipeline_args=beam_args(config),
    )


def beam_args(config: Config) -> list[str]:
    """Returns Beam's arguments; `direct` is the in-process runner on both stacks."""
    given = config.beam.args
    if config.beam.runner == "direct":
        return [*fast_beam.IN_PROCESS_ARGS, *given]
    own = fast_beam.OWN_CODE_ARGS if fast_beam.workers_have_our_code(given) else ()
    return [f"--runner={config.beam.runner}", *own, *given]


_NOBODY = "-"  # no node has this id


class _Builder:
    """Holds what the stages share while the pipeline is put together."""

    def __init__(self, config: Config, plan: Plan, target: Entry):
        self.config = config
        self.plan = plan
        self.target = target
        self.project_dir = str(config.project_dir)
        self.base = fingerprint.base()
        self.nodes: list[BaseNode] = []
        self.label = config.evaluate.label
        self.schema_file = str(config.schema_path)

    def build(self) -> list[BaseNode]:
        """Adds every node in the order of the flow."""
        for function in (self.config.features, self.config.trainer.model, self.config.trainer.run_fn):
            if function is not None:
                # Found now, not minutes later; and the stock Transform can only import what is on the path already.
                user_code.load(function, self.project_dir)
        schema_digest = hashlib.sha256(Path(self.schema_file).read_bytes()).hexdigest()[:16]
        schema = self.add(SchemaImporter(schema_file=self.schema_file, fingerprint=schema_digest), "Schema")
        for entry in self.plan.ingest:
            self.ingest(entry, schema, f".{entry.label}")
        examples, verdict = self.ingest(self.target, schema, "")
        with Cond(verdict.outputs["anomalies"].future()[0].custom_property("accepted") == 1):
            champion, transform, trainer, evaluator = self.train(examples, schema)
        # Each condition stands alone, on a node that always runs: nested ones could not be evaluated where an earlier
        # gate is closed.
        quality = self.add(Gate(property="blessed", blessing=evaluator.outputs["blessing"]), "QualityGate")
        with Cond(quality.is_open()):
            quantizer = self.quantize(examples, transform, trainer, evaluator)
        variants = self.add(Gate(property="passed", report=quantizer.outputs["report"]), "VariantsGate")
        with Cond(variants.is_open()):
            validator = self.serve(examples, trainer, evaluator, quantizer)
        serving = self.add(Gate(property="blessed", infra_blessing=validator.outputs["blessing"]), "ServingGate")
        with Cond(serving.is_open()):
            self.push(champion, trainer, evaluator, quantizer, validator, self.push_inputs(schema, examples, evaluator))
        return self.nodes

    def add(self, node: Any, node_id: str) -> Any:
        """Names a node, adds it, and behind it the user's own components for that stage."""
        node = node.with_id(node_id)
        self.nodes.append(node)
        for extra in self.config.components:
            if extra.after == node_id:
                made = user_code.load(extra.function, self.project_dir)({n.id: n for n in self.nodes}, self.config)
                self.nodes.extend(_checked(made, extra.function))
        return node

    def resolve(self, node_id: str, strategy: Any, settings: dict[str, Any], **channels: Any) -> Any:
        """Adds a resolver that runs after everything added so far, and gets from TFX none of what was made before."""
        node = Resolver(
            strategy_class=strategy,
            config={**settings, "pipeline": self.config.name},
            **{name: Channel(type=artifact, producer_component_id=_NOBODY) for name, artifact in channels.items()},
        ).with_id(node_id)
        node.add_upstream_nodes(list(self.nodes))
        self.nodes.append(node)
        return node

    def ingest(self, entry: Entry, schema: Any, suffix: str) -> tuple[Any, Any]:
        """Adds one span version's examples, statistics and verdict."""
        data = self.settings("data")
        examples = self.add(
            SpanExampleGen(
                input_base=str(self.config.data.path),
                files=json.dumps(entry.files),
                format=self.config.data.format,
                span=entry.span,
                version=entry.version,
                digest=entry.digest,
                settings=data,
                schema_file=self.schema_file,
                fingerprint=self.base,
            ),
            "SpanExampleGen" + suffix,
        )
        statistics = self.add(
            StatisticsGen(
                examples=examples.outputs["examples"], schema=schema.outputs["schema"], fingerprint=self.base
            ),
            "StatisticsGen" + suffix,
        )
        previous = self.resolve(
            "PreviousStatistics" + suffix,
            resolvers.PreviousStatistics,
            {"span": entry.span},
            statistics=standard_artifacts.ExampleStatistics,
        )
        verdict = self.add(
            SpanValidator(
                statistics=statistics.outputs["statistics"],
                schema=schema.outputs["schema"],
                examples=examples.outputs["examples"],
                previous_statistics=previous.outputs["statistics"],
                settings=data,
                fingerprint=self.base,
            ),
            "SpanValidator" + suffix,
        )
        return examples, verdict

    def train(self, examples: Any, schema: Any) -> tuple[Any, Any, Any, Any]:
        """Adds what follows gate 1, up to gate 2's verdict.

        Returns:
          The champion's resolver, Transform, Trainer and Evaluator.
        """
        config = self.config
        window = self.resolve(
            "Window",
            resolvers.Window,
            {"spans": [entry.span for entry in self.plan.window]},
            examples=standard_artifacts.Examples,
        )
        champion = self.resolve(
            "Champion",
            resolvers.Champion,
            {"base_path": str(config.publish.base_path)},
            model=standard_artifacts.Model,
        )
        exam = self.add(
            ChampionExam(
                examples=examples.outputs["examples"],
                champion=champion.outputs["model"],
                settings=self.settings("evaluate"),
                span=self.target.span,
                fingerprint=self.base,
            ),
            "ChampionExam",
        )
        transform = self.transform(window, schema)
        trainer = self.trainer(window, schema, transform, champion)
        evaluator = self.add(
            Evaluator(
                examples=examples.outputs["examples"],
                model=trainer.outputs["model"],
                champion_evaluation=exam.outputs["evaluation"],
                settings=self.settings("evaluate"),
                span=self.target.span,
                fingerprint=self.base,
            ),
            "Evaluator",
        )
        return champion, transform, trainer, evaluator

    def transform(self, window: Any, schema: Any) -> Any:
        """Adds Transform, with the analyzer cache that an earlier window left behind."""
        cache = self.resolve(
            "AnalyzerCache",
            resolvers.AnalyzerCache,
            {"span": self.target.span, "version": self.target.version},
            cache=standard_artifacts.TransformCache,
        )
        materialize = self.config.trainer.run_fn is not None
        splits = transform_pb2.SplitsConfig(
            analyze=["train"], transform=["train", "validation", "exam"] if materialize else []
        )
        return self.add(
            WindowTransform(
                examples=window.outputs["examples"],
                schema=schema.outputs["schema"],
                preprocessing_fn=self.config.features.replace(":", "."),
                splits_config=splits,
                analyzer_cache=cache.outputs["cache"],
                materialize=materialize,
                disable_statistics=True,
                fingerprint=self.user_fingerprint(self.config.features),
            ),
            "Transform",
        )

    def trainer(self, window: Any, schema: Any, transform: Any, champion: Any) -> Any:
        """Adds the Trainer; the champion is an input only where warm starts are wanted."""
        config = self.config.trainer
        optional: dict[str, Any] = {}
        if config.warm_start is not None:
            optional["base_model"] = champion.outputs["model"]
        if config.run_fn is not None:
            optional["transformed_examples"] = transform.outputs["transformed_examples"]
        return self.add(
            Trainer(
                examples=window.outputs["examples"],
                transform_graph=transform.outputs["transform_graph"],
                schema=schema.outputs["schema"],
                settings=self.settings("trainer"),
                label=self.label,
                newest_span=self.target.span,
                project_dir=self.project_dir,
                fingerprint=self.user_fingerprint(config.run_fn or config.model or "", self.config.features),
                **optional,
            ),
            "Trainer",
        )

    def quantize(self, examples: Any, transform: Any, trainer: Any, evaluator: Any) -> Any:
        """Adds the Quantizer."""
        return self.add(
            Quantizer(
                model=trainer.outputs["model"],
                transform_graph=transform.outputs["transform_graph"],
                examples=examples.outputs["examples"],
                evaluation=evaluator.outputs["evaluation"],
                settings=self.settings("quantize"),
                evaluate_settings=self.settings("evaluate"),
                fingerprint=self.base,
            ),
            "Quantizer",
        )

    def serve(self, examples: Any, trainer: Any, evaluator: Any, quantizer: Any) -> Any:
        """Adds the ServingValidator."""
        return self.add(
            ServingValidator(
                model=trainer.outputs["model"],
                examples=examples.outputs["examples"],
                evaluation=evaluator.outputs["evaluation"],
                quantized_models=quantizer.outputs["models"],
                quantization_report=quantizer.outputs["report"],
                settings=self.serving_settings(),
                fingerprint=self.base,
            ),
            "ServingValidator",
        )

    def push_inputs(self, schema: Any, examples: Any, evaluator: Any) -> dict[str, Any]:
        """Returns what warm-up requests are made of and servers asked about; rows of people only where wanted."""
        publish, channels = self.config.publish, {}
        if publish.warmup == "schema":
            channels["schema"] = schema.outputs["schema"]
        if publish.warmup == "real" or publish.server is not None:
            channels["examples"] = examples.outputs["examples"]
        if publish.server is not None:
            channels["evaluation"] = evaluator.outputs["evaluation"]
        return channels

    def push(
        self, champion: Any, trainer: Any, evaluator: Any, quantizer: Any, validator: Any, inputs: dict[str, Any]
    ) -> None:
        """Adds the Pusher."""
        self.add(
            Pusher(
                model=trainer.outputs["model"],
                quantized_models=quantizer.outputs["models"],
                blessing=evaluator.outputs["blessing"],
                quantization_report=quantizer.outputs["report"],
                infra_blessing=validator.outputs["blessing"],
                champion=champion.outputs["model"],
                settings=json.dumps(self.config.publish_settings(), sort_keys=True),
                span=self.target.span,
                span_version=self.target.version,
                name=self.config.name,
                fingerprint=self.push_fingerprint(),
                **inputs,
            ),
            "Pusher",
        )

    def settings(self, section: str) -> str:
        """Returns a section of the configuration as canonical JSON, for a node's parameter and so for its cache key."""
        return json.dumps(getattr(self.config, section).model_dump(mode="json"), sort_keys=True)

    def serving_settings(self) -> str:
        """Returns the section `serving`, its tolerance for the precision that the model computes in."""
        settings = {**self.config.serving.model_dump(mode="json"), "tolerance": self.config.tolerance}
        return json.dumps(settings, sort_keys=True)

    def push_fingerprint(self) -> str:
        """Returns the Pusher's fingerprint, in which the live version stands.

        What the base path holds decides whether a push is needed, not what a cached execution once did. The highest
        version ever used is part of it: after a withdrawal the same version is live as before the push.
        """
        live = self.plan.champion
        highest = versions.read_highest(self.config.publish.base_path)
        return fingerprint.combine(self.base, f"{live.version} {live.published}" if live else "", str(highest))

    def user_fingerprint(self, *functions: str) -> str:
        """Returns the fingerprint of a node that runs functions of the user's."""
        return fingerprint.combine(self.base, *(user_code.digest(f, self.project_dir) for f in functions))


def _checked(made: Any, function: str) -> Iterator[BaseNode]:
    """Yields the nodes that a user's function added, or says what it returned instead."""
    for node in made if isinstance(made, (list, tuple)) else [made]:
        if not isinstance(node, BaseNode):
            raise ConfigError(
                f"`{function}` does not return a TFX component",
                f"received {type(node).__name__}, expected a component or a list of components",
                "return what is to be added behind that stage",
            )
        yield node
