"""`evergreen.components.evaluator.metrics` as TFMA metrics. Imports TFMA: import it where TFMA runs, not before.

TFMA's own metrics are Python calls per row, per metric, per model and per slice, which is most of a stock Evaluator's
time. These take all rows of a slice at once and compute the same numbers (AUC exactly, where TFMA's has 10,000 bins).
They take single rows as well, so they work in any TFMA pipeline.
"""

from __future__ import annotations

from collections.abc import Iterable

import apache_beam as beam
import numpy as np
from tensorflow_model_analysis.metrics import metric_types, metric_util

from evergreen.components.evaluator import metrics

EXAMPLE_COUNT = "example_count"
_PAIRS = "_exam_pairs"  # the underscore makes it private: TFMA does not write it

_Pairs = list[tuple[np.ndarray, np.ndarray]]


class ExamMetric(metric_types.Metric):
    """One of our metrics in a `tfma.MetricsSpec`.

    Args:
      name: one of `metrics.names()`, or `example_count`.
      threshold: the probability from which on a row counts as positive.
    """

    def __init__(self, name: str, threshold: float = 0.5):
        super().__init__(metric_util.merge_per_key_computations(_computations), name=name, threshold=threshold)


metric_types.register_metric(ExamMetric)


def _computations(
    name: str, threshold: float, model_name: str = "", output_name: str = ""
) -> metric_types.MetricComputations:
    key = metric_types.MetricKey(name=name, model_name=model_name, output_name=output_name)
    pairs = metric_types.MetricKey(name=_PAIRS, model_name=model_name, output_name=output_name)

    def derived(found: metric_types.MetricsDict) -> metric_types.MetricsDict:
        labels, predictions = found[pairs]
        if name == EXAMPLE_COUNT:
            return {key: float(len(labels))}
        return {key: metrics.compute([name], labels, predictions, threshold)[name]}

    # TFMA drops what it has already: the rows are collected once for all metrics of a model.
    return [
        metric_types.MetricComputation(keys=[pairs], preprocessors=None, combiner=_Combiner(pairs)),
        metric_types.DerivedMetricComputation(keys=[key], result=derived),
    ]


class _Combiner(beam.CombineFn):
    """Collects the labels and a model's predictions."""

    def __init__(self, key: metric_types.MetricKey):
        self._key = key

    def create_accumulator(self) -> _Pairs:
        return []

    def add_input(self, accumulator: _Pairs, element: metric_types.StandardMetricInputs) -> _Pairs:
        labels = element.get_labels(self._key.model_name, self._key.output_name)
        predictions = element.get_predictions(self._key.model_name, self._key.output_name)
        accumulator.append((np.ravel(labels), np.ravel(predictions)))
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[_Pairs]) -> _Pairs:
        return [pair for pairs in accumulators for pair in pairs]

    def extract_output(self, accumulator: _Pairs) -> metric_types.MetricsDict:
        labels, predictions = (np.concatenate(parts) for parts in zip(*accumulator, strict=True))
        return {self._key: (labels, predictions)}
