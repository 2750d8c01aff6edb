"""The Trainer as a TFX component: its inputs, outputs and parameters."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from evergreen.components import user_code
from evergreen.components.errors import ConfigError
from evergreen.components.trainer.executor import Executor
from evergreen.components.trainer.settings import TrainerSettings


class TrainerSpec(ComponentSpec):
    """See `Trainer`."""

    PARAMETERS = {
        "settings": ExecutionParameter(type=str),
        "label": ExecutionParameter(type=str),
        "newest_span": ExecutionParameter(type=int, optional=True),
        "project_dir": ExecutionParameter(type=str),
        "fingerprint": ExecutionParameter(type=str),
    }
    INPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples, optional=True),
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
    """Trains a user's `build_model` on a window of examples, or runs a stock `run_fn`.

    The model learns from the split `train` of every artifact and from `exam` of all but the newest span; early stopping
    watches `validation`, or `eval` as stock ExampleGens call it. docs/training.md has a pipeline of stock components
    around it.

    Outputs:
      model: a Model artifact, laid out as `evergreen.components.model_layout` says. Custom properties `span`, `seed`,
        `steps`, `warm_start` (1 or 0) and `warm_runs` (how many trainings in a row started warm).
      model_run: a ModelRun artifact with report.json and TensorBoard logs; custom property `report`: the same in short.

    Args:
      transform_graph: the window's TransformGraph.
      settings: as `evergreen.components.trainer.settings.TrainerSettings` names them; a dict, or the same as JSON.
      label: the label's name.
      examples: the window's Examples, raw; or, as for a stock Trainer, what Transform materialized.
      newest_span: the span whose split `exam` the model must not see; by default the newest of the examples.
      project_dir: the folder of the user's modules; by default where the pipeline is built.
      schema: the Schema; handed to a `run_fn`.
      base_model: the champion, for a warm start; nothing if there is none.
      transformed_examples: what Transform materialized from `examples`. A `run_fn` reads it; a `build_model` is trained
        on it where there are no raw examples.
      fingerprint: part of the cache key; by default a hash of the user's modules.

    Raises:
      ConfigError: the settings are wrong, or there are no examples.
    """

    SPEC_CLASS = TrainerSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        *,
        transform_graph: types.BaseChannel,
        settings: Mapping[str, Any] | str,
        label: str,
        examples: types.BaseChannel | None = None,
        newest_span: int | None = None,
        project_dir: str | os.PathLike[str] = ".",
        schema: types.BaseChannel | None = None,
        base_model: types.BaseChannel | None = None,
        transformed_examples: types.BaseChannel | None = None,
        fingerprint: str | None = None,
    ):
        if examples is None and transformed_examples is None:
            raise ConfigError(
                "the Trainer has no examples",
                "received neither `examples` nor `transformed_examples`",
                "Give it the outputs of an ExampleGen, or of a Transform that materializes.",
            )
        if transformed_examples is None and getattr(examples, "output_key", "") == "transformed_examples":
            # As a stock Trainer is given them. Taken for raw rows, all their features would seem to be missing.
            examples, transformed_examples = None, examples
        if isinstance(settings, Mapping):
            TrainerSettings.from_dict(settings)
            settings = json.dumps(settings, sort_keys=True)
        project_dir = os.path.abspath(project_dir)
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
                fingerprint=_digest(settings, project_dir) if fingerprint is None else fingerprint,
                model=types.Channel(type=standard_artifacts.Model),
                model_run=types.Channel(type=standard_artifacts.ModelRun),
            )
        )


def _digest(settings: Any, project_dir: str) -> str:
    """Hashes the modules of the user's function, so that a change of them is not answered from the cache."""
    values = json.loads(settings) if isinstance(settings, str) else {}  # else known only when the pipeline runs
    spec = values.get("model") or values.get("run_fn")
    return user_code.digest(spec, project_dir) if spec else ""
