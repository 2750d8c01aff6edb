"""SavedModels that several stages of a run load: each is loaded once.

The Evaluator, the Quantizer and the Pusher ask the same model in one process, the Trainer and the Quantizer the same
transform graph, and loading a graph takes longer than asking it. The last one of a kind is kept, and no other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

_FILES = ("saved_model.pb", "saved_model.pbtxt", "variables/variables.index")

_Loaded = TypeVar("_Loaded")
_last: dict[str, tuple[object, Any]] = {}


def once(kind: str, folder: str | os.PathLike[str], load: Callable[[], _Loaded]) -> _Loaded:
    """Loads what a SavedModel holds, or returns it as it was loaded before.

    Args:
      kind: what is loaded of it.
      folder: the SavedModel's. One that has been written since is loaded again, and one that is not on this machine
        each time.
      load: loads it.
    """
    files = [os.path.realpath(os.path.join(folder, name)) for name in _FILES]
    key = [(file, status.st_mtime_ns, status.st_size) for file in files if (status := _status(file))]
    if kind in _last and key and _last[kind][0] == key:
        return _last[kind][1]
    _last.pop(kind, None)
    loaded = load()
    if key:
        _last[kind] = key, loaded
    return loaded


def saved_model(path: str | os.PathLike[str], tags: Sequence[str] | None = None) -> Any:
    """Loads a SavedModel as `tf.saved_model.load` does, or returns it as it was loaded before.

    Args:
      path: its folder.
      tags: of the graph to load; None where there is only one.

    Returns:
      The loaded model, to be called and not to be changed.

    Raises:
      OSError: there is no such model.
      Exception: whatever TensorFlow raises where it cannot be loaded.
    """
    import tensorflow as tf

    return once(f"model {tags}", path, lambda: tf.saved_model.load(os.fspath(path), tags=tags))


def _status(file: str) -> os.stat_result | None:
    try:
        return os.stat(file)
    except OSError:
        return None
