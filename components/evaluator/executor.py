"""Runs ChampionExam and the Evaluator: reads artifacts, lets models answer, asks the pure modules, writes artifacts."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from tfx import types
from tfx.dsl.components.base import base_beam_executor, base_executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.utils import path_utils

from evergreen.components.errors import DataRejected
from evergreen.components.evaluator import analysis, bootstrap, gate, metrics, predict, report, slices, tables
from evergreen.components.evaluator.champion import EXAM, Champion
from evergreen.components.evaluator.settings import EvaluateSettings

COMPARISON_FILE = "comparison.json"

# The stock Evaluator's files and properties, which stock resolvers and the stock Pusher read; its module cannot be
# imported without every stock component.
BLESSED_FILE, NOT_BLESSED_FILE = "BLESSED", "NOT_BLESSED"
BLESSED = "blessed"
CURRENT_MODEL, CURRENT_MODEL_ID = "current_model", "current_model_id"
BASELINE_MODEL, BASELINE_MODEL_ID = "baseline_model", "baseline_model_id"

_log = logging.getLogger(__name__)

Artifacts = dict[str, list[types.Artifact]]


class ChampionExamExecutor(base_executor.BaseExecutor):
    """Lets the champion answer a whole span."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]) -> None:
        """See `component.ChampionExam` for the inputs, outputs and parameters."""
        settings = EvaluateSettings.from_json(exec_properties["settings"])
        evaluation = artifact_utils.get_single_instance(output_dict["evaluation"])
        _set(evaluation, {"champion": 0, "span": exec_properties["span"], "metrics": "{}", "rows": 0, "error": ""})
        if not input_dict.get("champion"):
            return
        champion = artifact_utils.get_single_instance(input_dict["champion"])
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        splits = artifact_utils.decode_split_names(examples.split_names)
        answers = predict.answer(examples.uri, splits, settings.label, settings.columns, _serving_model(champion))
        tables.write(answers.table, evaluation.uri)
        labels, predictions = (answers.table[name].to_numpy() for name in ("label", "prediction"))
        metrics.check_labels(settings.metrics, labels)
        values = metrics.compute(settings.metrics, labels, predictions, settings.threshold)
        error = answers.error or _not_finite(answers)
        if error:
            _log.warning("The champion (model %s) cannot answer the rows of the new span: %s", champion.id, error)
        _set(
            evaluation,
            {
                "champion": 1,
                "metrics": json.dumps(report.defined(values)),
                "rows": answers.table.num_rows,
                "model_id": champion.id,
                "model_uri": champion.uri,
                "error": error,
            },
        )


