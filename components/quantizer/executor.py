"""Runs one quantization: convert, answer the exam rows, judge, and hand on what passed."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from tfx.dsl.components.base import base_executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_artifacts

from evergreen.components import model_layout, progress
from evergreen.components.evaluator import metrics
from evergreen.components.evaluator.settings import EvaluateSettings
from evergreen.components.quantizer import convert, exam, interpreter, measure, report
from evergreen.components.quantizer.settings import BASELINE, QuantizeSettings

REPORT_FILE = "report.json"
MODEL_FILE = "model.tflite"

_log = logging.getLogger(__name__)


class Executor(base_executor.BaseExecutor):
    """Makes the variants, measures and gates them, and writes a Model artifact for each that passed."""

    def Do(self, input_dict: dict[str, list], output_dict: dict[str, list], exec_properties: dict[str, Any]) -> None:
        """See `component.Quantizer` for the inputs, outputs and parameters."""
        settings = QuantizeSettings.from_json(exec_properties["settings"])
        evaluate = EvaluateSettings.from_json(exec_properties["evaluate_settings"])
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        core = model_layout.core_dir(artifact_utils.get_single_uri(input_dict["model"]))
        contents: dict[str, bytes] = {}
        if not settings.variants:
            result = report.nothing_to_do(settings, examples.span, "not quantized: no variants are configured")
        elif not model_layout.is_saved_model(core):
            result = report.nothing_to_do(settings, examples.span, "not quantized: the model came from run_fn")
        else:
            contents, failures = _convert(core, settings)
            result = _measure(input_dict, examples, settings, evaluate, contents, failures)
        _write_models(output_dict["models"], result, contents)
        _write_report(artifact_utils.get_single_instance(output_dict["report"]), result)
        for sentence in report.left_out(result):
            _log.warning(sentence)


def _convert(core: str, settings: QuantizeSettings) -> tuple[dict[str, bytes], dict[str, str]]:
    contents, failures = {}, {}
    for variant in report.needs_baseline(settings):
        progress.report(None, f"converting to {variant}")
        try:
            contents[variant] = convert.convert(core, variant)
        except convert.ConversionFailed as failure:
            failures[variant] = str(failure)
    return contents, failures


def _measure(
    input_dict: dict[str, list],
    examples: standard_artifacts.Examples,
    settings: QuantizeSettings,
    evaluate: EvaluateSettings,
    contents: dict[str, bytes],
    failures: dict[str, str],
) -> report.Report:
    recorded, reference = exam.reference(artifact_utils.get_single_uri(input_dict["evaluation"]))
    transform_graph = artifact_utils.get_single_uri(input_dict["transform_graph"])
    models = {variant: interpreter.LiteModel(content) for variant, content in contents.items()}
    features = sorted({name for model in models.values() for name in model.input_names})
    progress.report(None, "answering the exam rows")
    batches = exam.batches(examples.uri, transform_graph, evaluate.label, features)
    labels, predictions = _answer(models, batches, failures)
    exam.check_same_rows(labels, recorded)

    names = tuple(dict.fromkeys([*evaluate.metrics, *settings.max_drop]))
    threshold = evaluate.threshold
    reference_metrics = metrics.compute(names, labels, reference, threshold)
    rows = []
    for variant in report.needs_baseline(settings):
        measurement = None
        if variant in predictions:
            measurement = measure.compare(predictions[variant], reference, labels, reference_metrics, threshold)
        rows.append(
            report.variant_row(
                variant,
                settings,
                size=len(contents[variant]) if variant in contents else None,
                baseline_size=len(contents[BASELINE]) if BASELINE in contents else None,
                measurement=measurement,
                failure=failures.get(variant, ""),
                dynamic_batch=models[variant].dynamic_batch if variant in models else True,
            )
        )
    return report.build(settings, rows, reference_metrics, examples.span, len(labels), threshold)


def _answer(
    models: dict[str, interpreter.LiteModel], batches: Iterable[exam.Batch], failures: dict[str, str]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Lets every model answer every batch, reading the rows once; a model that fails goes into `failures`."""
    read = [np.empty(0)]
    answers: dict[str, list[np.ndarray]] = {variant: [] for variant in models}
    for features, labels in batches:
        read.append(labels)
        for variant in list(answers):
            try:
                answers[variant].append(models[variant].predict(features))
            except (RuntimeError, ValueError) as error:
                del answers[variant]
                failures[variant] = f"the interpreter fails: {str(error).splitlines()[0]}"
    return np.concatenate(read), {variant: np.concatenate(parts) for variant, parts in answers.items() if parts}


def _write_models(models: list[standard_artifacts.Model], result: report.Report, contents: dict[str, bytes]) -> None:
    """Replaces the one output artifact by one for each variant that passed, each in a sub-folder of its URI."""
    (base,) = models
    models.clear()
    for row in result["variants"]:
        if not row["passed"] or row["made_for"] != "publishing":
            continue
        variant = row["variant"]
        model = standard_artifacts.Model()
        model.uri = os.path.join(base.uri, variant)
        model.set_string_custom_property("quantization", variant)
        model.set_int_custom_property("bytes", row["bytes"])
        model.set_string_custom_property("metrics", json.dumps(row["metrics"]))
        model.set_int_custom_property("chosen", int(variant == result["chosen"]))
        folder = model_layout.serving_dir(model.uri)
        fileio.makedirs(folder)
        with fileio.open(os.path.join(folder, MODEL_FILE), "wb") as file:
            file.write(contents[variant])
        models.append(model)


def _write_report(artifact: Any, result: report.Report) -> None:
    with fileio.open(os.path.join(artifact.uri, REPORT_FILE), "w") as file:
        file.write(json.dumps(result, indent=1))
    artifact.span = result["span"]
    artifact.chosen = result["chosen"] or ""
    artifact.set_int_custom_property("passed", int(result["passed"]))
    artifact.set_string_custom_property("reason", result["reason"])
    artifact.set_string_custom_property("table", json.dumps(result))
