"""TFLite files as objects: reading, writing, what is in them, and two of them joined into one. No TensorFlow here.

The objects are those of the TFLite schema, which LiteRT brings along.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

METADATA = "evergreen"
_IDENTIFIER = b"TFL3"
_ALIGNMENT = 16  # `force_align` of a buffer's data in the schema: what a delegate may rely on in a mapped file
_OPERATORS = {value: name for name, value in vars(schema.BuiltinOperator).items() if name.isupper()}
_TYPES = {value: name.lower() for name, value in vars(schema.TensorType).items() if name.isupper()}


# Operators whose output has the shape of their largest input; a table's keys are the largest of what it is given.
_KEEP_SHAPE = frozenset({
    "ADD", "CAST", "DIV", "EQUAL", "GREATER", "GREATER_EQUAL", "HASHTABLE_FIND", "LESS", "LESS_EQUAL", "LOGICAL_AND",
    "LOGICAL_NOT", "LOGICAL_OR", "MAXIMUM", "MINIMUM", "MUL", "NOT_EQUAL", "SELECT_V2", "SUB",
})  # fmt: skip


class _AlignedBuilder(flatbuffers.Builder):
    """Python's flatbuffers ignore `force_align`; a vector of bytes is a buffer's data, or can bear the padding."""

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> Any:
        return super().StartVector(elemSize, numElems, _ALIGNMENT if elemSize == 1 else alignment)


def read(content: bytes) -> Any:
    """Reads a TFLite file.

    Args:
      content: the file.

    Returns:
      A `ModelT` of the schema.
    """
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))


def write(model: Any) -> bytes:
    """Writes a TFLite file, with the alignment that the schema asks for.

    Args:
      model: a `ModelT`.
    """
    builder = _AlignedBuilder(1 << 16)
    builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def operator(model: Any, operation: Any) -> str:
    """Returns an operation's name, such as `FULLY_CONNECTED`; a custom one's own."""
    code = model.operatorCodes[operation.opcodeIndex]
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    if number == schema.BuiltinOperator.CUSTOM:
        return text(code.customCode)
    return _OPERATORS[number]


def tensor_type(tensor: Any) -> str:
    """Returns the name of a tensor's element type, such as `int8`."""
    return _TYPES[tensor.type]


def constant(model: Any, tensor: Any) -> np.ndarray | None:
    """Returns the bytes of a constant tensor, uint8; None for a tensor that is computed."""
    data = model.buffers[tensor.buffer].data
    return None if data is None or len(data) == 0 else np.asarray(data, np.uint8)


def text(value: Any) -> str:
    """Returns a string of the schema, which is bytes once it was read."""
    return "" if value is None else value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def order_inputs(model: Any) -> None:
    """Stores the inputs in the order of their names, in the signatures and in the subgraphs.

    The converter's own order changes from one export to the next, and index-based readers would have to follow it.
    """
    for signature in model.signatureDefs or []:
        subgraph = model.subgraphs[signature.subgraphIndex]
        named = [entry.tensorIndex for entry in sorted(signature.inputs, key=lambda entry: text(entry.name))]
        # An input that the model does not read has no place in the signature; it keeps one in the subgraph.
        subgraph.inputs = named + [index for index in subgraph.inputs if index not in named]


def strip(model: Any) -> None:
    """Drops what the runtime does not read: the names of tensors inside, and the converter's notes on itself."""
    for subgraph in model.subgraphs:
        kept = {*subgraph.inputs, *subgraph.outputs}
        for index, tensor in enumerate(subgraph.tensors):
            if index not in kept:
                tensor.name = b""
    model.metadata = [entry for entry in model.metadata or [] if text(entry.name) in (METADATA, "min_runtime_version")]
    _drop_unused_buffers(model)


def _drop_unused_buffers(model: Any) -> None:
    used = {0} | {tensor.buffer for subgraph in model.subgraphs for tensor in subgraph.tensors}
    used |= {entry.buffer for entry in model.metadata or []} | set(model.metadataBuffer or [])
    place = {old: new for new, old in enumerate(sorted(used))}
    model.buffers = [model.buffers[old] for old in sorted(used)]
    for subgraph in model.subgraphs:
        for tensor in subgraph.tensors:
            tensor.buffer = place[tensor.buffer]
    for entry in model.metadata or []:
        entry.buffer = place[entry.buffer]
    model.metadataBuffer = [place[old] for old in model.metadataBuffer or []] or None


def put_metadata(model: Any, values: Mapping[str, Any]) -> None:
    """Writes Evergreen's metadata into a model, in place of what was there.

    Args:
      model: a `ModelT`.
      values: what JSON can say.
    """
    data = np.frombuffer(json.dumps(values, separators=(",", ":"), sort_keys=True).encode(), np.uint8)
    model.metadata = [entry for entry in model.metadata or [] if text(entry.name) != METADATA]
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data, entry.name, entry.buffer = data, METADATA, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata.append(entry)


