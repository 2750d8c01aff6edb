"""Tells whether a version's directory holds all that its model needs, before anything is loaded.

TensorFlow Serving loads a half-copied version, and then fails each request. Here a version that is not complete is
never loaded. What the graph and the files' names tell is checked here; whether the data behind them is whole is found
out by the load itself, which verifies sizes and checksums. Nothing tells that an asset was cut short: a version belongs
into a base path by rename.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evergreen.serving import errors

TFLITE_FILE = "model.tflite"
_VARIABLE_OPS = frozenset(("VarHandleOp", "VariableV2", "Variable", "AutoReloadVariable"))
_SHARD = re.compile(r"variables\.data-(\d{5})-of-(\d{5})")


def fingerprint(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Returns name, bytes and modification time of all files below a path: when it differs, something was written."""
    files: list[tuple[str, int, int]] = []
    for folder, _, names in os.walk(path):
        for name in names:
            files.extend(_stat(os.path.join(folder, name)))
    return tuple(sorted(files)) or tuple(_stat(str(path)))


def uses_tflite(path: Path, prefer_tflite: bool) -> bool:
    """Tells whether the TFLite model of a version is served: it is preferred, and there is one."""
    return prefer_tflite and (path / TFLITE_FILE).is_file()


def check_complete(path: Path, prefer_tflite: bool = False) -> Any:
    """Checks a version's directory.

    Args:
      path: the directory.
      prefer_tflite: whether `model.tflite` goes before a SavedModel beside it.

    Returns:
      The MetaGraphDef that is served; None for a TFLite model.

    Raises:
      ServingError: NOT_FOUND for what is not there, DATA_LOSS for what is there and not whole.
    """
    if not path.is_dir():
        raise errors.not_found(f"{path} is a file; a version is a directory.")
    if uses_tflite(path, prefer_tflite):
        if not (path / TFLITE_FILE).stat().st_size:
            raise errors.data_loss(f"{path} is not complete: {TFLITE_FILE} is empty.")
        return None
    graph = _meta_graph(path)
    _check_variables(path, graph)
    for asset in graph.asset_file_def:
        if not (path / "assets" / asset.filename).is_file():
            raise errors.not_found(f"{path} is not complete: assets/{asset.filename} is missing.")
    return graph


def _stat(file: str) -> Iterator[tuple[str, int, int]]:
    try:
        status = os.stat(file)
    except OSError:  # gone since it was listed
        return
    yield file, status.st_size, status.st_mtime_ns


def _meta_graph(path: Path) -> Any:
    """Returns the MetaGraphDef that is served."""
    from google.protobuf import text_format
    from google.protobuf.message import DecodeError

    from evergreen.serving import runtime  # noqa: F401  (the protos below load TensorFlow)

    # isort: split
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel()
    binary, text = path / "saved_model.pb", path / "saved_model.pbtxt"
    try:
        if binary.is_file():
            model.ParseFromString(binary.read_bytes())
        elif text.is_file():
            text_format.Parse(text.read_bytes(), model)
        else:
            raise errors.not_found(f"{path} is not complete: it has no saved_model.pb.")
    except (DecodeError, text_format.ParseError) as error:
        raise errors.data_loss(f"{path} is not complete: its saved_model.pb is cut short or none at all.") from error
    for graph in model.meta_graphs:
        if set(graph.meta_info_def.tags) == {"serve"}:
            return graph
    tags = [list(graph.meta_info_def.tags) for graph in model.meta_graphs]
    raise errors.not_found(f"{path} has no meta graph tagged 'serve' in its saved_model.pb; it has {tags}.")


def _check_variables(path: Path, graph: Any) -> None:
    folder = path / "variables"
    names = set(os.listdir(folder)) if folder.is_dir() else set()
    shards = [match for match in map(_SHARD.fullmatch, names) if match]
    if "variables.index" not in names:
        if shards or (graph.saver_def.filename_tensor_name and _has_variables(graph.graph_def)):
            raise errors.not_found(f"{path} is not complete: variables/variables.index is missing.")
        return
    if not (folder / "variables.index").stat().st_size:
        raise errors.data_loss(f"{path} is not complete: variables/variables.index is empty.")
    count = int(shards[0][2]) if shards else 1
    for shard in range(count):
        name = f"variables.data-{shard:05d}-of-{count:05d}"
        if name not in names:
            raise errors.not_found(f"{path} is not complete: variables/{name} is missing.")


def _has_variables(graph: Any) -> bool:
    nodes = [graph.node, *(function.node_def for function in graph.library.function)]
    return any(node.op in _VARIABLE_OPS for group in nodes for node in group)
