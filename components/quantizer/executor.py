"""Runs one quantization and hands on what passed."""

from __future__ import annotations

import json
import logging
import os
from typing import Any

from tfx.dsl.components.base import base_executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_artifacts

from evergreen.components import model_layout
from evergreen.components.evaluator.settings import EvaluateSettings
from evergreen.components.quantizer import quantization, report
from evergreen.components.quantizer.settings import QuantizeSettings

REPORT_FILE, PAGE_FILE = "report.json", "report.html"
# TensorFlow Serving reads the one name, TensorFlow Model Analysis the other.
MODEL_FILES = ("model.tflite", "tflite")

_log = logging.getLogger(__name__)


class Executor(base_executor.BaseExecutor):
    """Makes the variants, measures and gates them, and writes a Model artifact for each that passed."""

    def Do(self, input_dict: dict[str, list], output_dict: dict[str, list], exec_properties: dict[str, Any]) -> None:
        """See `component.Quantizer` for the inputs, outputs and parameters."""
        settings = QuantizeSettings.from_json(exec_properties["settings"])
        evaluate = EvaluateSettings.from_json(exec_properties["evaluate_settings"])
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        uris = {name: artifact_utils.get_single_uri(input_dict[name]) for name in _MODEL_INPUTS}
        if not settings.variants:
            made = quantization.nothing_to_do(settings, examples.span, "not quantized: no variants are configured")
        elif not model_layout.is_saved_model(model_layout.core_dir(uris["model"])):
            made = quantization.nothing_to_do(settings, examples.span, "not quantized: the model came from run_fn")
        else:
            inputs = quantization.Inputs(examples=examples.uri, span=examples.span, **uris)
            made = quantization.quantize(inputs, settings, evaluate)
        _write_models(output_dict["models"], made)
        _write_report(artifact_utils.get_single_instance(output_dict["report"]), made)
        for sentence in report.left_out(made.report):
            _log.warning(sentence)


_MODEL_INPUTS = ("model", "transform_graph", "evaluation")


def _write_models(models: list[standard_artifacts.Model], made: quantization.Quantized) -> None:
    """Replaces the one output artifact by one for each variant that passed, each in a sub-folder of its URI."""
    (base,) = models
    models.clear()
    for row in made.report["variants"]:
        if not row["passed"] or row["made_for"] != "publishing":
            continue
        variant = row["variant"]
        model = standard_artifacts.Model()
        model.uri = os.path.join(base.uri, variant)
        model.set_string_custom_property("quantization", variant)
        model.set_int_custom_property("bytes", row["bytes"])
        model.set_string_custom_property("metrics", json.dumps(row["metrics"]))
        model.set_int_custom_property("chosen", int(variant == made.report["chosen"]))
        folder = model_layout.serving_dir(model.uri)
        fileio.makedirs(folder)
        for name in MODEL_FILES:
            with fileio.open(os.path.join(folder, name), "wb") as file:
                file.write(made.contents[variant])
        models.append(model)


def _write_report(artifact: Any, made: quantization.Quantized) -> None:
    result = made.report
    with fileio.open(os.path.join(artifact.uri, REPORT_FILE), "w") as file:
        file.write(json.dumps(result, indent=1, allow_nan=False))
    with fileio.open(os.path.join(artifact.uri, PAGE_FILE), "w") as file:
        file.write(made.page)
    artifact.span = result["span"]
    artifact.chosen = result["chosen"] or ""
    artifact.set_int_custom_property("passed", int(result["passed"]))
    artifact.set_int_custom_property("withdraw", int(result["chosen"] is None and result["when_none"] == "withdraw"))
    artifact.set_string_custom_property("reason", result["reason"])
    artifact.set_string_custom_property("table", json.dumps(report.summary(result)))
