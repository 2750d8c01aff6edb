"""Sessions: a SavedModel's graph with its variables and tables, and functions from arrays to arrays through it.

What TensorFlow's Python does for the sake of people who build graphs is left out here. Its loader makes an object for
each operator, its `Session.run` looks at nested fetches: both hold Python's interpreter, and requests wait. Here the
graph goes from its proto into TensorFlow's core, operators and tensors are called by name, and the steps of the load
(restore, then initialize with the assets' paths) are those of TensorFlow's C++ loader, which TensorFlow Serving uses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evergreen.serving import errors
from evergreen.serving.runtime import tf
from evergreen.serving.servable import INIT_OP_SIGNATURE

# Threads of a request are the server's; a pool between them and the operators costs more than a small model.
_CALLERS_THREAD = -1
# Collections under which TF1 keeps the operator that initializes tables, the newer one first.
_INIT_COLLECTIONS = ("saved_model_main_op", "legacy_init_op")
_ASSETS_COLLECTION = "saved_model_assets"


def open_session(path: Path, meta_graph: Any) -> Any:
    """Loads a SavedModel into a session of its own.

    Args:
      path: its directory.
      meta_graph: the MetaGraphDef to load.

    Raises:
      ServingError: which step failed, and why.
    """
    graph = tf.Graph()
    with _saying(f"{path}: its graph cannot be imported: "):
        _import(graph, meta_graph.graph_def)
    options = tf.compat.v1.ConfigProto(gpu_options=tf.compat.v1.GPUOptions(allow_growth=True))
    session = tf.compat.v1.Session(graph=graph, config=options)
    try:
        assets = {name: str(path / "assets" / file) for name, file in assets_of(meta_graph).items()}
        variables, saver = path / "variables" / "variables", meta_graph.saver_def
        if saver.restore_op_name and variables.with_suffix(".index").exists():
            with _saying(f"{path}: its variables cannot be read: "):
                _run(session, saver.restore_op_name, {saver.filename_tensor_name: str(variables), **assets})
        init = _init_op(meta_graph)
        if init:
            with _saying(f"{path}: its tables cannot be initialized: "):
                _run(session, init, assets)
    except BaseException:
        session.close()
        raise
    return session


def assets_of(meta_graph: Any) -> dict[str, str]:
    """Returns the names of a graph's asset files by the tensors that take their paths."""
    from tensorflow.core.protobuf import meta_graph_pb2

    assets = list(meta_graph.asset_file_def)
    if not assets and _ASSETS_COLLECTION in meta_graph.collection_def:
        for packed in meta_graph.collection_def[_ASSETS_COLLECTION].any_list.value:
            assets.append(meta_graph_pb2.AssetFileDef())
            packed.Unpack(assets[-1])
    return {asset.tensor_info.name: asset.filename for asset in assets}


def make_callable(session: Any, feeds: Sequence[str], fetches: Sequence[str]) -> Callable[..., list[Any]]:
    """Makes a function of the arrays for `feeds` that returns those of `fetches`; both are tensors' names."""
    # Two outputs may be one tensor, which can be fetched only once.
    once = list(dict.fromkeys(fetches))
    call = _callable(session, feed=feeds, fetch=once)
    if len(once) == len(fetches):
        return call
    places = [once.index(name) for name in fetches]

    def spread(*arrays: np.ndarray) -> list[Any]:
        results = call(*arrays)
        return [results[place] for place in places]

    return spread


def as_serving_error(error: Exception) -> errors.ServingError:
    """Turns an error of TensorFlow into one with its status code; another's into INVALID_ARGUMENT or INTERNAL."""
    if isinstance(error, errors.ServingError):
        return error
    if isinstance(error, tf.errors.OpError):
        return errors.ServingError(errors.code_of(error.error_code), error.message or type(error).__name__)
    if isinstance(error, (TypeError, ValueError)):
        return errors.invalid(str(error))
    return errors.internal(f"{type(error).__name__}: {error}")


def _import(graph: Any, graph_def: Any) -> None:
    """Imports a GraphDef without a Python object for each of its operators."""
    from tensorflow.python.client import pywrap_tf_session as c_api
    from tensorflow.python.framework import c_api_util

    options = c_api_util.ScopedTFImportGraphDefOptions()
    buffer = c_api.TF_NewBufferFromString(graph_def.SerializeToString())
    try:
        with graph._c_graph.get() as c_graph:
            c_api.TF_DeleteImportGraphDefResults(
                c_api.TF_GraphImportGraphDefWithResults(c_graph, buffer, options.options)
            )
    finally:
        c_api.TF_DeleteBuffer(buffer)


def _init_op(meta_graph: Any) -> str:
    """Returns the name of the operator that initializes tables, or ''."""
    if INIT_OP_SIGNATURE in meta_graph.signature_def:
        name: str = meta_graph.signature_def[INIT_OP_SIGNATURE].outputs[INIT_OP_SIGNATURE].name
        return name.partition(":")[0]
    for key in _INIT_COLLECTIONS:
        if key in meta_graph.collection_def:
            return str(meta_graph.collection_def[key].node_list.value[0])
    return ""


def _run(session: Any, operator: str, feeds: Mapping[str, str]) -> None:
    """Runs an operator, with strings for some tensors."""
    call = _callable(session, feed=list(feeds), target=[operator])
    call(*(np.array(value.encode(), object) for value in feeds.values()))


def _callable(session: Any, **parts: Sequence[str]) -> Callable[..., list[Any]]:
    from tensorflow.core.protobuf import config_pb2

    options = config_pb2.CallableOptions(**parts)
    options.run_options.inter_op_thread_pool = _CALLERS_THREAD
    # Session.make_callable takes several times as long a call, for the sake of nested fetches.
    made: Callable[..., list[Any]] = session._make_callable_from_options(options)
    return made


@contextlib.contextmanager
def _saying(what: str) -> Iterator[None]:
    """Puts a step of the load before what TensorFlow says of it, and leaves out where in the graph that was."""
    try:
        yield
    except (tf.errors.OpError, ValueError) as error:
        code = error.error_code if isinstance(error, tf.errors.OpError) else tf.errors.INVALID_ARGUMENT
        lines = [line for line in str(getattr(error, "message", error)).splitlines() if line.strip()]
        raise errors.ServingError(errors.code_of(code), what + (lines or [type(error).__name__])[0]) from error