def stamp(content: bytes, values: Mapping[str, Any]) -> bytes:
    """Adds to Evergreen's metadata in a TFLite file; a file without any stays as it is.

    Args:
      content: the file.
      values: what to add.
    """
    known = metadata(content)
    if not known:
        return content
    model = read(content)
    put_metadata(model, {**known, **values})
    _drop_unused_buffers(model)
    return write(model)


def metadata(content: bytes) -> dict[str, Any]:
    """Reads Evergreen's metadata out of a TFLite file; empty where the file has none."""
    model = schema.Model.GetRootAs(content, 0)
    for index in range(model.MetadataLength()):
        entry = model.Metadata(index)
        if entry.Name() == METADATA.encode():
            found: dict[str, Any] = json.loads(model.Buffers(entry.Buffer()).DataAsNumpy().tobytes())
            return found
    return {}


def join(front: Any, core: Any) -> Any:
    """Makes one model of two: the front's outputs become the core's inputs of the same name.

    Args:
      front: a `ModelT` with one signature; it is changed.
      core: a `ModelT` with one signature whose inputs are outputs of the front; it is changed.

    Returns:
      The joined model, with the front's inputs and the core's outputs as its one signature.

    Raises:
      ValueError: an input of the core is no output of the front, or not of its type.
    """
    (front_signature,), (core_signature,) = front.signatureDefs, core.signatureDefs
    codes, buffers, subgraphs = len(front.operatorCodes), len(front.buffers), len(front.subgraphs)
    for subgraph in core.subgraphs:
        for tensor in subgraph.tensors:
            tensor.buffer = tensor.buffer + buffers if tensor.buffer else 0
        for operation in subgraph.operators or []:
            operation.opcodeIndex += codes
            _shift_subgraphs(operation, subgraphs)
    front.operatorCodes = [*front.operatorCodes, *core.operatorCodes]
    front.buffers = [*front.buffers, *core.buffers]
    front.subgraphs = [*front.subgraphs, *core.subgraphs]
    main = front.subgraphs[front_signature.subgraphIndex]
    body = core.subgraphs[core_signature.subgraphIndex]
    outputs = {text(entry.name): entry.tensorIndex for entry in front_signature.outputs}
    place = _body_tensors(main, body, core_signature, outputs)
    for operation in body.operators or []:
        operation.inputs = [place[index] if index >= 0 else index for index in operation.inputs]
        operation.outputs = [place[index] for index in operation.outputs]
    main.operators = [*(main.operators or []), *(body.operators or [])]
    for entry in core_signature.outputs:
        entry.tensorIndex = place[entry.tensorIndex]
    main.outputs = [place[index] for index in body.outputs]
    front_signature.outputs = core_signature.outputs
    body.operators, body.tensors, body.inputs, body.outputs = [], [], [], []
    if core_signature.subgraphIndex == len(core.subgraphs) - 1:
        front.subgraphs.pop()
    return front


def restore_shapes(model: Any) -> None:
    """Says the shapes that the converter does not know: what a table finds is shaped as what it was asked.

    A shape that is unknown reads as that of a single number, and XNNPACK plans what follows for one.

    Args:
      model: a `ModelT`; it is changed.
    """
    for subgraph in model.subgraphs:
        for operation in subgraph.operators or []:
            if operator(model, operation) not in _KEEP_SHAPE:
                continue
            given = max((subgraph.tensors[index] for index in operation.inputs if index >= 0), key=_rank)
            for made in (subgraph.tensors[index] for index in operation.outputs):
                if _rank(made) < _rank(given):
                    made.shape, made.shapeSignature = given.shape, given.shapeSignature


def _rank(tensor: Any) -> int:
    # A resource has a shape of its own that is nobody's.
    return -1 if tensor.shape is None or tensor_type(tensor) == "resource" else len(tensor.shape)


def _body_tensors(main: Any, body: Any, signature: Any, outputs: Mapping[str, int]) -> dict[int, int]:
    """Adds the core's tensors to the main subgraph; its inputs are the front's outputs and are not added."""
    place: dict[int, int] = {}
    for entry in signature.inputs:
        name = text(entry.name)
        if name not in outputs:
            raise ValueError(f"the preprocessing gives no feature {name}")
        given, wanted = main.tensors[outputs[name]], body.tensors[entry.tensorIndex]
        if given.type != wanted.type:
            raise ValueError(f"the feature {name} is {tensor_type(given)}, the model wants {tensor_type(wanted)}")
        place[entry.tensorIndex] = outputs[name]
    for index, tensor in enumerate(body.tensors):
        if index not in place:
            place[index] = len(main.tensors)
            main.tensors.append(tensor)
    return place


def _shift_subgraphs(operation: Any, by: int) -> None:
    """Moves what an operation such as WHILE says about other subgraphs."""
    for options in (operation.builtinOptions, getattr(operation, "builtinOptions2", None)):
        for name, value in vars(options).items() if options is not None else ():
            if name.lower().endswith("subgraphindex"):
                setattr(options, name, value + by)
