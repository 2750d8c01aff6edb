"""One quantization from a model's artifacts to a report: convert, answer the exam rows, time, judge, save int8."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from evergreen.components import loaded, model_layout, progress
from evergreen.components.evaluator import metrics
from evergreen.components.evaluator.settings import EvaluateSettings
from evergreen.components.model_layout import Signature
from evergreen.components.quantizer import (
    early,
    measure,
    metadata,
    page,
    report,
    rows,
    runtime,
    selective,
    variants,
    worker,
)
from evergreen.components.quantizer.convert import ConversionFailed
from evergreen.components.quantizer.settings import BASELINE, INT8, INT8_FLOAT_IO, QuantizeSettings
from evergreen.components.quantizer.variants import Made, Source
from evergreen.components.quantizer.worker import Worker

# The converted preprocessing is float32 like the other one; an answer that differs by more is not rounding.
FRONT_TOLERANCE = 1e-3
_ANALYSED_ROWS = 100
_WORST = 10
_ONE_ROW = "1x1"

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Where everything lies.

    Attributes:
      model: URI of the Model artifact.
      transform_graph: URI of the TransformGraph.
      examples: URI of the newest span's Examples.
      span: that span.
      evaluation: URI of the ModelEvaluation.
    """

    model: str
    transform_graph: str
    examples: str
    span: int
    evaluation: str


@dataclasses.dataclass
class _Measured:
    """A variant as far as it came."""

    made: Made | None = None
    run: runtime.Run | None = None
    measurement: measure.Measurement | None = None
    failure: str = ""
    search: selective.Search | None = None


@dataclasses.dataclass(frozen=True)
class Quantized:
    """What came of a quantization.

    Attributes:
      report: the report.
      page: the same as a page of HTML.
      contents: the files of the variants that could be made, by variant.
    """

    report: report.Report
    page: str
    contents: dict[str, bytes] = dataclasses.field(default_factory=dict)


def nothing_to_do(settings: QuantizeSettings, span: int, reason: str) -> Quantized:
    """Says that nothing was quantized.

    Args:
      settings: the section `quantize`.
      span: the newest span.
      reason: why.
    """
    said = report.nothing_to_do(settings, span, reason)
    return Quantized(said, page.render(said))


def quantize(inputs: Inputs, settings: QuantizeSettings, evaluate: EvaluateSettings) -> Quantized:
    """Makes, measures and judges every variant.

    Args:
      inputs: the artifacts.
      settings: the section `quantize`.
      evaluate: the section `evaluate`.

    Raises:
      EvergreenError: the exam rows are not those that gate 2 judged.
    """
    with early.take(settings) as converter:
        result, contents = _Quantization(converter, inputs, settings, evaluate).run()
        progress.report(None, "drawing the report")
        return Quantized(result, converter.page(result), contents)


