"""Two savings when TensorFlow and TFX are loaded; each changes time, not results.

Found by `python -X importtime`, which lists what a run imports and no stage of ours uses.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
import types
from typing import Any


def install() -> None:
    """Prepares this process for light imports; to be called before TensorFlow or TFX is loaded, harmless afterwards."""
    # TensorFlow loads the Keras that `tf.keras` means as it is imported: by default Keras 3, with scikit-learn and
    # IPython behind it. Evergreen's models are tf_keras ones, and TensorFlow Transform sets the same when it is loaded.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    # The package imports each stock component, with Docker's and Kubernetes' clients, Keras Tuner and TFMA behind them.
    _load_on_use("tfx.components")


class _Package(types.ModuleType):
    """A package whose `__init__` runs when a name is asked of it that it does not have yet; its modules import at once.

    The standard library's LazyLoader would run it already when a module inside of the package is imported.
    """

    def __getattr__(self, name: str) -> Any:
        spec = self.__dict__.get("__spec__")
        # Names of the import system are not the package's own, and while it runs, or after, there is no second time.
        if spec is None or name.startswith("__") or self.__dict__.get("_has_run"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        self.__dict__["_has_run"] = True
        spec.loader.exec_module(self)
        return getattr(self, name)


def _load_on_use(name: str) -> None:
    """Puts a package into `sys.modules` whose `__init__` runs on first use, unless it is loaded already."""
    if name in sys.modules:
        return
    parent, _, child = name.rpartition(".")
    spec = importlib.util.find_spec(name)  # imports the parent, not the package
    if spec is None or spec.loader is None:
        return
    package = _Package(name)
    package.__dict__.update(
        __spec__=spec,
        __loader__=spec.loader,
        __file__=spec.origin,
        __path__=list(spec.submodule_search_locations or []),
        __package__=name,
    )
    sys.modules[name] = package
    setattr(sys.modules[parent], child, package)
