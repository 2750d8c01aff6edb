"""The messages of TensorFlow Serving's gRPC services that a client needs, and of the files that it serves.

No TensorFlow here: the classes of tensorflow-serving-api import it for the tensor's message, which takes seconds; a
command that sends a few rows takes tenths of one. These have the same fields under the same numbers, so the same bytes;
fields that no client of ours reads are left out. Their descriptor pool is their own, so they stand beside the others.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# message: field -> (number, type). A type is a scalar or a message; `*` before it repeats it, `{}` maps names to it.
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "Int64Value": {"value": (1, "int64")},
    "Any": {"type_url": (1, "string"), "value": (2, "bytes")},
    "ModelSpec": {
        "name": (1, "string"),
        "version": (2, "Int64Value"),
        "signature_name": (3, "string"),
        "version_label": (4, "string"),
    },
    "Dim": {"size": (1, "int64")},
    "TensorShapeProto": {"dim": (2, "*Dim"), "unknown_rank": (3, "bool")},
    "TensorProto": {
        "dtype": (1, "int32"),
        "tensor_shape": (2, "TensorShapeProto"),
        "tensor_content": (4, "bytes"),
        "half_val": (13, "*int32"),
        "float_val": (5, "*float"),
        "double_val": (6, "*double"),
        "int_val": (7, "*int32"),
        "string_val": (8, "*bytes"),
        "int64_val": (10, "*int64"),
        "bool_val": (11, "*bool"),
        "uint32_val": (16, "*uint32"),
        "uint64_val": (17, "*uint64"),
    },
    "PredictRequest": {
        "model_spec": (1, "ModelSpec"),
        "inputs": (2, "{}TensorProto"),
        "output_filter": (3, "*string"),
    },
    "PredictResponse": {"outputs": (1, "{}TensorProto"), "model_spec": (2, "ModelSpec")},
    "GetModelStatusRequest": {"model_spec": (1, "ModelSpec")},
    "StatusProto": {"error_code": (1, "int32"), "error_message": (2, "string")},
    "ModelVersionStatus": {"version": (1, "int64"), "state": (2, "int32"), "status": (3, "StatusProto")},
    "GetModelStatusResponse": {"model_version_status": (1, "*ModelVersionStatus")},
    # The configuration's own message is light to import: its bytes stand here as they are.
    "ReloadConfigRequest": {"config": (1, "bytes")},
    "ReloadConfigResponse": {"status": (1, "StatusProto")},
    "GetModelMetadataRequest": {"model_spec": (1, "ModelSpec"), "metadata_field": (2, "*string")},
    "GetModelMetadataResponse": {"model_spec": (1, "ModelSpec"), "metadata": (2, "{}Any")},
    "TensorInfo": {"name": (1, "string"), "dtype": (2, "int32"), "tensor_shape": (3, "TensorShapeProto")},
    "SignatureDef": {
        "inputs": (1, "{}TensorInfo"),
        "outputs": (2, "{}TensorInfo"),
        "method_name": (3, "string"),
    },
    "MetaGraphDef": {"signature_def": (5, "{}SignatureDef")},
    "SavedModel": {"meta_graphs": (2, "*MetaGraphDef")},
    "SignatureDefMap": {"signature_def": (1, "{}SignatureDef")},
    "BytesList": {"value": (1, "*bytes")},
    "FloatList": {"value": (1, "*float")},
    "Int64List": {"value": (1, "*int64")},
    "Feature": {"bytes_list": (1, "BytesList"), "float_list": (2, "FloatList"), "int64_list": (3, "Int64List")},
    "Features": {"feature": (1, "{}Feature")},
    "Example": {"features": (1, "Features")},
}

_PACKAGE = "evergreen.model_server"
_Field = descriptor_pb2.FieldDescriptorProto


def _type(field: Any, kind: str) -> None:
    """Sets a field's type."""
    scalar = getattr(_Field, f"TYPE_{kind.upper()}", None)
    if scalar is None:
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
    else:
        field.type = scalar


def _describe(file: Any, message: str, fields: dict[str, tuple[int, str]]) -> None:
    described = file.message_type.add(name=message)
    for name, (number, kind) in fields.items():
        field = described.field.add(name=name, number=number, label=_Field.LABEL_OPTIONAL)
        if kind.startswith("{}"):
            entry = described.nested_type.add(name=name.title().replace("_", "") + "Entry")
            entry.options.map_entry = True
            _type(entry.field.add(name="key", number=1, label=_Field.LABEL_OPTIONAL), "string")
            _type(entry.field.add(name="value", number=2, label=_Field.LABEL_OPTIONAL), kind[2:])
            field.label, field.type = _Field.LABEL_REPEATED, _Field.TYPE_MESSAGE
            field.type_name = f".{_PACKAGE}.{message}.{entry.name}"
        elif kind.startswith("*"):
            field.label = _Field.LABEL_REPEATED
            _type(field, kind[1:])
        else:
            _type(field, kind)


def _classes() -> dict[str, Any]:
    file = _file()
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    if hasattr(message_factory, "GetMessageClass"):
        make = message_factory.GetMessageClass
    else:
        make = message_factory.MessageFactory(pool).GetPrototype
    return {name: make(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _MESSAGES}


def _file() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="evergreen/model_server.proto", package=_PACKAGE, syntax="proto3")
    for message, fields in _MESSAGES.items():
        _describe(file, message, fields)
    return file


_made = _classes()

Example: Any = _made["Example"]
GetModelMetadataRequest: Any = _made["GetModelMetadataRequest"]
GetModelMetadataResponse: Any = _made["GetModelMetadataResponse"]
GetModelStatusRequest: Any = _made["GetModelStatusRequest"]
GetModelStatusResponse: Any = _made["GetModelStatusResponse"]
ModelSpec: Any = _made["ModelSpec"]
PredictRequest: Any = _made["PredictRequest"]
PredictResponse: Any = _made["PredictResponse"]
ReloadConfigRequest: Any = _made["ReloadConfigRequest"]
ReloadConfigResponse: Any = _made["ReloadConfigResponse"]
SavedModel: Any = _made["SavedModel"]
SignatureDefMap: Any = _made["SignatureDefMap"]
TensorProto: Any = _made["TensorProto"]
