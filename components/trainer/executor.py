"""Runs one training and records on the artifacts what later stages ask for."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils

from evergreen.components.trainer import child, cluster, devices, report
from evergreen.components.trainer.request import Request, from_artifacts
from evergreen.components.trainer.settings import MULTI_WORKER, PARAMETER_SERVER

_log = logging.getLogger(__name__)


class Executor(base_executor.BaseExecutor):
    """Trains in this process, or in a child: for a cluster, or where TensorFlow has too few logical devices."""

    def Do(self, input_dict: dict[str, list], output_dict: dict[str, list], exec_properties: dict[str, Any]) -> None:
        """See `component.Trainer` for the inputs, outputs and parameters."""
        request = from_artifacts(input_dict, output_dict, exec_properties)
        result = train(request)
        if result.get("restarts"):  # the training that came to its end knows nothing of those before it
            report.write(result, request.run_dir)
        for line in report.describe(result):
            _log.info("%s.", line)
        model = artifact_utils.get_single_instance(output_dict["model"])
        model.set_int_custom_property("span", request.newest_span)
        model.set_int_custom_property("seed", request.settings.seed)
        model.set_int_custom_property("steps", result["steps"])
        model.set_int_custom_property("warm_start", int(result["warm_start"]["warm"]))
        model.set_int_custom_property("warm_runs", result["warm_start"]["warm_runs"])
        if self._context:
            # ML Metadata has no query for the runs of many executions; lineage reads it here.
            model.set_string_custom_property("run", self._context.pipeline_run_id or "")
        run = artifact_utils.get_single_instance(output_dict["model_run"])
        run.set_string_custom_property("report", report.compact(result))


def train(request: Request) -> dict[str, Any]:
    """Trains where the strategy needs it: in this process, in a child, with a cluster; again where one was lost.

    Args:
      request: what to do.

    Returns:
      The report.

    Raises:
      EvergreenError: what the training refuses.
      LostProcess: a process of the cluster died more often than `trainer.max_restarts` allows.
    """
    settings, reason = devices.resolve(request.settings)
    if reason:
        _log.info("trainer.strategy: auto is %s: %s.", settings.strategy, reason)
    request = dataclasses.replace(request, settings=settings, picked=reason)
    devices.configure(settings)
    if settings.strategy == PARAMETER_SERVER:
        return cluster.with_restarts(lambda: child.train(request), settings.max_restarts)
    if settings.strategy == MULTI_WORKER or not devices.enough(settings):
        return child.train(request)
    from evergreen.components.trainer import training

    return training.run(request)
