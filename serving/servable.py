"""What the server needs of a loaded version, whatever its format. No TensorFlow here."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# A signature of every TF2 SavedModel that belongs to the loader, not to clients.
INIT_OP_SIGNATURE = "__saved_model_init_op"


class Servable(abc.ABC):
    """One loaded version of a model.

    Attributes:
      name: the model's name.
      version: the version's number.
      path: the version's directory.
      signatures: SignatureDef protos by name, as the meta graph has them, without the loader's own.
    """

    name: str
    version: int
    path: Path
    signatures: Mapping[str, Any]

    @abc.abstractmethod
    def run(
        self, signature: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Computes outputs of a signature. Threads may call it at the same time.

        Args:
          signature: a key of `signatures`.
          inputs: an array for each input of the signature, by name; strings as object arrays of bytes.
          outputs: names of the outputs wanted; None for all.

        Returns:
          The arrays by output name; strings as object arrays of bytes.

        Raises:
          ServingError: FAILED_PRECONDITION for an unknown signature; INVALID_ARGUMENT for missing, unknown or
            ill-typed inputs, unknown outputs, and values that the graph refuses; UNAVAILABLE when a batching queue
            is full.
        """

    @abc.abstractmethod
    def unload(self) -> None:
        """Frees what the version holds. Nobody calls `run` any more."""
