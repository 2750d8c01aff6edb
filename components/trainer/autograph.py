"""AutoGraph rewrites the source of what a graph function calls, which is slow; only the user's own code needs it.

It leaves the packages on its list alone. `keras` is on it in every version of TensorFlow, but `tf_keras` only since a
later one than 2.16 (2.21 has it). `step_functions` says `tf.while_loop` where it means one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

_LEFT_ALONE = ("tf_keras", "evergreen.components.trainer.step_functions")


def leave_libraries_alone() -> None:
    """Puts tf_keras and the loop's functions on AutoGraph's list."""
    from tensorflow.python.autograph.core import config

    for package in _LEFT_ALONE:
        if not any(rule.matches(package) for rule in config.CONVERSION_RULES):
            config.CONVERSION_RULES = (config.DoNotConvert(package), *config.CONVERSION_RULES)


def enabled() -> AbstractContextManager[Any]:
    """Lets AutoGraph convert the user's layers and losses within a graph function that is itself not converted."""
    from tensorflow.python.autograph.core import ag_ctx, converter

    options = converter.ConversionOptions(recursive=True, user_requested=True)
    return ag_ctx.ControlStatusCtx(ag_ctx.Status.ENABLED, options)


def converted(function: Callable[..., Any]) -> Callable[..., Any]:
    """Converts a function while `enabled`, unless it is of a library that is left alone."""
    from tensorflow.python.autograph.core import ag_ctx
    from tensorflow.python.autograph.impl import api

    return api.tf_convert(function, ag_ctx.control_status_ctx())
