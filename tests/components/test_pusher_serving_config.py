"""The files that TensorFlow Serving reads: each parses as its message and agrees with what the Pusher publishes."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "serving_config"

# The wheel of tensorflow-serving-api has no classes for these messages; this is how their .proto files define them.
INT64 = ".google.protobuf.Int64Value"
MESSAGES = {
    "BatchingParameters": [
        ("max_batch_size", 1, INT64),
        ("batch_timeout_micros", 2, INT64),
        ("max_enqueued_batches", 3, INT64),
        ("num_batch_threads", 4, INT64),
        ("thread_pool_name", 5, ".google.protobuf.StringValue"),
        ("allowed_batch_sizes", 6, "repeated int64"),
        ("pad_variable_length_inputs", 7, "bool"),
    ],
    "PrometheusConfig": [("enable", 1, "bool"), ("path", 2, "string")],
    "MonitoringConfig": [("prometheus_config", 1, ".tensorflow.serving.PrometheusConfig")],
}


def message(name: str):
    """Builds a message class of `tensorflow.serving` from MESSAGES."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="t.proto", package="tensorflow.serving", syntax="proto3")
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    for message_name, fields in MESSAGES.items():
        described = file.message_type.add(name=message_name)
        for field_name, number, kind in fields:
            field = described.field.add(name=field_name, number=number, label=kinds.LABEL_OPTIONAL)
            if kind.startswith("."):
                field.type, field.type_name = kinds.TYPE_MESSAGE, kind
            else:
                field.type = {"bool": kinds.TYPE_BOOL, "string": kinds.TYPE_STRING}.get(kind, kinds.TYPE_INT64)
                if kind.startswith("repeated"):
                    field.label = kinds.LABEL_REPEATED
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    descriptor = pool.FindMessageTypeByName(f"tensorflow.serving.{name}")
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)()
    return message_factory.MessageFactory(pool).GetPrototype(descriptor)()


@pytest.mark.tensorflow
def test_the_model_config_is_one_that_the_server_takes():
    from tensorflow_serving.config import model_server_config_pb2

    found = text_format.Parse((CONFIG / "models.config").read_text(), model_server_config_pb2.ModelServerConfig())
    configs = found.model_config_list.config
    assert len({config.name for config in configs}) == len(configs) >= 1
    for config in configs:
        assert config.base_path.startswith("/") and config.model_platform == "tensorflow"
        # The policy asks for no more versions than retention keeps by default.
        assert 1 <= config.model_version_policy.latest.num_versions <= 3
    assert configs[0].name == "flights"


def test_the_batching_parameters_are_consistent():
    found = text_format.Parse((CONFIG / "batching.config").read_text(), message("BatchingParameters"))
    assert found.max_batch_size.value > 1
    assert found.batch_timeout_micros.value >= 0 and found.max_enqueued_batches.value > 0
    sizes = list(found.allowed_batch_sizes)
    assert sizes == sorted(sizes) and (not sizes or sizes[-1] == found.max_batch_size.value)


def test_the_metrics_are_where_the_read_me_says():
    found = text_format.Parse((CONFIG / "monitoring.config").read_text(), message("MonitoringConfig"))
    assert found.prometheus_config.enable
    assert found.prometheus_config.path in (CONFIG / "README.md").read_text()
