"""The command line: TensorFlow Serving's flags under their names, and three of ours. Pure; nothing is opened here.

A flag of TensorFlow Serving that this server does not have is refused by name, so that nobody relies on what does
nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

# What a Python process on a laptop should hold for one request; the real server's own limit is 2 GiB.
_MAX_REQUEST_BYTES = 64 * 1024 * 1024
_TRUE, _FALSE = ("", "1", "t", "true", "y", "yes"), ("0", "f", "false", "n", "no")

# Flags of TensorFlow Serving 2.20 that this server does not have.
NOT_HERE = frozenset(
    {
        "enable_cors_support",
        "enable_grpc_healthcheck_service",
        "enable_per_model_batching_parameters",
        "enable_profiler",
        "enable_serialization_as_tensor_content",
        "enable_signature_method_name_check",
        "enforce_session_run_timeout",
        "flush_filesystem_caches",
        "force_allow_any_version_labels_for_unavailable_models",
        "grpc_max_threads",
        "mixed_precision",
        "num_load_threads",
        "num_request_iterations_for_warmup",
        "num_tflite_interpreters_per_pool",
        "num_tflite_pools",
        "num_unload_threads",
        "per_process_gpu_memory_fraction",
        "platform_config_file",
        "remove_unused_fields_from_bundle_metagraph",
        "rest_api_num_threads",
        "saved_model_tags",
        "skip_initialize_tpu",
        "ssl_config_file",
        "tensorflow_inter_op_parallelism",
        "tensorflow_intra_op_parallelism",
        "tensorflow_session_config_file",
        "tensorflow_session_parallelism",
        "thread_pool_factory_config_file",
        "total_model_memory_limit_bytes",
        "use_alts_credentials",
        "use_tflite_model",
        "xla_cpu_compilation_enabled",
        "xla_gpu_compilation_enabled",
    }
)


class UsageError(Exception):
    """A command line that cannot be obeyed."""


def _flag(default: Any, help: str, ours: bool = False) -> Any:
    return field(default=default, metadata={"help": help, "ours": ours})


@dataclass(frozen=True)
class Flags:
    """The values of all flags. Defaults are TensorFlow Serving's."""

    port: int = _flag(8500, "TCP port for gRPC; 0 takes a free one, and the line at the start says which")
    grpc_socket_path: str = _flag("", "a UNIX socket on which gRPC listens too")
    grpc_channel_arguments: str = _flag("", "arguments for the gRPC server, as key=value,key=value")
    rest_api_port: int = _flag(0, "TCP port for REST; 0 for none")
    rest_api_timeout_in_ms: int = _flag(30_000, "milliseconds that a REST request may take")
    model_name: str = _flag("default", "the model's name, unless --model_config_file")
    model_base_path: str = _flag("", "the folder of its versions, unless --model_config_file")
    model_config_file: str = _flag("", "a ModelServerConfig as text")
    model_config_file_poll_wait_seconds: int = _flag(
        0, "seconds between two readings of --model_config_file; 0 reads it once"
    )
    file_system_poll_wait_seconds: float = _flag(1.0, "seconds between two looks at the base paths; 0 looks once")
    enable_batching: bool = _flag(False, "let requests that arrive together share a run")
    batching_parameters_file: str = _flag("", "BatchingParameters as text")
    monitoring_config_file: str = _flag("", "a MonitoringConfig as text: Prometheus's page on the REST port")
    enable_model_warmup: bool = _flag(True, "replay assets.extra/tf_serving_warmup_requests")
    max_num_load_retries: int = _flag(5, "how often a load that failed is tried again")
    load_retry_interval_micros: int = _flag(60_000_000, "microseconds between two tries")
    allow_version_labels_for_unavailable_models: bool = _flag(
        False, "labels may be given to versions that are not loaded yet"
    )
    prefer_tflite_model: bool = _flag(False, "serve model.tflite where a version has one")
    host: str = _flag("127.0.0.1", "address to listen on, for both ports", ours=True)
    max_request_bytes: int = _flag(_MAX_REQUEST_BYTES, "longest request", ours=True)
    max_concurrent_requests: int = _flag(512, "requests in work at a time; more get UNAVAILABLE", ours=True)


