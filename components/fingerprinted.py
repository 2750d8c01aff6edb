"""Stock TFX components with one more parameter, which is part of the cache key.

TFX answers a node from its cache when inputs and parameters are the same, whatever became of the code. A fingerprint of
the code among the parameters mends that without a change of the component.
"""

from __future__ import annotations

from typing import Any


def with_fingerprint(component_class: type) -> type:
    """Returns a stock component that takes a fingerprint.

    Example:

        StatisticsGen = with_fingerprint(tfx.components.StatisticsGen)
        StatisticsGen(examples=..., fingerprint="3f2a")

    Args:
      component_class: a class of a component, such as StatisticsGen, Transform or ImportSchemaGen.

    Returns:
      A subclass whose constructor also takes `fingerprint: str`; it becomes an execution parameter that the executor
      passes over. Everything else is unchanged: executor, channels, default id, and the type's name in ML Metadata.
    """

    class Fingerprinted(component_class):  # type: ignore[misc,valid-type]
        def __init__(self, *args: Any, fingerprint: str = "", **kwargs: Any):
            super().__init__(*args, **kwargs)
            # The stock constructor builds the spec, so the parameter can only be added behind it; the compiler reads
            # the parameters from here.
            self.spec.exec_properties["fingerprint"] = fingerprint

    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(Fingerprinted, name, getattr(component_class, name))
    return Fingerprinted
