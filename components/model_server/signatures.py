"""Signatures of a model: what a server tells of them by gRPC and by REST, and what a SavedModel's file says.

No TensorFlow here.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from evergreen.components.model_server import messages, tensors

# TensorFlow's own way to initialize a SavedModel stands among its signatures.
INIT_OP = "__saved_model_init_op"


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One input or output of a signature.

    Attributes:
      dtype: NumPy's type; object, of bytes, for strings.
      shape: the sizes, -1 where any will do; None where the rank is open too.
    """

    dtype: np.dtype
    shape: tuple[int, ...] | None


@dataclasses.dataclass(frozen=True)
class Signature:
    """A signature of a served model.

    Attributes:
      inputs: by name.
      outputs: by name.
      method: TensorFlow's method name, such as `tensorflow/serving/predict`.
    """

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    method: str


def of_protos(found: Mapping[str, Any]) -> dict[str, Signature]:
    """Reads SignatureDef messages by name; see `Client.metadata`."""
    return {
        name: Signature(_of_infos(one.inputs), _of_infos(one.outputs), one.method_name)
        for name, one in found.items()
        if name != INIT_OP
    }


def of_json(found: Mapping[str, Any]) -> dict[str, Signature]:
    """Reads the same from what REST's metadata holds under `signature_def`."""
    return {
        name: Signature(_of_json_infos(one["inputs"]), _of_json_infos(one["outputs"]), one["method_name"])
        for name, one in found.items()
        if name != INIT_OP
    }


def of_saved_model(folder: str | os.PathLike[str]) -> dict[str, Signature]:
    """Reads the signatures of a SavedModel from its file, as a server would tell them.

    Args:
      folder: of the SavedModel.

    Returns:
      The signatures by name; none where there is no `saved_model.pb`.
    """
    path = Path(folder) / "saved_model.pb"
    graphs = messages.SavedModel.FromString(path.read_bytes()).meta_graphs if path.is_file() else []
    return of_protos(graphs[0].signature_def) if graphs else {}


def _of_infos(infos: Mapping[str, Any]) -> dict[str, Tensor]:
    found = {}
    for name, info in infos.items():
        try:
            dtype = tensors.numpy_type(info.dtype)
        except ValueError:
            continue
        shape = None if info.tensor_shape.unknown_rank else tuple(dim.size for dim in info.tensor_shape.dim)
        found[name] = Tensor(dtype, shape)
    return found


def _of_json_infos(infos: Mapping[str, Any]) -> dict[str, Tensor]:
    found = {}
    for name, info in infos.items():
        dtype = tensors.named_type(info["dtype"])
        if dtype is not None:
            shape = info["tensor_shape"]
            sizes = None if shape.get("unknown_rank") else tuple(int(dim["size"]) for dim in shape.get("dim", []))
            found[name] = Tensor(dtype, sizes)
    return found
