"""A TFLite file that answers batches of rows by LiteRT. No TensorFlow here, unless the file needs its operators."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from evergreen.components.model_layout import Signature


class LiteModel:
    """A TFLite model with one output, called by feature name. The file is mapped into memory, not read.

    Args:
      path: the TFLite file.
      threads: of the interpreter.
      select_ops: whether the model has operators of TensorFlow's, which LiteRT lacks.

    Attributes:
      dynamic_batch: False once the interpreter has refused a batch that it takes row by row.
    """

    def __init__(self, path: str, threads: int = 1, select_ops: bool = False):
        self._path, self._threads, self._select_ops = path, threads, select_ops
        self.dynamic_batch = True
        self._open()
        self._inputs = self._runner.get_input_details()

    @property
    def input_names(self) -> list[str]:
        """The features that the model reads, in the order of the file."""
        return list(self._inputs)

    def predict(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """Answers a batch.

        Args:
          features: by name, arrays of [batch, ...]; those that the model does not read are ignored, the others are cast
            to the type that it wants, by scale and zero point where that is an integer of its own.

        Returns:
          The predictions, float32, [batch, outputs].

        Raises:
          RuntimeError: when the interpreter fails.
          ValueError: when it refuses a shape or a type.
        """
        inputs = self.prepared(features)
        rows = len(next(iter(inputs.values())))
        if self.dynamic_batch:
            try:
                return self.call(inputs)
            except (RuntimeError, ValueError):
                if rows == 1:
                    raise
                # A graph that holds a constant batch size, in a reshape for instance, still answers single rows.
                self._open()
                first = self.call({name: values[:1] for name, values in inputs.items()})
                self.dynamic_batch = False
                rest = self.predict({name: values[1:] for name, values in features.items()})
                return np.concatenate([first, rest])
        answers = [self.call({name: values[row : row + 1] for name, values in inputs.items()}) for row in range(rows)]
        return np.concatenate(answers)

    def prepared(self, features: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Casts features to the types that the model wants.

        Args:
          features: as for `predict`.

        Raises:
          ValueError: one that the model reads is absent.
        """
        if absent := sorted(set(self._inputs) - set(features)):
            raise ValueError(f"the preprocessing gives no feature {', '.join(absent)}")
        return {name: _cast(np.asarray(features[name]), detail) for name, detail in self._inputs.items()}

    def call(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Answers a batch of what `prepared` gave; float32, [batch, outputs]."""
        (answer,) = self._runner(**inputs).values()
        if answer.dtype.kind in "iu":
            scale, zero = self._output["quantization"]
            if scale:
                answer = (answer.astype(np.float32) - zero) * np.float32(scale)
        return np.array(answer, np.float32).reshape(len(answer), -1)

    def arena_bytes(self, features: Mapping[str, np.ndarray]) -> int:
        """Returns the bytes of memory that the tensors of a batch lie in, memory that several use counted once.

        LiteRT does not say how large its arena is, but where each tensor lies. Delegates hide theirs, so the batch is
        answered without them here, as by a runtime that has none. Constants lie in the file; strings are not counted.

        Args:
          features: as for `predict`.
        """
        from evergreen.components.quantizer import lite_file

        interpreter = _interpreter(self._path, 1, self._select_ops, delegates=False)
        interpreter.get_signature_runner(Signature.SERVING_DEFAULT)(**self.prepared(features))
        with open(self._path, "rb") as file:
            model = lite_file.read(file.read())
        (subgraph,) = (model.subgraphs[one.subgraphIndex] for one in model.signatureDefs)
        places = []
        for index, tensor in enumerate(subgraph.tensors):
            if lite_file.constant(model, tensor) is not None or lite_file.tensor_type(tensor) in ("string", "resource"):
                continue
            try:
                array = interpreter.tensor(index)()
            except ValueError:  # never given memory: nothing reads it
                continue
            begin = array.__array_interface__["data"][0]
            places.append((begin, begin + array.nbytes))
        total, end = 0, 0
        for begin, stop in sorted(places):
            total += max(0, stop - max(begin, end))
            end = max(end, stop)
        return total

    def _open(self) -> None:
        self._interpreter = _interpreter(self._path, self._threads, self._select_ops)
        # The runner's own call resizes its inputs to the batch and allocates again.
        self._runner = self._interpreter.get_signature_runner(Signature.SERVING_DEFAULT)
        (self._output,) = self._runner.get_output_details().values()


def _interpreter(path: str, threads: int, select_ops: bool, delegates: bool = True) -> Any:
    if not select_ops:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        plain = OpResolverType.AUTO if delegates else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        return Interpreter(path, num_threads=threads, experimental_op_resolver_type=plain)
    import tensorflow as tf

    with warnings.catch_warnings():
        # tf.lite.Interpreter announces its move to LiteRT, which has no TensorFlow operators. They are a delegate.
        warnings.simplefilter("ignore")
        return tf.lite.Interpreter(path, num_threads=threads)


def _cast(values: np.ndarray, detail: Mapping[str, Any]) -> np.ndarray:
    wanted = np.dtype(detail["dtype"])
    if wanted.kind == "S":
        return values.astype(np.bytes_)
    scale, zero = detail["quantization"]
    if wanted.kind in "iu" and scale and values.dtype.kind == "f":
        limits = np.iinfo(wanted)
        return np.clip(np.round(values / scale + zero), limits.min, limits.max).astype(wanted)
    return values.astype(wanted, copy=False)
