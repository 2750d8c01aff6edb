"""Loads one version, in the format that its directory and the flags call for. Imports TensorFlow when first asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from evergreen.serving.complete import TFLITE_FILE, uses_tflite
from evergreen.serving.options import ManagerOptions
from evergreen.serving.servable import Servable


def load(
    name: str, version: int, path: Path, options: ManagerOptions, on_queued: Callable[[str, float], None]
) -> Servable:
    """Loads a version that is complete.

    Args:
      name: the model's name.
      version: the version's number.
      path: its directory.
      options: which format goes first, and whether requests are batched.
      on_queued: see Batched.

    Raises:
      ServingError: why it cannot be loaded.
    """
    if uses_tflite(path, options.prefer_tflite_model):
        from evergreen.serving.tflite import TfliteModel

        # The interpreter allocates anew for each size of a batch: what batching saves is lost again.
        return TfliteModel(name, version, path / TFLITE_FILE)
    from evergreen.serving.saved_model import SavedModel

    model = SavedModel(name, version, path)
    if options.batching is None:
        return model
    from evergreen.serving.batching import Batched

    return Batched(model, options.batching, on_queued)
