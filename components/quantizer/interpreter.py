"""A TFLite variant that answers batches of rows. Imports TensorFlow inside functions."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from evergreen.components.model_layout import Signature


class LiteModel:
    """A TFLite model with one output, called by feature name.

    Args:
      content: the TFLite file.

    Attributes:
      dynamic_batch: False once the interpreter has refused a batch that it takes row by row.
    """

    def __init__(self, content: bytes):
        self._content = content
        self.dynamic_batch = True
        self._runner = self._open()
        # The runner's own call resizes its inputs to the batch and allocates again.
        self._dtypes = {name: detail["dtype"] for name, detail in self._runner.get_input_details().items()}

    @property
    def input_names(self) -> list[str]:
        """The features that the model reads, in the order of the file."""
        return list(self._dtypes)

    def predict(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """Answers a batch.

        Args:
          features: by name, arrays of [batch, ...]; those that the model does not read are ignored, the others are cast
            to the type that it wants.

        Returns:
          The predictions, float32, [batch].

        Raises:
          RuntimeError: when the interpreter fails.
          ValueError: when it refuses a shape or a type.
        """
        if absent := sorted(set(self._dtypes) - set(features)):
            raise ValueError(f"the preprocessing gives no feature {', '.join(absent)}")
        inputs = {name: np.asarray(features[name]).astype(dtype, copy=False) for name, dtype in self._dtypes.items()}
        rows = len(next(iter(inputs.values())))
        if self.dynamic_batch:
            try:
                return self._call(inputs)
            except (RuntimeError, ValueError):
                if rows == 1:
                    raise
                # A graph that holds a constant batch size, in a reshape for instance, still answers single rows.
                self._runner = self._open()
                first = self._call({name: values[:1] for name, values in inputs.items()})
                self.dynamic_batch = False
                rest = self.predict({name: values[1:] for name, values in inputs.items()})
                return np.concatenate([first, rest])
        answers = [self._call({name: values[row : row + 1] for name, values in inputs.items()}) for row in range(rows)]
        return np.concatenate(answers)

    def _call(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        outputs = self._runner(**inputs)
        (answer,) = outputs.values()
        return np.array(answer, np.float32).reshape(len(answer))

    def _open(self) -> Any:
        import tensorflow as tf

        with warnings.catch_warnings():
            # tf.lite.Interpreter announces its move to LiteRT; both stacks still have it.
            warnings.simplefilter("ignore")
            return tf.lite.Interpreter(model_content=self._content).get_signature_runner(Signature.SERVING_DEFAULT)
