"""`evergreen serve`: a model server on the published versions."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from evergreen.components.model_server import process
from evergreen.components.pusher import catalog
from evergreen.pipeline import config as configuration
from evergreen.pipeline import options
from evergreen.pipeline import serve as planning
from evergreen.pipeline.console import Console
from evergreen.pipeline.settings import is_uri


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
@options.config
def command(config_file: str | None, overrides: tuple[str, ...], flags: tuple[str, ...]) -> None:
    """Serve the published versions: tensorflow_model_server if it is on PATH, else the built-in server.

    FLAGS are those of tensorflow_model_server and win over the project's: its name and base path, gRPC on port 8500,
    REST on 8501, and batching.config and monitoring.config of serving_config/ where there is one. With --model_name,
    --model_base_path or --model_config_file no project is needed. New versions are taken up as they are published.

    \b
    Example:
      evergreen serve
      evergreen serve --rest_api_port=9001 --prefer_tflite_model
    """
    config = None if planning.names_model(flags) else configuration.load(config_file, overrides)
    plan = planning.serving(config, flags)
    which, program = process.find_server()
    _announce(Console(sys.stderr), config, plan, which)
    sys.stderr.flush()
    # What TensorFlow and Google's libraries say while they are loaded concerns nobody who serves.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning")
    # This process becomes the server, so that whoever started the command ends the server by ending it.
    os.execv(program[0], [*program, *plan.flags])


def _announce(out: Console, config: configuration.Config | None, plan: planning.Serving, which: str) -> None:
    words = which if which == process.TENSORFLOW_SERVING else f"{which} ({process.TENSORFLOW_SERVING} is not on PATH)"
    out.note(f"server  {words}")
    for note in plan.notes:
        out.warn(note)
    if config is None:
        return
    base = config.publish.base_path
    if not is_uri(base):
        Path(base).mkdir(parents=True, exist_ok=True)  # one that is missing stops a server's polling
    body = planning.request_body(config)
    out.note(f"model   {config.name}, the versions in {base}")
    if not catalog.list_versions(base):
        out.note("        none yet; the first one is served as soon as `evergreen run` publishes it")
    if plan.grpc is not None:
        out.note(f"gRPC    {plan.grpc}")
    if plan.rest is not None:
        out.note(f"REST    http://{plan.rest}/v1/models/{config.name}")
        out.note(f"try     {planning.curl(config.name, plan.rest, body)}")
