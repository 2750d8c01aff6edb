"""ModelServerConfig: read from its text file or made of two flags, and checked. Pure apart from reading the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from evergreen.serving import errors, text_messages

PLATFORM = "tensorflow"


def of_flags(name: str, base_path: str) -> Any:
    """Makes the ModelServerConfig of `--model_name` and `--model_base_path`.

    Raises:
      ServingError: INVALID_ARGUMENT for a base path that is not absolute, or an empty name.
    """
    config = model_server_config_pb2.ModelServerConfig()
    config.model_config_list.config.add(name=name, base_path=base_path, model_platform=PLATFORM)
    check(config)
    return config


def read(file: Path | str) -> Any:
    """Reads a ModelServerConfig.

    Raises:
      ServingError: NOT_FOUND for a file that cannot be read, INVALID_ARGUMENT for one that is no ModelServerConfig, in
        the words that tensorflow_model_server exits with, or is one that cannot be served.
    """
    return parse(text_messages.read_text(file), str(file))


def parse(text: str, source: str) -> Any:
    """Parses and checks the text of a ModelServerConfig; `source` says in messages where it stands.

    Raises:
      ServingError: INVALID_ARGUMENT, with the line.
    """
    config = text_messages.parse(text, model_server_config_pb2.ModelServerConfig(), source)
    check(config)
    return config


def check(config: Any) -> None:
    """Refuses a ModelServerConfig that cannot be served.

    Raises:
      ServingError: INVALID_ARGUMENT for what is wrong, UNIMPLEMENTED for what only tensorflow_model_server can do.
    """
    if config.WhichOneof("config") == "custom_model_config":
        raise errors.unimplemented("custom_model_config is not supported by this server.")
    names: set[str] = set()
    for model in config.model_config_list.config:
        if not model.name:
            raise errors.invalid(f"A model of the config has no name: {text_format.MessageToString(model)!r}.")
        if model.name in names:
            raise errors.invalid(f"Duplicate model name: {model.name}; names must be unique.")
        names.add(model.name)
        _check_platform(model)
        _check_base_path(model)
        policy = model.model_version_policy
        if policy.WhichOneof("policy_choice") == "specific" and not policy.specific.versions:
            raise errors.invalid(f"Model {model.name}: the policy `specific` names no version.")


def _check_platform(model: Any) -> None:
    if model.model_platform and model.model_type:
        raise errors.invalid(f"Model {model.name}: illegal setting of both model_type (deprecated) and model_platform.")
    old = model_server_config_pb2.ModelType.Value("TENSORFLOW")
    if not model.model_platform and model.model_type != old:
        raise errors.invalid(f'Model {model.name} has no model_platform; "{PLATFORM}" is the one served here.')
    if model.model_platform not in ("", PLATFORM):
        raise errors.unimplemented(
            f'Model {model.name}: model_platform "{model.model_platform}" is not served here, only "{PLATFORM}".'
        )


def _check_base_path(model: Any) -> None:
    if "://" in model.base_path:
        raise errors.unimplemented(
            f"Model {model.name}: base_path {model.base_path} is not a local folder. Mount it, or take "
            "tensorflow_model_server."
        )
    if not model.base_path.startswith("/"):
        raise errors.invalid(
            f"Expected model {model.name} to have an absolute path or URI; got base_path()={model.base_path}"
        )
