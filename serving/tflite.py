"""TFLite models: `model.tflite` of a version, served under `--prefer_tflite_model` by LiteRT's interpreter.

An interpreter serves one request at a time, so there is one for each CPU. Models with TensorFlow's own operators
("select ops") do not load, as in tensorflow_model_server.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evergreen.serving import errors
from evergreen.serving.runtime import tf
from evergreen.serving.servable import Servable
from evergreen.serving.signature import check_inputs, check_outputs, find_signature

_DEFAULT = "serving_default"
_METHOD = "tensorflow/serving/predict"


class TfliteModel(Servable):
    """One TFLite model.

    Its signatures are the file's; a file without any has `serving_default` of the tensors' names.

    Args:
      name: the model's name.
      version: the version's number.
      path: the file.

    Raises:
      ServingError: DATA_LOSS for a file that the interpreter does not take.
    """

    def __init__(self, name: str, version: int, path: Path):
        self.name, self.version, self.path = name, version, path.parent
        try:
            first = _Interpreter(path)
        except (ValueError, RuntimeError) as error:
            raise errors.data_loss(f"{path} cannot be loaded: {error}") from error
        self.signatures: Mapping[str, Any] = {key: _definition(*first.details(key)) for key in first.keys}
        self._dtypes = {key: _dtypes(first.details(key)[0]) for key in first.keys}
        # Each holds a copy of the weights only as far as the operating system does not share the file's pages.
        self._idle: queue.LifoQueue[_Interpreter] = queue.LifoQueue()
        self._idle.put(first)
        for _ in range((os.cpu_count() or 1) - 1):
            self._idle.put(_Interpreter(path))

    def run(
        self, signature: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """See Servable. Waits for an interpreter that is idle."""
        definition = find_signature(self.signatures, signature)
        arrays = check_inputs(definition, inputs, self._dtypes[signature])
        wanted = check_outputs(definition, outputs)
        interpreter = self._idle.get()
        try:
            results = interpreter.run(signature, dict(zip(sorted(inputs), arrays, strict=True)))
        except (ValueError, RuntimeError) as error:
            raise errors.invalid(str(error)) from error
        finally:
            self._idle.put(interpreter)
        return {name: results[name] for name in wanted}

    def unload(self) -> None:
        """Drops the interpreters."""
        while not self._idle.empty():
            self._idle.get()


class _Interpreter:
    """LiteRT's interpreter, with or without signatures in the file.

    Attributes:
      keys: the signatures' names.
    """

    def __init__(self, path: Path):
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(str(path), num_threads=1)
        self._interpreter.allocate_tensors()
        self._runners = {key: self._interpreter.get_signature_runner(key) for key in self._signature_list()}
        self.keys = list(self._runners) or [_DEFAULT]

    def details(self, key: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns the interpreter's descriptions of a signature's inputs and outputs, by name."""
        if self._runners:
            return self._runners[key].get_input_details(), self._runners[key].get_output_details()
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        return {one["name"]: one for one in inputs}, {one["name"]: one for one in outputs}

    def run(self, key: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs a signature."""
        if self._runners:
            results = self._runners[key](**inputs)
        else:
            taken, given = self.details(key)
            for name, array in inputs.items():
                self._interpreter.resize_tensor_input(taken[name]["index"], array.shape)
            self._interpreter.allocate_tensors()
            for name, array in inputs.items():
                self._interpreter.set_tensor(taken[name]["index"], array)
            self._interpreter.invoke()
            results = {name: self._interpreter.get_tensor(one["index"]) for name, one in given.items()}
        return {name: _strings_as_objects(np.asarray(array)) for name, array in results.items()}

    def _signature_list(self) -> list[str]:
        return list(self._interpreter.get_signature_list())


def _strings_as_objects(array: np.ndarray) -> np.ndarray:
    return array.astype(object) if array.dtype.kind == "S" else array


def _dtypes(details: Mapping[str, Any]) -> dict[str, np.dtype]:
    return {name: np.dtype(object) if _is_string(one) else np.dtype(one["dtype"]) for name, one in details.items()}


def _is_string(detail: Mapping[str, Any]) -> bool:
    return np.dtype(detail["dtype"]).kind == "S"


def _definition(inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
    """Makes the SignatureDef that clients see."""
    from tensorflow.core.protobuf import meta_graph_pb2

    definition = meta_graph_pb2.SignatureDef(method_name=_METHOD)
    for details, infos in ((inputs, definition.inputs), (outputs, definition.outputs)):
        for name, one in details.items():
            dtype = tf.string if _is_string(one) else tf.dtypes.as_dtype(one["dtype"])
            shape = one["shape_signature"] if len(one["shape_signature"]) else one["shape"]
            infos[name].name, infos[name].dtype = one["name"], dtype.as_datatype_enum
            infos[name].tensor_shape.CopyFrom(tf.TensorShape([None if n < 0 else n for n in shape]).as_proto())
    return definition
