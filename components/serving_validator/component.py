"""The ServingValidator as a TFX component: its inputs, outputs and parameters."""

from __future__ import annotations

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from evergreen.components.artifacts import QuantizationReport
from evergreen.components.serving_validator.executor import Executor


class ServingValidatorSpec(ComponentSpec):
    """See `ServingValidator`."""

    PARAMETERS = {
        "settings": ExecutionParameter(type=str),
        "fingerprint": ExecutionParameter(type=str),
    }
    INPUTS = {
        "model": ChannelParameter(type=standard_artifacts.Model),
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "evaluation": ChannelParameter(type=standard_artifacts.ModelEvaluation),
        "quantized_models": ChannelParameter(type=standard_artifacts.Model, optional=True),
        "quantization_report": ChannelParameter(type=QuantizationReport, optional=True),
    }
    OUTPUTS = {"blessing": ChannelParameter(type=standard_artifacts.InfraBlessing)}


class ServingValidator(base_component.BaseComponent):
    """Gate 4: a model server in a process of its own loads the candidate and answers rows of the exam.

    The server is `tensorflow_model_server` where that is on PATH, else the built-in one; no container is needed. It is
    asked by gRPC and by REST, every signature that rows can be made for, and its answers are compared with those that
    the model gave in the Evaluator. The built-in server is asked about the chosen TFLite variant too.

    Outputs:
      blessing: an InfraBlessing with the stock file `INFRA_BLESSED` or `INFRA_NOT_BLESSED`, so that the stock Pusher
        takes it, `report.json` (see `report`) and `server.log`; custom properties `blessed` (1 or 0), `reasons` and
        `report` (JSON).

    Args:
      model: a Model artifact, its SavedModel in `Format-Serving/`.
      examples: the newest span's Examples, with a split `exam`.
      evaluation: the Evaluator's ModelEvaluation of `model`: its answers to these rows.
      settings: the section `serving` as JSON; see `evergreen.components.serving_validator.settings.ServingSettings`.
      quantized_models: the Quantizer's Models; the chosen one is asked.
      quantization_report: the Quantizer's report: how far the chosen one may be from the SavedModel.
      fingerprint: of the code and the packages; part of the cache key.
    """

    SPEC_CLASS = ServingValidatorSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        model: types.BaseChannel,
        examples: types.BaseChannel,
        evaluation: types.BaseChannel,
        settings: str,
        quantized_models: types.BaseChannel | None = None,
        quantization_report: types.BaseChannel | None = None,
        fingerprint: str = "",
    ):
        super().__init__(
            ServingValidatorSpec(
                model=model,
                examples=examples,
                evaluation=evaluation,
                quantized_models=quantized_models,
                quantization_report=quantization_report,
                settings=settings,
                fingerprint=fingerprint,
                blessing=types.Channel(type=standard_artifacts.InfraBlessing),
            )
        )
