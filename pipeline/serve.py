"""What `evergreen serve` starts: the flags of a model server for a project, and a request to paste.

The flags are those of tensorflow_model_server, and the built-in server takes the same. A flag that the user gives wins
over the project's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from evergreen.components import schema_file
from evergreen.components.model_layout import Signature as Names
from evergreen.components.model_server import signatures
from evergreen.components.model_server.signatures import Signature
from evergreen.components.pusher import catalog, labels, warmup_rows
from evergreen.pipeline.config import Config

GRPC_PORT, REST_PORT = 8500, 8501
CONFIG_FOLDER = "serving_config"
MODELS, BATCHING, MONITORING = "models.config", "batching.config", "monitoring.config"
# With one of these the user says what is served, and the project is not asked.
MODEL_FLAGS = ("model_name", "model_base_path", "model_config_file")
_LITE = "prefer_tflite_model"
_FALSE = ("0", "f", "false", "n", "no")  # what the servers take for it


@dataclass(frozen=True)
class Serving:
    """What to start.

    Attributes:
      flags: the whole command line behind the server's program.
      grpc: `host:port`; None where gRPC is off.
      rest: `host:port`; None where REST is off.
      notes: what the user should know, one line each.
    """

    flags: list[str]
    grpc: str | None
    rest: str | None
    notes: list[str] = field(default_factory=list)


def given_flags(arguments: Sequence[str]) -> dict[str, str]:
    """Reads which flags stand on a command line.

    Args:
      arguments: `--flag=value`, `--flag value` or `--flag`.

    Returns:
      The values by the flags' names; empty for one without.
    """
    found = {}
    for index, argument in enumerate(arguments):
        if not argument.startswith("--"):
            continue
        name, equals, value = argument[2:].partition("=")
        following = arguments[index + 1] if index + 1 < len(arguments) else "--"
        found[name] = value if equals or following.startswith("--") else following
    return found


def names_model(arguments: Sequence[str]) -> bool:
    """Tells whether a command line says itself what is served."""
    return bool(set(MODEL_FLAGS) & set(given_flags(arguments)))


def serving(config: Config | None, arguments: Sequence[str]) -> Serving:
    """Puts the flags together.

    Args:
      config: the project; None where the command line says what is served.
      arguments: the user's flags.

    Returns:
      What to start.
    """
    given = given_flags(arguments)
    notes: list[str] = []
    ours: dict[str, str] = {"port": str(GRPC_PORT), "rest_api_port": str(REST_PORT)}
    if config is not None and not names_model(arguments):
        ours |= _model_flags(config, given, notes)
        folder = config_folder(config)
        if folder is not None and (folder / BATCHING).is_file() and "enable_batching" not in given:
            ours |= {"enable_batching": "true", "batching_parameters_file": str(folder / BATCHING)}
        if folder is not None and (folder / MONITORING).is_file():
            ours |= {"monitoring_config_file": str(folder / MONITORING)}
    flags = [f"--{name}={value}" for name, value in ours.items() if name not in given]
    ports = {**ours, **given}
    return Serving([*flags, *arguments], _address(ports["port"]), _address(ports["rest_api_port"]), notes)


def config_folder(config: Config) -> Path | None:
    """Finds the project's serving_config/, in its folder or the nearest above.

    Args:
      config: the project.
    """
    for folder in (config.project_dir, *config.project_dir.parents):
        if (folder / CONFIG_FOLDER).is_dir():
            return folder / CONFIG_FOLDER
    return None


def request_body(config: Config) -> dict[str, Any] | None:
    """Makes a request with one row of plausible raw features for REST's predict.

    Args:
      config: the project.

    Returns:
      The request; None where nothing is published yet, or the model takes no raw features.
    """
    live = next((one for one in catalog.list_versions(config.publish.base_path) if one.live), None)
    signature = signatures.of_saved_model(live.path).get(Names.PREDICT_RAW) if live else None
    schema = Path(config.schema_path)
    if signature is None or not schema.is_file():
        return None
    (row,) = warmup_rows.from_schema(schema_file.read(schema), 1)
    return {"signature_name": Names.PREDICT_RAW, "instances": [_instance(signature, row)]}


def curl(model: str, rest: str, body: Mapping[str, Any] | None) -> str:
    """Returns a command that asks the server.

    Args:
      model: its name.
      rest: `host:port`.
      body: of a request for predictions; None to ask for the status only.
    """
    url = f"http://{rest}/v1/models/{model}"
    if body is None:
        return f"curl {url}"
    text = json.dumps(body).replace("'", "'\\''")
    return f"curl -d '{text}' {url}:predict"


def _model_flags(config: Config, given: Mapping[str, str], notes: list[str]) -> dict[str, str]:
    base = config.publish.base_path
    if _LITE in given and given[_LITE].lower() not in _FALSE:
        # The TFLite versions have a base path of their own.
        return {"model_name": config.name, "model_base_path": f"{base}_lite"}
    folder = config_folder(config)
    file = config.publish.models_config or (folder / MODELS if folder is not None else None)
    if file is not None and Path(file).is_file():
        parsed = labels.parse(labels.read_text(file), str(file))
        found = {one.name: one.base_path for one in parsed.model_config_list.config}
        if found.get(config.name) == base:
            # A label that points to a version which is gone must not keep a server from starting.
            return {"model_config_file": str(file), "allow_version_labels_for_unavailable_models": "true"}
        if config.publish.models_config is not None:
            where = found.get(config.name)
            other = f"its base path of `{config.name}` is {where}" if where else f"it does not name `{config.name}`"
            notes.append(f"{file} is not used: {other}, and the project publishes into {base}")
    return {"model_name": config.name, "model_base_path": base}


def _address(port: str) -> str | None:
    return None if port in ("", "0") else f"127.0.0.1:{port}"


def _instance(signature: Signature, row: Mapping[str, list[Any]]) -> dict[str, Any]:
    """Shapes a row's values as the signature's inputs have them."""
    found = {}
    for name, tensor in sorted(signature.inputs.items()):
        absent = b"" if tensor.dtype.kind == "O" else tensor.dtype.type(0).item()
        values = [value.decode() if isinstance(value, bytes) else value for value in row.get(name) or [absent]]
        sizes = [max(1, size) for size in (tensor.shape or (-1, 1))[1:]]
        filled = np.resize(np.array(values, tensor.dtype), sizes)
        found[name] = filled.tolist()
    return found
