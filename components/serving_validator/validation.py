"""One validation from a model's artifacts to a report: a base path, a server, the replay of rows, a verdict."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import tempfile
import time
from pathlib import Path

from evergreen.components import progress
from evergreen.components.errors import EvergreenError
from evergreen.components.model_server import process, rows
from evergreen.components.model_server.client import Client, ServerError
from evergreen.components.model_server.process import ServerEnded, ServerProcess
from evergreen.components.model_server.rest import RestClient
from evergreen.components.serving_validator.replay import LITE_MODEL, MODEL, VERSION, Lite, Replay
from evergreen.components.serving_validator.report import Report
from evergreen.components.serving_validator.settings import ServingSettings

# Of the server: a trainer in this process may hold all memory of the accelerators.
ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "-1"}
_METRICS = "/monitoring/prometheus/metrics"
# Microseconds by path; the built-in server gives a histogram, of which this is the sum.
_LOAD = re.compile(
    rf'^:tensorflow:cc:saved_model:load_latency(?:_sum)?\{{.*["/]{MODEL}/{VERSION}"[^}}]*\}}\s+(\S+)', re.MULTILINE
)


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Where everything lies.

    Attributes:
      saved_model: the candidate's SavedModel.
      examples: URI of the newest span's Examples.
      evaluation: URI of the ModelEvaluation: the candidate's answers to the exam.
      lite: the chosen TFLite variant, if there is one.
    """

    saved_model: str
    examples: str
    evaluation: str
    lite: Lite | None


def validate(inputs: Inputs, settings: ServingSettings) -> tuple[Report, str]:
    """Lets a server load the candidate and answer rows of the exam.

    Args:
      inputs: the artifacts.
      settings: the section `serving`.

    Returns:
      The report, and what the server printed.

    Raises:
      EvergreenError: there are no rows to ask about.
    """
    with tempfile.TemporaryDirectory(prefix="evergreen-serving-") as folder:
        log = Path(folder) / "server.log"
        result = _validate(Path(folder), log, inputs, settings)
        return result, log.read_text(encoding="utf-8", errors="replace")


def _validate(folder: Path, log: Path, inputs: Inputs, settings: ServingSettings) -> Report:
    which, _ = process.find_server()
    # tensorflow_model_server calls its own TFLite support experimental; nobody's phone depends on it.
    lite = inputs.lite if which == process.BUILT_IN else None
    flags = _flags(folder, inputs.saved_model, lite)
    progress.report(None, f"starting the server ({which})")
    began = time.monotonic()
    start_s = load_s = None
    with ServerProcess(flags, log, settings.max_bytes, settings.seconds, environment=ENVIRONMENT) as server:
        # Rows are read while the server loads TensorFlow.
        exam = rows.exam(inputs.examples, inputs.evaluation, settings.rows)
        replay = Replay(exam, settings.tolerance)
        try:
            server.wait_available(MODEL, VERSION, settings.seconds)
            start_s = time.monotonic() - began
            left_s = max(1.0, settings.seconds - start_s)
            with Client(server.grpc_address, left_s) as by_grpc, RestClient(server.rest_address, left_s) as by_rest:
                load_s = _load_seconds(by_rest)
                replay.saved_model(by_grpc, by_rest)
                if lite is not None:
                    server.wait_available(LITE_MODEL, VERSION, left_s)
                    replay.tflite(by_grpc, by_rest, lite)
        except (ServerError, ServerEnded) as error:
            replay.reasons.append(_reason(server, error))
        peak = server.peak_bytes()
    return {
        "format": 1,
        "passed": not replay.reasons,
        "reasons": replay.reasons,
        "notes": replay.notes,
        "server": which,
        "rows": len(exam.numbers),
        "tolerance": settings.tolerance,
        "start_s": start_s,
        "load_s": load_s,
        "peak_bytes": peak,
        "models": replay.models,
    }


def _flags(folder: Path, saved_model: str, lite: Lite | None) -> list[str]:
    """Lays the candidate out as base paths and returns the server's flags."""
    served = {MODEL: saved_model} if lite is None else {MODEL: saved_model, LITE_MODEL: lite.folder}
    config, monitoring = folder / "models.config", folder / "monitoring.config"
    models = []
    for name, source in served.items():
        base = folder / name
        base.mkdir()
        _place(source, base / str(VERSION))
        models.append(f'config {{ name: "{name}" model_platform: "tensorflow" base_path: {json.dumps(str(base))} }}')
    config.write_text("model_config_list { " + " ".join(models) + " }", encoding="utf-8")
    monitoring.write_text(f'prometheus_config {{ enable: true path: "{_METRICS}" }}', encoding="utf-8")
    return [
        f"--model_config_file={config}",
        f"--monitoring_config_file={monitoring}",
        "--max_num_load_retries=0",
        *(["--prefer_tflite_model=true"] if lite is not None else []),
    ]


def _place(source: str, target: Path) -> None:
    """Puts a model's folder where the server looks, without a copy where it lies on this machine."""
    if os.path.isdir(source):
        target.symlink_to(os.path.abspath(source), target_is_directory=True)
        return
    from tfx.utils import io_utils

    io_utils.copy_dir(source, str(target))


def _load_seconds(client: RestClient) -> float | None:
    """Asks the server how long it took to load the SavedModel; None where it does not say."""
    try:
        found = _LOAD.findall(client.text(_METRICS))
    except ServerError:
        return None
    return sum(float(one) for one in found) / 1e6 if found else None


def _reason(server: ServerProcess, error: EvergreenError) -> str:
    """Turns a failure into the gate's reason; a server that has ended says more than a request that failed."""
    try:
        server.check()
    except ServerEnded as ended:
        error = ended
    return ": ".join(part for part in (error.headline, error.reason) if part)
