"""Two savings for Beam pipelines that run in this process; each changes time, not results.

Both were found by profiling Transform on three small spans, where the fixed cost of a pipeline outweighs its data:
benchmarks/transform_overhead.py prints what each is worth.
"""

from __future__ import annotations

import types
from typing import Any

# TFX packs its own source into an sdist for remote workers in every Beam executor, unless the arguments name some
# dependency. The in-process runner has no workers to send it to and ignores the container's name.
IN_PROCESS_ARGS = ("--sdk_container_image=in-process",)

_memo: dict[Any, tuple[list[str], list[Any]]] = {}


def remember_signatures() -> None:
    """Makes Beam inspect a DoFn method's signature once for its class instead of once for each instance and stage.

    Beam asks for the arguments of some thirty methods of each DoFn, several times for each transform. What a bound
    method takes depends on its function alone. Calling this again does nothing.
    """
    from apache_beam.transforms import core

    original = core.get_function_args_defaults
    if getattr(original, "remembers", False):
        return

    def get_function_args_defaults(function: Any) -> tuple[list[str], list[Any]]:
        key = function.__func__ if isinstance(function, types.MethodType) else None
        if key is None:
            return original(function)
        if key not in _memo:
            _memo[key] = original(function)
        arguments, defaults = _memo[key]
        return list(arguments), list(defaults)

    get_function_args_defaults.remembers = True  # type: ignore[attr-defined]
    core.get_function_args_defaults = get_function_args_defaults
