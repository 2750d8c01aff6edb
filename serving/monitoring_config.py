"""MonitoringConfig: the text proto behind `--monitoring_config_file`.

Described here as batching_config describes its own, under the numbers of monitoring_config.proto.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from google.protobuf import descriptor_pb2

from evergreen.serving import errors, text_messages

DEFAULT_PATH = "/monitoring/prometheus/metrics"


@dataclass(frozen=True)
class MonitoringConfig:
    """Whether Prometheus's text is served on the REST port, and under which path."""

    enable: bool = False
    path: str = DEFAULT_PATH


def read(file: Path | str | None) -> MonitoringConfig:
    """Reads the config; without a file nothing is exported.

    Raises:
      ServingError: NOT_FOUND for a file that cannot be read, INVALID_ARGUMENT for a wrong one.
    """
    return MonitoringConfig() if file is None else parse(text_messages.read_text(file), str(file))


def parse(text: str, source: str) -> MonitoringConfig:
    """Parses the text of a MonitoringConfig; `source` says in messages where it stands.

    Raises:
      ServingError: INVALID_ARGUMENT.
    """
    message = text_messages.parse(text, text_messages.message_class(_file(), "MonitoringConfig")(), source)
    path = message.prometheus_config.path or DEFAULT_PATH
    if not path.startswith("/"):
        raise errors.invalid(f"{source}: the path of prometheus_config must begin with /, got {path!r}.")
    return MonitoringConfig(message.prometheus_config.enable, path)


def _file() -> descriptor_pb2.FileDescriptorProto:
    kinds = descriptor_pb2.FieldDescriptorProto
    file = text_messages.new_file("evergreen/serving/monitoring_config.proto")
    prometheus = file.message_type.add(name="PrometheusConfig")
    prometheus.field.add(name="enable", number=1, type=kinds.TYPE_BOOL, label=kinds.LABEL_OPTIONAL)
    prometheus.field.add(name="path", number=2, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    config = file.message_type.add(name="MonitoringConfig")
    config.field.add(
        name="prometheus_config",
        number=1,
        type=kinds.TYPE_MESSAGE,
        label=kinds.LABEL_OPTIONAL,
        type_name=f".{text_messages.PACKAGE}.PrometheusConfig",
    )
    return file