class EvaluatorExecutor(base_beam_executor.BaseBeamExecutor):
    """Examines a challenger and writes gate 2's verdict."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]) -> None:
        """See `component.Evaluator` for the inputs, outputs and parameters."""
        settings = EvaluateSettings.from_json(exec_properties["settings"])
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        model = artifact_utils.get_single_instance(input_dict["model"])
        evaluation = artifact_utils.get_single_instance(output_dict["evaluation"])
        blessing = artifact_utils.get_single_instance(output_dict["blessing"])
        champion = Champion.read(input_dict.get("champion_evaluation") or [])

        answers = predict.answer(examples.uri, [EXAM], settings.label, settings.columns, _serving_model(model))
        _check(answers.table, settings, exec_properties["span"], examples.uri)
        table, models = answers.table, {analysis.CHALLENGER: model.uri}
        if champion.usable:
            table = table.append_column("champion_prediction", champion.exam_predictions(table))
            models[analysis.CHAMPION] = champion.model_uri
        predictions_file = tables.write(table, evaluation.uri)
        result = analysis.run(self._make_beam_pipeline, predictions_file, evaluation.uri, settings, models)

        overall, by_slice, units = _measure(table, settings, result)
        notes = champion.notes
        if champion.usable and units < bootstrap.FEW_BLOCKS:
            notes.append(f"The bootstrap drew from {units} blocks only: its bounds are rough.")
        verdict = gate.judge(settings, overall, by_slice, failed=_failure(answers), notes=notes)
        comparison = report.build(
            settings, exec_properties["span"], overall, by_slice, verdict, champion=champion.facts(), units=units
        )
        with fileio.open(os.path.join(evaluation.uri, COMPARISON_FILE), "w") as stream:
            stream.write(json.dumps(comparison, indent=1, allow_nan=False))
        _set(evaluation, {"span": exec_properties["span"], "rows": table.num_rows})
        _bless(blessing, verdict, comparison, overall, champion, model)
        _log.info("Gate 2 %s", report.summary(comparison))


def _check(table: pa.Table, settings: EvaluateSettings, span: int, examples_uri: str) -> None:
    """Refuses an exam that can say nothing: no rows, or labels that the metrics cannot take."""
    if not table.num_rows:
        raise DataRejected(
            f"Span {span} has no exam rows",
            f"The split `{EXAM}` of {examples_uri} is empty, so nothing can be said about a model.",
            "Set `data.exam` so that the newest span has exam rows.",
        )
    metrics.check_labels(settings.metrics, table["label"].to_numpy())


def _measure(
    table: pa.Table, settings: EvaluateSettings, result: analysis.Result
) -> tuple[gate.Measured, list[gate.Measured], int]:
    """Puts TFMA's metrics and the bootstrap's bounds together, overall and by slice; counts the units drawn from."""
    labels, challenger = (table[name].to_numpy() for name in ("label", "prediction"))
    champion = table["champion_prediction"].to_numpy() if "champion_prediction" in table.column_names else None
    blocks = slices.blocks(table, settings.bootstrap.block)

    def measured(key: slices.SliceKey, rows: np.ndarray) -> gate.Measured:
        found = result[key]
        bounds: dict[str, bootstrap.Bounds] = {}
        enough = key == slices.OVERALL or len(rows) >= settings.min_slice_rows
        if champion is not None and enough and np.isfinite(challenger).all():
            bounds = bootstrap.paired(
                settings.metrics,
                labels[rows],
                challenger[rows],
                champion[rows],
                samples=settings.bootstrap.samples,
                confidence=settings.bootstrap.confidence,
                blocks=None if blocks is None else blocks[rows],
                threshold=settings.threshold,
            )
        return gate.Measured(
            slices.text(key),
            len(rows),
            {name: found[analysis.CHALLENGER][name] for name in settings.metrics},
            {name: found[analysis.CHAMPION][name] for name in settings.metrics} if champion is not None else {},
            bounds,
            dict(key),
        )

    overall = measured(slices.OVERALL, np.arange(table.num_rows))
    by_slice = [measured(key, rows) for columns in settings.slices for key, rows in slices.members(table, columns)]
    return overall, by_slice, bootstrap.block_count(blocks, table.num_rows)


def _bless(
    blessing: types.Artifact,
    verdict: gate.Verdict,
    comparison: report.Comparison,
    overall: gate.Measured,
    champion: Champion,
    model: types.Artifact,
) -> None:
    fileio.makedirs(blessing.uri)
    file = BLESSED_FILE if verdict.blessed else NOT_BLESSED_FILE
    with fileio.open(os.path.join(blessing.uri, file), "w") as stream:
        stream.write("")
    if champion.usable:
        _set(blessing, {BASELINE_MODEL: champion.model_uri, BASELINE_MODEL_ID: champion.model_id})
    _set(
        blessing,
        {
            BLESSED: int(verdict.blessed),
            CURRENT_MODEL: model.uri,
            CURRENT_MODEL_ID: model.id,
            "span": comparison["span"],
            "summary": report.summary(comparison),
            "reasons": json.dumps(verdict.reasons),
            "metrics": json.dumps(report.defined(overall.challenger)),
            "champion_metrics": json.dumps(report.defined(overall.champion) if champion.usable else None),
            "champion_on_span": json.dumps(champion.on_span or None),
        },
    )


def _failure(answers: predict.Answers) -> str:
    """Why the challenger's answers cannot be judged, in a sentence; empty when they can."""
    if answers.error:
        return f"The challenger cannot answer the exam rows: {answers.error}"
    bad = _not_finite(answers)
    return f"The challenger cannot be judged: {bad}." if bad else ""


def _not_finite(answers: predict.Answers) -> str:
    bad = answers.not_finite
    return f"its prediction is not a finite number in {bad:,} of {answers.table.num_rows:,} rows" if bad else ""


def _serving_model(model: types.Artifact) -> str:
    return path_utils.serving_model_path(model.uri, path_utils.is_old_model_artifact(model))


def _set(artifact: types.Artifact, properties: Mapping[str, int | str]) -> None:
    for name, value in properties.items():
        if isinstance(value, str):
            artifact.set_string_custom_property(name, value)
        else:
            artifact.set_int_custom_property(name, value)
