"""The stock StatisticsGen with a faster executor, and a fingerprint in its cache key."""

from __future__ import annotations

from tfx.components.statistics_gen import component as stock
from tfx.dsl.components.base import executor_spec

from evergreen.components.fingerprinted import with_fingerprint
from evergreen.components.statistics_gen import executor


class StatisticsGen(with_fingerprint(stock.StatisticsGen)):  # type: ignore[misc]
    """TFX's StatisticsGen: same parameters, channels and artifacts; `fingerprint` is part of the cache key.

    See `executor.Executor` for what is faster, and when.
    """

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(executor.Executor)
