"""The Trainer as a TFX component: its inputs, outputs and parameters."""

from __future__ import annotations

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from evergreen.components.trainer.executor import Executor


class TrainerSpec(ComponentSpec):
    """See `Trainer`."""

    PARAMETERS = {
        "settings": ExecutionParameter(type=str),
        "label": ExecutionParameter(type=str),
        "newest_span": ExecutionParameter(type=int),
        "project_dir": ExecutionParameter(type=str),
        "fingerprint": ExecutionParameter(type=str),
    }
    INPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "transform_graph": ChannelParameter(type=standard_artifacts.TransformGraph),
        "schema": ChannelParameter(type=standard_artifacts.Schema, optional=True),
        "base_model": ChannelParameter(type=standard_artifacts.Model, optional=True),
        "transformed_examples": ChannelParameter(type=standard_artifacts.Examples, optional=True),
    }
    OUTPUTS = {
        "model": ChannelParameter(type=standard_artifacts.Model),
        "model_run": ChannelParameter(type=standard_artifacts.ModelRun),
    }


class Trainer(base_component.BaseComponent):
    """Trains a user's `build_model` on a window of raw examples, or runs a stock `run_fn` on transformed ones.

    The model learns from the split `train` of every artifact and from `exam` of all but the newest span; early stopping
    watches `validation`.

    Outputs:
      model: a Model artifact, laid out as `evergreen.components.model_layout` says. Custom properties `span`, `seed`,
        `steps`, `warm_start` (1 or 0) and `warm_runs` (how many trainings in a row started warm).
      model_run: a ModelRun artifact with report.json and TensorBoard logs; custom property `report`: the same in short.

    Args:
      examples: the window's Examples.
      transform_graph: the window's TransformGraph.
      settings: the section `trainer` as JSON; see `evergreen.components.trainer.settings.TrainerSettings`.
      label: the label's name.
      newest_span: the span whose split `exam` the model must not see.
      project_dir: the folder of the user's modules.
      schema: the Schema; handed to a `run_fn`.
      base_model: the champion, for a warm start; nothing if there is none.
      transformed_examples: what Transform materialized from `examples`; a `run_fn` reads it.
      fingerprint: of the code and the packages; part of the cache key.
    """

    SPEC_CLASS = TrainerSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        examples: types.BaseChannel,
        transform_graph: types.BaseChannel,
        settings: str,
        label: str,
        newest_span: int,
        project_dir: str,
        schema: types.BaseChannel | None = None,
        base_model: types.BaseChannel | None = None,
        transformed_examples: types.BaseChannel | None = None,
        fingerprint: str = "",
    ):
        super().__init__(
            TrainerSpec(
                examples=examples,
                transform_graph=transform_graph,
                settings=settings,
                label=label,
                newest_span=newest_span,
                project_dir=project_dir,
                schema=schema,
                base_model=base_model,
                transformed_examples=transformed_examples,
                fingerprint=fingerprint,
                model=types.Channel(type=standard_artifacts.Model),
                model_run=types.Channel(type=standard_artifacts.ModelRun),
            )
        )
