"""Savings when TensorFlow and TFX are loaded; each changes time, not results.

Found by `python -X importtime`, which lists what a run imports and no stage of ours uses, and by `evergreen run
--profile`.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.abc
import importlib.machinery
import os
import sys
import types
from collections.abc import Iterator
from typing import Any

# What others import for uses that a run seldom has; behind it stand hundreds of modules.
_ON_USE = (
    # Each stock component, with Docker's and Kubernetes' clients, Keras Tuner and TFMA behind them.
    "tfx.components",
    # Beam's, with IPython behind their progress bars.
    "google.cloud.bigquery",
    "google.cloud.bigquery_storage_v1",
    "google.cloud.pubsub",
    # TensorFlow's, for clusters on Compute Engine.
    "googleapiclient.discovery",
)


def install() -> None:
    """Prepares this process for light imports; to be called before TensorFlow or TFX is loaded, harmless afterwards."""
    # TensorFlow loads the Keras that `tf.keras` means as it is imported: by default Keras 3, with scikit-learn and
    # IPython behind it. Evergreen's models are tf_keras ones, and TensorFlow Transform sets the same when it is loaded.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Keeps the garbage collector from what the block loads, in the block and ever after.

    Half a million objects are made as TensorFlow and TFX are loaded, and all but a few stay: the collector looks at
    them again and again, which takes a fifth of the loading, and frees next to nothing.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


class _Finder(importlib.abc.MetaPathFinder):
    """Finds what is to run on use, where Python would find it."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        spec = importlib.machinery.PathFinder.find_spec(name, path, target) if name in _ON_USE else None
        if spec is not None and spec.loader is not None:
            spec.loader = _OnUse(spec.loader)
        return spec


class _OnUse(importlib.abc.Loader):
    """Loads a module without running it."""

    def __init__(self, loader: Any):
        self.loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Leaves it as it is: it runs itself."""


class _Module(types.ModuleType):
    """A module or package that runs when a name is asked of it that it does not have yet; its modules import at once.

    The standard library's LazyLoader would run a package already when a module inside of it is imported.
    """

    def __getattr__(self, name: str) -> Any:
        spec = self.__dict__.get("__spec__")
        # Names of the import system are not the module's own, and while it runs, or after, there is no second time.
        if spec is None or name.startswith("__") or self.__dict__.get("_has_run"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        self.__dict__["_has_run"] = True
        spec.loader.loader.exec_module(self)
        return getattr(self, name)
