"""ChampionExam and Evaluator as TFX components: what goes in, what comes out."""

from __future__ import annotations

from tfx import types
from tfx.dsl.components.base import base_beam_component, base_component, executor_spec
from tfx.types import component_spec, standard_artifacts

from evergreen.components.evaluator import executor


class ChampionExamSpec(types.ComponentSpec):
    """Parameters and channels of ChampionExam."""

    PARAMETERS = {
        "settings": component_spec.ExecutionParameter(type=str),
        "span": component_spec.ExecutionParameter(type=int),
        "fingerprint": component_spec.ExecutionParameter(type=str, optional=True),
    }
    INPUTS = {
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "champion": component_spec.ChannelParameter(type=standard_artifacts.Model, optional=True),
    }
    OUTPUTS = {"evaluation": component_spec.ChannelParameter(type=standard_artifacts.ModelEvaluation)}


class ChampionExam(base_component.BaseComponent):
    """Lets the model in production answer a whole new span before anything is trained on it.

    Its metrics on the span say how fast models go stale; its answers to the exam rows are what the Evaluator compares
    the challenger with.

    The output `evaluation` holds `predictions.parquet` (`split`, `row`, `label`, `prediction` and the columns of
    slices and blocks; every row of every split) and the custom properties `champion` (1, or 0 without one: then there
    is nothing else), `metrics` (JSON, the whole span; undefined ones left out), `rows`, `span`, `model_id`,
    `model_uri` and `error` (why the champion could not answer the rows; empty when it could).
    """

    SPEC_CLASS = ChampionExamSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.ChampionExamExecutor)

    def __init__(
        self,
        examples: types.BaseChannel,
        settings: str,
        span: int,
        champion: types.BaseChannel | None = None,
        fingerprint: str | None = None,
    ):
        """Describes the node.

        Args:
          examples: the Examples of the newest span.
          settings: the section `evaluate` as JSON.
          span: the newest span.
          champion: the Model in production; no channel, or an empty one, where nothing was published yet.
          fingerprint: of code and packages; a part of the cache key, unused otherwise.
        """
        super().__init__(
            ChampionExamSpec(
                examples=examples,
                champion=champion,
                settings=settings,
                span=span,
                fingerprint=fingerprint,
                evaluation=types.Channel(type=standard_artifacts.ModelEvaluation),
            )
        )


class EvaluatorSpec(types.ComponentSpec):
    """Parameters and channels of the Evaluator."""

    PARAMETERS = {
        "settings": component_spec.ExecutionParameter(type=str),
        "span": component_spec.ExecutionParameter(type=int),
        "fingerprint": component_spec.ExecutionParameter(type=str, optional=True),
    }
    INPUTS = {
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "champion_evaluation": component_spec.ChannelParameter(type=standard_artifacts.ModelEvaluation, optional=True),
    }
    OUTPUTS = {
        "evaluation": component_spec.ChannelParameter(type=standard_artifacts.ModelEvaluation),
        "blessing": component_spec.ChannelParameter(type=standard_artifacts.ModelBlessing),
    }


class Evaluator(base_beam_component.BaseBeamComponent):
    """Gate 2: examines the challenger on rows that nobody trained on, beside the champion. See `gate` for the rules.

    The output `evaluation` is a TFMA result (`tfma.load_eval_result(uri)`; with a champion the models are named
    `challenger` and `champion`) with `predictions.parquet` (the columns of ChampionExam's, and `champion_prediction`
    with a champion) and `comparison.json` (see `report`).

    The output `blessing` holds the stock file `BLESSED` or `NOT_BLESSED` and the custom properties `blessed` (1 or 0),
    `reasons` (JSON, sentences), `metrics` and `champion_metrics` (JSON, the exam; `null` without a champion),
    `champion_on_span` (JSON or `null`), `span`, `summary`, and the stock `current_model`, `current_model_id`,
    `baseline_model`, `baseline_model_id`.
    """

    SPEC_CLASS = EvaluatorSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(executor.EvaluatorExecutor)

    def __init__(
        self,
        examples: types.BaseChannel,
        model: types.BaseChannel,
        settings: str,
        span: int,
        champion_evaluation: types.BaseChannel | None = None,
        fingerprint: str | None = None,
    ):
        """Describes the node.

        Args:
          examples: the Examples of the newest span, with a split `exam`.
          model: the challenger.
          settings: the section `evaluate` as JSON.
          span: the newest span.
          champion_evaluation: ChampionExam's output for the same examples; without it there is no champion.
          fingerprint: of code and packages; a part of the cache key, unused otherwise.
        """
        super().__init__(
            EvaluatorSpec(
                examples=examples,
                model=model,
                champion_evaluation=champion_evaluation,
                settings=settings,
                span=span,
                fingerprint=fingerprint,
                evaluation=types.Channel(type=standard_artifacts.ModelEvaluation),
                blessing=types.Channel(type=standard_artifacts.ModelBlessing),
            )
        )