class _Quantization:
    """Holds what the steps share."""

    def __init__(self, converter: Worker, inputs: Inputs, settings: QuantizeSettings, evaluate: EvaluateSettings):
        from evergreen.components.trainer import transform_graph

        self.worker, self.inputs, self.settings = converter, inputs, settings
        self.evaluate = evaluate
        self.core = model_layout.core_dir(inputs.model)
        progress.report(None, "reading the exam rows")
        self.graph = transform_graph.load(inputs.transform_graph)
        self.names = [name for name in core_features(self.core) if name in self.graph.specs]
        self.exam = rows.exam(self.graph, inputs.examples, evaluate.label, self.names)
        recorded, self.reference = rows.reference(inputs.evaluation)
        rows.check_same_rows(self.exam.labels, recorded)
        names = tuple(dict.fromkeys([*evaluate.metrics, *settings.max_drop]))
        self.reference_metrics = metrics.compute(names, self.exam.labels, self.reference, evaluate.threshold)
        self.calibration: rows.Features = {}
        if settings.calibrated:
            self.calibration = rows.calibration(
                self.graph, inputs.examples, self.names, settings.calibration_rows, settings.calibration_seed
            )
        self.found: dict[str, _Measured] = {}

    def run(self) -> tuple[report.Report, dict[str, bytes]]:
        """Takes the steps in order."""
        wanted = report.needs_baseline(self.settings)
        self.begin(wanted)
        source, inputs_reason = self.baseline()
        for variant in wanted[1:]:
            self.found[variant] = self.measured(source, variant)
            if variant in (INT8, INT8_FLOAT_IO) and self.is_beyond(self.found[variant]):
                self.save(source, variant)
        activations = self.activations()
        saved_model = self.saved_model_ms(source.front is not None)
        front = source.front
        table = [self.row(variant, front, activations, saved_model) for variant in wanted]
        about = {
            "inputs": "raw" if front is not None else "transformed",
            "inputs_reason": inputs_reason,
            "saved_model_ms": saved_model,
        }
        threshold = self.evaluate.threshold
        result = report.build(
            self.settings, table, self.reference_metrics, self.inputs.span, len(self.exam.labels), threshold, about
        )
        contents = {name: one.made.content for name, one in self.found.items() if one.made is not None}
        return result, contents

    def begin(self, wanted: Sequence[str]) -> None:
        """Begins the conversions that are certain to be needed, or goes on with those that were begun early."""
        select = self.settings.allow_select_ops
        front = worker.preprocessing(self.inputs.transform_graph, self.names)
        models = [worker.conversion(self.core, variant, select=select) for variant in wanted]
        self.worker.keep([front, *models])
        self.worker.begin(front)
        variants.begin(self.worker, self.core, self.calibration, select, wanted)

    def baseline(self) -> tuple[Source, str]:
        """Makes float32, with the preprocessing before it if that converts and answers as the SavedModel does.

        Returns:
          What the other variants are made from, and why they take transformed features; '' where they take raw ones.
        """
        try:
            front = self.front()
        except ConversionFailed as failure:
            front, why = None, str(failure)
        else:
            source = self.source(front)
            self.found[BASELINE] = measured = self.measured(source, BASELINE)
            difference = measured.measurement.largest_difference if measured.measurement else 0.0
            tolerance = FRONT_TOLERANCE * max(1.0, float(np.abs(self.reference).max()))
            if measured.made is None or (measured.run is not None and difference <= tolerance):
                return source, ""
            why = measured.failure or f"its answers differ by {difference:.2g} from the SavedModel's"
        source = self.source(None)
        self.found[BASELINE] = self.measured(source, BASELINE)
        return source, why

    def front(self) -> bytes:
        """Converts the preprocessing."""
        progress.report(None, "converting the preprocessing")
        try:
            return self.worker.preprocessing(self.inputs.transform_graph, self.names)
        except ConversionFailed as failure:
            text = str(failure).partition("; compute it otherwise")[0].removeprefix("conversion failed: ")
            raise ConversionFailed(f"the preprocessing cannot be converted: {text}") from failure

    def source(self, front: bytes | None) -> Source:
        """Puts together what variants are made from."""
        raw = front is not None
        evaluate = self.evaluate
        binary = any(metrics.get(name).binary for name in self.reference_metrics)
        about = metadata.describe_file(self.graph, self.names, raw, evaluate.label, binary, evaluate.threshold)
        if self.calibration:
            count = len(next(iter(self.calibration.values())))
            about["calibration"] = metadata.calibration(
                self.inputs.span, rows.TRAIN, count, self.settings.calibration_seed
            )
        return Source(self.core, front, self.calibration, about, self.settings.allow_select_ops)

    def measured(self, source: Source, variant: str, denied: tuple[str, ...] = ()) -> _Measured:
        """Makes a variant and lets it answer the exam rows."""
        words = f", {len(denied)} of its layers in float" if denied else ""
        progress.report(None, f"{variant}{words}: converting")
        found = _Measured()
        try:
            found.made = variants.make(self.worker, source, variant, denied)
        except ConversionFailed as failure:
            found.failure = str(failure)
            return found
        progress.report(None, f"{variant}{words}: answering the exam rows")
        self.worker.settle()  # its answers are timed
        features = self.exam.transformed if source.front is None else self.exam.raw
        try:
            found.run = runtime.run(found.made.content, features, self.settings.convert_seconds, found.made.select_ops)
        except runtime.RunFailed as failure:
            found.failure = str(failure)
            return found
        found.measurement = measure.compare(
            found.run.predictions[:, 0],
            self.reference,
            self.exam.labels,
            self.reference_metrics,
            self.evaluate.threshold,
        )
        return found

    def is_beyond(self, found: _Measured) -> bool:
        """Whether a variant was measured and breaks a bound that layers in float could save."""
        return found.measurement is not None and report.excess(found.measurement, self.settings) > 1

    @functools.cached_property
    def errors(self) -> list[dict[str, Any]]:
        """The activation errors of the fully quantized model, the worst layer first."""
        progress.report(None, "measuring the activations of int8")
        few = {name: values[:_ANALYSED_ROWS] for name, values in self.calibration.items()}
        try:
            return self.worker.activation_errors(self.core, few)
        except ConversionFailed as failure:
            _log.warning("the activation errors of int8 are not known: %s", failure)
            return []

    def save(self, source: Source, variant: str) -> None:
        """Leaves layers of an int8 variant in float, as many as its bounds ask for."""
        tried: dict[tuple[str, ...], _Measured] = {(): self.found[variant]}

        def attempt(layers: tuple[str, ...]) -> selective.Attempt | None:
            tried[layers] = found = self.measured(source, variant, layers)
            if found.made is None or found.measurement is None:
                return None
            return selective.Attempt(layers, report.excess(found.measurement, self.settings), len(found.made.content))

        first = self.found[variant]
        assert first.made is not None and first.measurement is not None
        start = selective.Attempt((), report.excess(first.measurement, self.settings), len(first.made.content))
        search = selective.search(start, [row["layer"] for row in self.errors], attempt)
        # What could not be saved stays what it was: a mixture that passes no gate is of use to nobody.
        self.found[variant] = tried[search.best.layers] if search.best.passes else first
        self.found[variant].search = search

    def activations(self) -> dict[str, list[dict[str, Any]]]:
        """The ten worst layers of each int8 variant by activation error."""
        made = [name for name in (INT8, INT8_FLOAT_IO) if name in self.found and self.found[name].made is not None]
        worst = self.errors[:_WORST] if made else []
        return dict.fromkeys(made, worst)

    def saved_model_ms(self, raw: bool) -> dict[str, dict[str, float]]:
        """Times the SavedModel on one row and on a batch, by the rows of a call."""
        import tensorflow as tf

        progress.report(None, "timing the SavedModel")
        self.worker.settle()
        serving = model_layout.serving_dir(self.inputs.model)
        model = loaded.saved_model(serving if raw and model_layout.is_saved_model(serving) else self.core)
        name = Signature.PREDICT_RAW if Signature.PREDICT_RAW in model.signatures else Signature.SERVING_DEFAULT
        signature = model.signatures[name]
        wanted = signature.structured_input_signature[1]
        features = self.exam.raw if name == Signature.PREDICT_RAW else self.exam.transformed
        if not set(wanted) <= set(features):
            return {}
        times = {}
        for size in (1, runtime.TIMED_BATCH):
            batch = {
                key: tf.constant(np.resize(features[key], (size, *features[key].shape[1:])), spec.dtype)
                for key, spec in wanted.items()
            }
            times[str(size)] = runtime.timed(lambda batch=batch: signature(**batch))
        return times

    def row(
        self,
        variant: str,
        front: bytes | None,
        activations: dict[str, list[dict[str, Any]]],
        saved_model: dict[str, Any],
    ) -> dict[str, Any]:
        """The variant's row of the report."""
        found, baseline = self.found[variant], self.found[BASELINE]
        details: dict[str, Any] = {}
        if found.made is not None:
            details = variants.describe(found.made, baseline.made, front)
        details["activations"] = activations.get(variant, [])
        if found.run is not None:
            details |= latencies(found.run, baseline.run, saved_model)
        if found.search is not None:
            details["selective"] = found.search.story()
            details["selective_result"] = found.search.sentence(variant)
            details["left_in_float"] = list(found.search.best.layers) if found.search.best.passes else []
        return report.variant_row(
            variant,
            self.settings,
            size=len(found.made.content) if found.made else None,
            baseline_size=len(baseline.made.content) if baseline.made else None,
            measurement=found.measurement,
            failure=found.failure,
            dynamic_batch=found.run.dynamic_batch if found.run else True,
            details=details,
        )


def latencies(run: runtime.Run, baseline: runtime.Run | None, saved_model: dict[str, Any]) -> dict[str, Any]:
    """Returns a run's times for the report, beside those of float32 and of the SavedModel.

    Args:
      run: of the variant.
      baseline: of float32.
      saved_model: milliseconds by the rows of a call; may be empty.
    """
    own = run.latency_ms[_ONE_ROW]["p50"]
    return {
        "latency_ms": run.latency_ms,
        "latency_ratio": None if baseline is None else own / baseline.latency_ms[_ONE_ROW]["p50"],
        "saved_model_ratio": own / saved_model["1"]["p50"] if saved_model else None,
        "first_answer_ms": run.first_answer_ms,
        "arena_bytes": run.arena_bytes,
    }


def core_features(core: str) -> list[str]:
    """Returns the transformed features that a core model takes, in alphabetical order.

    Args:
      core: its folder; only its signature is read.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    with open(os.path.join(core, "saved_model.pb"), "rb") as file:
        saved.ParseFromString(file.read())
    return sorted(saved.meta_graphs[0].signature_def[Signature.SERVING_DEFAULT].inputs)
