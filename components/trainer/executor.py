"""Runs one training and records on the artifacts what later stages ask for."""

from __future__ import annotations

from typing import Any

from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils

from evergreen.components.trainer import child, devices, report
from evergreen.components.trainer.request import Request, from_artifacts
from evergreen.components.trainer.settings import PARAMETER_SERVER


class Executor(base_executor.BaseExecutor):
    """Trains in this process; in a child where this one's TensorFlow does not have the devices, or for a cluster."""

    def Do(self, input_dict: dict[str, list], output_dict: dict[str, list], exec_properties: dict[str, Any]) -> None:
        """See `component.Trainer` for the inputs, outputs and parameters."""
        request = from_artifacts(input_dict, output_dict, exec_properties)
        result = _train(request)
        model = artifact_utils.get_single_instance(output_dict["model"])
        model.set_int_custom_property("span", request.newest_span)
        model.set_int_custom_property("seed", request.settings.seed)
        model.set_int_custom_property("steps", result["steps"])
        model.set_int_custom_property("warm_start", int(result["warm_start"]["warm"]))
        model.set_int_custom_property("warm_runs", result["warm_start"]["warm_runs"])
        run = artifact_utils.get_single_instance(output_dict["model_run"])
        run.set_string_custom_property("report", report.compact(result))


def _train(request: Request) -> dict[str, Any]:
    devices.configure(request.settings)
    if request.settings.strategy == PARAMETER_SERVER or not devices.enough(request.settings):
        return child.train(request)
    from evergreen.components.trainer import training

    return training.run(request)
