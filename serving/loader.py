"""Loads one version, in the format that its directory and the flags call for. Imports TensorFlow when first asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from evergreen.serving.complete import TFLITE_FILE, check_complete
from evergreen.serving.errors import ServingError
from evergreen.serving.options import ManagerOptions
from evergreen.serving.servable import Servable


class Incomplete(ServingError):
    """A version that lacks something: to try again brings nothing as long as its files stay as they are."""


def load(
    name: str, version: int, path: Path, options: ManagerOptions, on_queued: Callable[[str, float], None]
) -> Servable:
    """Loads a version.

    Args:
      name: the model's name.
      version: the version's number.
      path: its directory.
      options: which format goes first, and whether requests are batched.
      on_queued: see Batched.

    Raises:
      Incomplete: the directory does not hold all that the model needs.
      ServingError: why it cannot be loaded.
    """
    try:
        meta_graph = check_complete(path, options.prefer_tflite_model)
    except ServingError as error:
        raise Incomplete(error.code, error.message) from error
    if meta_graph is None:
        from evergreen.serving.tflite import TfliteModel

        # The interpreter allocates anew for each size of a batch: what batching saves is lost again.
        return TfliteModel(name, version, path / TFLITE_FILE)
    from evergreen.serving.saved_model import SavedModel

    model = SavedModel(name, version, path, meta_graph)
    if options.batching is None:
        return model
    from evergreen.serving.batching import Batched

    return Batched(model, options.batching, on_queued)
