"""Runs one validation and writes its verdict."""

from __future__ import annotations

import json
import logging
import os
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils

from evergreen.components import model_layout
from evergreen.components.serving_validator import validation
from evergreen.components.serving_validator.replay import Lite
from evergreen.components.serving_validator.report import Report
from evergreen.components.serving_validator.settings import ServingSettings

REPORT_FILE, LOG_FILE = "report.json", "server.log"
# Names and property of TFX's own InfraValidator, which the stock Pusher reads.
BLESSED_FILE, NOT_BLESSED_FILE = "INFRA_BLESSED", "INFRA_NOT_BLESSED"

_log = logging.getLogger(__name__)

_Artifacts = dict[str, list[types.Artifact]]


class Executor(base_executor.BaseExecutor):
    """Lets a server answer; see `component.ServingValidator` for the inputs, outputs and parameters."""

    def Do(self, input_dict: _Artifacts, output_dict: _Artifacts, exec_properties: dict[str, Any]) -> None:
        """Validates and writes the verdict."""
        settings = ServingSettings.from_json(exec_properties["settings"])
        uris = {name: artifact_utils.get_single_uri(input_dict[name]) for name in ("model", "examples", "evaluation")}
        chosen = [a for a in input_dict.get("quantized_models") or [] if a.get_int_custom_property("chosen") == 1]
        reports = input_dict.get("quantization_report") or []
        lite = None
        if chosen:
            variant = chosen[0].get_string_custom_property("quantization")
            table = json.loads(reports[0].get_string_custom_property("table") or "{}") if reports else {}
            lite = Lite(
                model_layout.serving_dir(chosen[0].uri),
                variant,
                raw=table.get("inputs") != "transformed",
                difference=_difference(table, variant),
            )
        result, log = validation.validate(
            validation.Inputs(
                saved_model=model_layout.serving_dir(uris["model"]),
                examples=uris["examples"],
                evaluation=uris["evaluation"],
                lite=lite,
            ),
            settings,
        )
        _write(artifact_utils.get_single_instance(output_dict["blessing"]), result, log)


def _difference(table: Report, variant: str) -> float | None:
    """Returns how far the variant's answers to the exam were from the SavedModel's, as the Quantizer measured it."""
    for row in table.get("variants", []):
        if row["variant"] == variant and row["largest_difference"] is not None:
            return float(row["largest_difference"])
    return None


def _write(blessing: types.Artifact, result: Report, log: str) -> None:
    for name, text in (
        (BLESSED_FILE if result["passed"] else NOT_BLESSED_FILE, ""),
        (REPORT_FILE, json.dumps(result, indent=1, allow_nan=False)),
        (LOG_FILE, log),
    ):
        with fileio.open(os.path.join(blessing.uri, name), "w") as file:
            file.write(text)
    blessing.set_int_custom_property("blessed", int(result["passed"]))
    blessing.set_string_custom_property("reasons", json.dumps(result["reasons"]))
    blessing.set_string_custom_property("report", json.dumps(result))
    for sentence in [*result["reasons"], *result["notes"]]:
        _log.info("%s", sentence)
