"""SavedModels of TF1 and TF2, loaded as TensorFlow Serving loads them: into a session of their own.

One implementation for both, because that way reads both, and because a session's callable is the cheapest one from
Python into a graph: a small model's row takes a fifth of the time of the signature's ConcreteFunction that
`tf.saved_model.load` gives, and the load itself a third. The interpreter's lock is free while it runs, so that requests
run side by side.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evergreen.serving import errors
from evergreen.serving.complete import check_complete
from evergreen.serving.graph_session import as_serving_error, make_callable, open_session
from evergreen.serving.runtime import tf
from evergreen.serving.servable import INIT_OP_SIGNATURE, Servable
from evergreen.serving.signature import check_inputs, check_outputs, find_signature

# The choice of outputs is the clients': without a bound one of them could fill the memory.
_MAX_CALLABLES = 100
_LOG = logging.getLogger(__name__)


class SavedModel(Servable):
    """One version of a SavedModel.

    Args:
      name: the model's name.
      version: the version's number.
      path: the version's directory.
      meta_graph: what check_complete returned for it, where that was asked already.

    Raises:
      ServingError: NOT_FOUND, DATA_LOSS, INVALID_ARGUMENT and others: what of the model cannot be loaded, and why.
    """

    def __init__(self, name: str, version: int, path: Path, meta_graph: Any = None):
        self.name, self.version, self.path = name, version, path
        graph = check_complete(path) if meta_graph is None else meta_graph
        self._session = open_session(path, graph)
        self.signatures: Mapping[str, Any] = {
            key: value for key, value in graph.signature_def.items() if key != INIT_OP_SIGNATURE
        }
        self._dtypes = {key: _input_dtypes(value) for key, value in self.signatures.items()}
        self._defaults = {key: _defaults(value) for key, value in self.signatures.items()}
        self._callables: dict[tuple[str, tuple[str, ...]], Callable[..., list[Any]]] = {}
        self._making = threading.Lock()
        self._prepare()

    def run(
        self, signature: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """See Servable. The graph runs in the calling thread, its operators in TensorFlow's pool."""
        definition = find_signature(self.signatures, signature)
        defaults = self._defaults[signature]
        if defaults and not inputs.keys() >= definition.inputs.keys():
            inputs = {**defaults, **inputs}
        arrays = check_inputs(definition, inputs, self._dtypes[signature])
        wanted = check_outputs(definition, outputs)
        try:
            call = self._callables.get((signature, wanted)) or self._make(signature, wanted)
            results = call(*arrays)
        except (tf.errors.OpError, TypeError, ValueError) as error:
            raise as_serving_error(error) from error
        return {name: _as_array(value) for name, value in zip(wanted, results, strict=True)}

    def unload(self) -> None:
        """Closes the session, which frees its variables and tables."""
        self._callables.clear()
        self._session.close()

    def _prepare(self) -> None:
        """Optimizes the graph for each signature now: the first request would wait for it, tenths of a second.

        Raises:
          ServingError: no signature can be run.
        """
        failed: dict[str, errors.ServingError] = {}
        for key, definition in self.signatures.items():
            try:
                self._make(key, check_outputs(definition, None))
            except Exception as error:
                failed[key] = as_serving_error(error)
                _LOG.warning("Signature %s of %s cannot be run: %s", key, self.path, failed[key].message)
        if failed and len(failed) == len(self.signatures):
            self._session.close()
            key, first = next(iter(failed.items()))
            raise errors.ServingError(first.code, f"{self.path}: signature {key} cannot be run: {first.message}")

    def _make(self, signature: str, wanted: tuple[str, ...]) -> Callable[..., list[Any]]:
        """Prunes the graph to the outputs wanted, once for each choice of outputs."""
        definition = self.signatures[signature]
        feeds = [_tensor(definition.inputs[name], name) for name in sorted(definition.inputs)]
        fetches = [_tensor(definition.outputs[name], name) for name in wanted]
        with self._making:
            call = make_callable(self._session, feeds, fetches)
            if len(self._callables) < _MAX_CALLABLES:
                self._callables[signature, wanted] = call
        return call


def _as_array(value: Any) -> np.ndarray:
    """Makes an array of what a session returns for a scalar: numpy's scalar, or bytes."""
    if isinstance(value, np.ndarray):
        return value
    return np.array(value, object if isinstance(value, bytes) else None)


def _tensor(info: Any, name: str) -> str:
    """Returns the name of a TensorInfo's tensor in the graph; a sparse or ragged one has no single tensor."""
    if info.WhichOneof("encoding") != "name":
        raise errors.unimplemented(f"Tensor {name!r} is sparse or composite, which this server does not support.")
    tensor: str = info.name
    return tensor


def _input_dtypes(definition: Any) -> dict[str, np.dtype]:
    """Returns numpy's dtype of each input; strings are objects."""
    return {name: np.dtype(tf.dtypes.as_dtype(info.dtype).as_numpy_dtype) for name, info in definition.inputs.items()}


def _defaults(definition: Any) -> dict[str, np.ndarray]:
    """Returns the values of inputs that clients may leave out."""
    return {name: tf.make_ndarray(value) for name, value in definition.defaults.items()}
