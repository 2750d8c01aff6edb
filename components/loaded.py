"""SavedModels that several stages of a run load: each is loaded once.

The Evaluator, the Quantizer and the Pusher ask the same model in one process, and loading its graph takes longer than
asking it. The last model is kept, and no other.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

_FILES = ("saved_model.pb", "saved_model.pbtxt", "variables/variables.index")

_last: dict[tuple[object, ...], Any] = {}


def saved_model(path: str | os.PathLike[str], tags: Sequence[str] | None = None) -> Any:
    """Loads a SavedModel as `tf.saved_model.load` does, or returns it as it was loaded before.

    Args:
      path: its folder. One that has been written since is loaded again.
      tags: of the graph to load; None where there is only one.

    Returns:
      The loaded model, to be called and not to be changed.

    Raises:
      OSError: there is no such model.
      Exception: whatever TensorFlow raises where it cannot be loaded.
    """
    import tensorflow as tf

    files = [os.path.realpath(os.path.join(path, name)) for name in _FILES]
    found = [(file, status.st_mtime_ns, status.st_size) for file in files if (status := _status(file))]
    key = (*found, tuple(tags or ()))
    if not found or key not in _last:
        _last.clear()
        loaded = tf.saved_model.load(os.fspath(path), tags=tags)
        if not found:  # on an object store, say
            return loaded
        _last[key] = loaded
    return _last[key]


def _status(file: str) -> os.stat_result | None:
    try:
        return os.stat(file)
    except OSError:
        return None
