"""Finishes a variant: the preprocessing before it, integers at its ends for `int8`, metadata, nothing superfluous."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evergreen.components.quantizer import anatomy, lite_file
from evergreen.components.quantizer.settings import INT8


def assemble(core: bytes, front: bytes | None, variant: str, metadata: Mapping[str, Any]) -> bytes:
    """Makes the file to publish.

    Args:
      core: the model over transformed features, as the converter made it.
      front: the preprocessing, as the converter made it; None where the file takes transformed features.
      variant: `int8` gives integers, and takes them where there is no preprocessing before it; others end in floats.
      metadata: what the file says of itself.

    Returns:
      The TFLite file's content, its inputs in the order of their names.

    Raises:
      ValueError: the model reads something that the preprocessing does not give.
    """
    model = lite_file.read(core)
    if variant == INT8:
        integer_ends(model, inputs=front is None)
    if front is not None:
        before = lite_file.read(front)
        lite_file.restore_shapes(before)
        model = lite_file.join(before, model)
    lite_file.order_inputs(model)
    lite_file.put_metadata(model, metadata)
    lite_file.strip(model)
    return lite_file.write(model)


def integer_ends(model: Any, inputs: bool) -> None:
    """Takes away the operators that turn integers into floats for the caller, who gets the integers.

    Args:
      model: a `ModelT` of an int8 model with float inputs and outputs; it is changed.
      inputs: whether the inputs become integers too; those that are no floats stay as they are.
    """
    for signature in model.signatureDefs:
        subgraph = model.subgraphs[signature.subgraphIndex]
        place: dict[int, int] = {}
        for operation in subgraph.operators:
            name = lite_file.operator(model, operation)
            given, made = operation.inputs[0] if len(operation.inputs) else -1, operation.outputs[0]
            if name == "DEQUANTIZE" and made in subgraph.outputs:
                place[made] = given
            elif name == "QUANTIZE" and inputs and given in subgraph.inputs and given not in place:
                place[given] = made
        read = [index for one in subgraph.operators if not _bridges(model, one, place) for index in one.inputs]
        # An input that an operator reads as a float too, or in two scales, stays a float.
        place = {old: new for old, new in place.items() if old not in read}
        subgraph.operators = [one for one in subgraph.operators if not _bridges(model, one, place)]
        for old, new in place.items():
            # TensorFlow Model Analysis finds a feature by its tensor's name.
            subgraph.tensors[new].name = subgraph.tensors[old].name
        subgraph.inputs = [place.get(index, index) for index in subgraph.inputs]
        subgraph.outputs = [place.get(index, index) for index in subgraph.outputs]
        for entry in [*signature.inputs, *signature.outputs]:
            entry.tensorIndex = place.get(entry.tensorIndex, entry.tensorIndex)


def parts(content: bytes, front: bytes | None) -> dict[str, int]:
    """Says what a file's bytes are for.

    Args:
      content: an assembled file.
      front: the preprocessing in it, as the converter made it; None without.

    Returns:
      `weights` (the constants of the model), `tables` (those of the preprocessing) and `graph` (everything else).
    """
    constants = anatomy.constant_bytes(lite_file.read(content))
    tables = 0 if front is None else anatomy.constant_bytes(lite_file.read(front))
    return {"weights": constants - tables, "tables": tables, "graph": len(content) - constants}


def _bridges(model: Any, operation: Any, place: Mapping[int, int]) -> bool:
    if lite_file.operator(model, operation) not in ("QUANTIZE", "DEQUANTIZE"):
        return False
    given, made = operation.inputs[0], operation.outputs[0]
    return place.get(made) == given or place.get(given) == made
