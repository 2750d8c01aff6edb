"""The Quantizer as a TFX component: its inputs, outputs and parameters."""

from __future__ import annotations

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from evergreen.components.artifacts import QuantizationReport
from evergreen.components.quantizer.executor import Executor


class QuantizerSpec(ComponentSpec):
    """See `Quantizer`."""

    PARAMETERS = {
        "settings": ExecutionParameter(type=str),
        "evaluate_settings": ExecutionParameter(type=str),
        "fingerprint": ExecutionParameter(type=str),
    }
    INPUTS = {
        "model": ChannelParameter(type=standard_artifacts.Model),
        "transform_graph": ChannelParameter(type=standard_artifacts.TransformGraph),
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "evaluation": ChannelParameter(type=standard_artifacts.ModelEvaluation),
    }
    OUTPUTS = {
        "models": ChannelParameter(type=standard_artifacts.Model),
        "report": ChannelParameter(type=QuantizationReport),
    }


class Quantizer(base_component.BaseComponent):
    """Makes TFLite variants of a trained model, measures each on the exam rows and drops those that lose too much.

    Outputs:
      models: a Model artifact for each variant that passed (`<variant>/Format-Serving/model.tflite`; custom properties
        `quantization`, `bytes`, `metrics`, `chosen`); none when none passed, so a consumer's input must be optional.
      report: a QuantizationReport; its custom property `passed` is gate 3.

    Args:
      model: a Model artifact of our Trainer; without `Core/` (a module with `run_fn`) nothing is quantized.
      transform_graph: the TransformGraph that the model was trained on.
      examples: the newest span's Examples, with a split `exam`.
      evaluation: the Evaluator's ModelEvaluation of `model`: the SavedModel's answers on the same rows.
      settings: the section `quantize` as JSON; see `evergreen.components.quantizer.settings.QuantizeSettings`.
      evaluate_settings: the section `evaluate` as JSON: `label`, `metrics` and `threshold` are read.
      fingerprint: of the code and the packages; part of the cache key.
    """

    SPEC_CLASS = QuantizerSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        model: types.BaseChannel,
        transform_graph: types.BaseChannel,
        examples: types.BaseChannel,
        evaluation: types.BaseChannel,
        settings: str,
        evaluate_settings: str,
        fingerprint: str = "",
    ):
        super().__init__(
            QuantizerSpec(
                model=model,
                transform_graph=transform_graph,
                examples=examples,
                evaluation=evaluation,
                settings=settings,
                evaluate_settings=evaluate_settings,
                fingerprint=fingerprint,
                models=types.Channel(type=standard_artifacts.Model),
                report=types.Channel(type=QuantizationReport),
            )
        )
