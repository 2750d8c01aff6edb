"""`evergreen predict`: rows through a running model server."""

from __future__ import annotations

import json
import sys
from typing import Any

import click
import numpy as np

from evergreen.components.errors import ConfigError
from evergreen.components.model_layout import Signature as Names
from evergreen.components.model_server.client import Client
from evergreen.components.model_server.rest import RestClient
from evergreen.pipeline import config as configuration
from evergreen.pipeline import options, predict_rows
from evergreen.pipeline.console import Console
from evergreen.pipeline.serve import GRPC_PORT, REST_PORT

_BATCH = 512
_TIMEOUT_S = 60.0


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("--server", metavar="HOST:PORT", help="The server; by default 127.0.0.1:8500, or :8501 with --rest.")
@click.option("--rest", is_flag=True, help="Ask by REST instead of gRPC.")
@click.option("--model", help="The model's name; by default the project's.")
@click.option("--signature", help="The signature; by default serving_default.")
@click.option("--version", type=int, help="The version; by default the newest that is served.")
@click.option("--label", help="The same by its label, such as stable.")
@options.config
@options.json_output
def command(
    config_file: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
    file: str,
    server: str | None,
    rest: bool,
    model: str | None,
    signature: str | None,
    version: int | None,
    label: str | None,
) -> None:
    """Send rows of FILE (JSON lines; `-` is standard input) to a running server and print its predictions.

    A row holds raw features by name, as in a span: {"carrier": "UA", "distance": 1400, ...}. What a row leaves out is
    missing. With --json each prediction is a line of JSON.

    \b
    Example:
      evergreen predict rows.jsonl
      echo '{"carrier": "UA"}' | evergreen predict - --rest --json
    """
    if version is not None and label is not None:
        raise ConfigError("--version and --label name two versions", f"received {version} and `{label}`", "Give one.")
    config = _project(config_file, overrides, model)
    name = model or (config.name if config is not None else "")
    with click.open_file(file, encoding="utf-8") as stream:
        rows = predict_rows.parse(stream, "standard input" if file == "-" else file)
    schema = predict_rows.schema_kinds(config.schema_path) if config is not None else None
    address = server or f"127.0.0.1:{REST_PORT if rest else GRPC_PORT}"
    client: Client | RestClient = RestClient(address, _TIMEOUT_S) if rest else Client(address, _TIMEOUT_S)
    with client:
        wanted = signature or Names.SERVING_DEFAULT
        signatures = client.metadata(name, version, label)
        if wanted not in signatures:
            raise ConfigError(
                f"the model `{name}` has no signature `{wanted}`",
                "it has " + ", ".join(f"`{one}`" for one in sorted(signatures)),
                "Name one of them by --signature.",
            )
        inputs = predict_rows.inputs(rows, signatures[wanted], wanted, schema)
        found: list[dict[str, Any]] = []
        answered = set()
        for start in range(0, len(rows), _BATCH):
            part = {key: values[start : start + _BATCH] for key, values in inputs.items()}
            answer = client.ask(name, part, version, label, wanted)
            answered.add(answer.version)
            found += predict_rows.predictions(answer.outputs, min(_BATCH, len(rows) - start))
    _print(found, as_json, name, sorted(answered - {0}))


def _project(config_file: str | None, overrides: tuple[str, ...], model: str | None) -> configuration.Config | None:
    """Loads the project; without one, the model's name must be given."""
    try:
        return configuration.load(config_file, overrides)
    except configuration.NoProject:
        if model is None:
            raise
        return None


def _print(found: list[dict[str, Any]], as_json: bool, model: str, versions: list[int]) -> None:
    if as_json:
        for row in found:
            sys.stdout.write(json.dumps(row) + "\n")
        return
    columns = sorted(found[0])
    out = Console()
    out.table(
        ["row", *columns],
        [[number, *(_cell(row[name]) for name in columns)] for number, row in enumerate(found, start=1)],
        right=("row", *columns),
    )
    if versions:
        out.note(f"answered by {model}, version {', '.join(str(version) for version in versions)}")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{np.float32(value):.6g}"
    return json.dumps(value) if isinstance(value, list) else str(value)