def parse(arguments: Sequence[str]) -> Flags:
    """Reads a command line (without the program's name): `--flag=value`, `--flag value`, `--bool`, `--bool=false`.

    Raises:
      UsageError: a flag that does not exist (the message names near ones) or that only TensorFlow Serving has, a
        value that does not fit, or flags that do not go together.
    """
    known = {one.name: one for one in fields(Flags)}
    values: dict[str, Any] = {}
    left = list(arguments)
    while left:
        argument = left.pop(0)
        if not argument.startswith("-") or argument in ("-", "--"):
            raise UsageError(f"unknown argument: {argument}")
        name, equals, value = argument.lstrip("-").partition("=")
        if name not in known:
            raise UsageError(_unknown(name, list(known)))
        default = known[name].default
        if not equals and not isinstance(default, bool):
            if not left:
                raise UsageError(f"--{name} needs a value")
            value = left.pop(0)
        values[name] = _value(name, value, default)
    made = Flags(**values)
    _check(made)
    return made


def usage() -> str:
    """Lists all flags with their defaults."""
    lines = ["python -m evergreen.serving --model_name=NAME --model_base_path=FOLDER [--rest_api_port=8501] ...", ""]
    for one in fields(Flags):
        ours = " (not of TensorFlow Serving)" if one.metadata["ours"] else ""
        default = str(one.default).lower() if isinstance(one.default, bool) else one.default
        lines.append(f"  --{one.name}={default}".ljust(58) + f" {one.metadata['help']}{ours}")
    return "\n".join(lines)


def channel_arguments(text: str) -> list[tuple[str, int | str]]:
    """Splits --grpc_channel_arguments; values that are integers become integers, as gRPC wants them.

    Raises:
      UsageError: a part is not key=value.
    """
    made: list[tuple[str, int | str]] = []
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise UsageError(f"--grpc_channel_arguments expects key=value,key=value. Received: {part!r}")
        try:
            made.append((key, int(value)))
        except ValueError:
            made.append((key, value))
    return made


def _value(name: str, text: str, default: Any) -> Any:
    if isinstance(default, bool):
        if text.lower() in _TRUE:
            return True
        if text.lower() in _FALSE:
            return False
        raise UsageError(f"--{name} expects true or false. Received: {text!r}")
    if isinstance(default, str):
        return text
    try:
        number = type(default)(text)
    except ValueError:
        kind = "a whole number" if isinstance(default, int) else "a number"
        raise UsageError(f"--{name} expects {kind}. Received: {text!r}") from None
    if not number >= 0:
        raise UsageError(f"--{name} must not be negative. Received: {text!r}")
    return number


def _unknown(name: str, known: list[str]) -> str:
    if name in NOT_HERE:
        return f"--{name} is a flag of TensorFlow Serving that the built-in server does not support"
    near = difflib.get_close_matches(name, known, 3)
    return f"unknown flag: --{name}" + (f" (near: {', '.join('--' + one for one in near)})" if near else "")


def _check(flags: Flags) -> None:
    if not flags.model_base_path and not flags.model_config_file:
        raise UsageError("--model_base_path or --model_config_file is needed")
    if flags.batching_parameters_file and not flags.enable_batching:
        raise UsageError("You supplied --batching_parameters_file without --enable_batching")
    if flags.rest_api_port and flags.rest_api_port == flags.port:
        raise UsageError("--rest_api_port cannot be same as --port. Please use a different port for HTTP/REST API.")
    for name in ("port", "rest_api_port"):
        if getattr(flags, name) > 65535:
            raise UsageError(f"--{name} must be below 65536. Received: {getattr(flags, name)}")
    for name in ("max_request_bytes", "max_concurrent_requests", "rest_api_timeout_in_ms"):
        if getattr(flags, name) < 1:
            raise UsageError(f"--{name} must be positive. Received: {getattr(flags, name)}")
    channel_arguments(flags.grpc_channel_arguments)
