"""The Pusher as a TFX component: what goes in, what comes out."""

from __future__ import annotations

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import component_spec, standard_artifacts

from evergreen.components import artifacts
from evergreen.components.pusher import executor


class PusherSpec(types.ComponentSpec):
    """Parameters and channels of the Pusher."""

    PARAMETERS = {
        "settings": component_spec.ExecutionParameter(type=str),
        "span": component_spec.ExecutionParameter(type=int),
        "span_version": component_spec.ExecutionParameter(type=int, optional=True),
        "name": component_spec.ExecutionParameter(type=str),
        "fingerprint": component_spec.ExecutionParameter(type=str, optional=True),
    }
    INPUTS = {
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "quantized_models": component_spec.ChannelParameter(type=standard_artifacts.Model, optional=True),
        "blessing": component_spec.ChannelParameter(type=standard_artifacts.ModelBlessing, optional=True),
        "quantization_report": component_spec.ChannelParameter(type=artifacts.QuantizationReport, optional=True),
        "infra_blessing": component_spec.ChannelParameter(type=standard_artifacts.InfraBlessing, optional=True),
        "champion": component_spec.ChannelParameter(type=standard_artifacts.Model, optional=True),
        "schema": component_spec.ChannelParameter(type=standard_artifacts.Schema, optional=True),
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples, optional=True),
        "evaluation": component_spec.ChannelParameter(type=standard_artifacts.ModelEvaluation, optional=True),
    }
    OUTPUTS = {
        "pushed_model": component_spec.ChannelParameter(type=standard_artifacts.PushedModel),
    }


class Pusher(base_component.BaseComponent):
    """Publishes a model as a new version of a TensorFlow Serving base path, atomically and once.

    The SavedModel in the model's `Format-Serving/` becomes `<base_path>/<version>`; the quantized model that is marked
    as chosen becomes `<base_path>_lite/<version>/model.tflite`, with name and version in its metadata. Both carry a
    manifest, the SavedModel also warm-up requests for each signature. Where no quantized model is chosen and the report
    says so, the earlier ones are withdrawn. A model with a negative verdict (blessing, quantization report, infra
    blessing) is not published; one that is published already, or was withdrawn, is not published again.

    Where the settings name servers, the version is watched until they answer with it as the Trainer did, and withdrawn
    where they do not; see `evergreen.components.pusher.watch`.

    The output's custom properties are the stock Pusher's `pushed`, `pushed_version` (str) and `pushed_destination`, and
    `published` (1, or 0 where the same model was there already, a gate is closed or the version was withdrawn), `span`,
    `message`, `withdrawn` (1 or 0), `reason` (why it was) and `canary` (JSON, what a trial measured).
    """

    SPEC_CLASS = PusherSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(
        self,
        model: types.BaseChannel,
        settings: str,
        span: int,
        name: str,
        span_version: int | None = None,
        quantized_models: types.BaseChannel | None = None,
        blessing: types.BaseChannel | None = None,
        quantization_report: types.BaseChannel | None = None,
        infra_blessing: types.BaseChannel | None = None,
        champion: types.BaseChannel | None = None,
        schema: types.BaseChannel | None = None,
        examples: types.BaseChannel | None = None,
        evaluation: types.BaseChannel | None = None,
        fingerprint: str | None = None,
    ):
        """Builds the component.

        Args:
          model: Model; what to publish.
          settings: JSON of the configuration's `publish`: `base_path` (local, absolute), `keep` (default 3), `warmup`
            (`schema`, the default, `real` or `none`), and how the version is watched: `server`, `watch`, `canary`,
            `models_config`.
          span: newest span of the training window.
          name: the pipeline's name, for the manifest.
          span_version: that span's version, for the manifest.
          quantized_models: Models with the custom properties `quantization` and `chosen`; the chosen one is published.
          blessing: ModelBlessing; its properties `metrics` and `champion_on_span` (JSON) go into the manifest.
          quantization_report: QuantizationReport.
          infra_blessing: InfraBlessing, of the ServingValidator or of TFX's InfraValidator.
          champion: the Model that the candidate was compared with, or nothing if ML Metadata knew none. If the channel
            is given and another model has gone live since, the push is refused.
          schema: Schema; the rows of the warm-up requests are made from its domains.
          examples: Examples; rows of their split `exam` are sent to the servers, and with `warmup: real` its first rows
            are the warm-up requests, and so part of what is published.
          evaluation: the ModelEvaluation that holds the Trainer's answers to these rows; without it, or the examples,
            no answers are compared.
          fingerprint: part of the cache key, nothing else.
        """
        super().__init__(
            PusherSpec(
                model=model,
                settings=settings,
                span=span,
                name=name,
                span_version=span_version,
                quantized_models=quantized_models,
                blessing=blessing,
                quantization_report=quantization_report,
                infra_blessing=infra_blessing,
                champion=champion,
                schema=schema,
                examples=examples,
                evaluation=evaluation,
                fingerprint=fingerprint,
                pushed_model=types.Channel(type=standard_artifacts.PushedModel),
            )
        )
