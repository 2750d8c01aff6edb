"""The TFMA run of gate 2: metrics of challenger and champion, overall and by slice, from predictions made before.

TFMA slices, combines, subtracts the champion's metrics from the challenger's and writes the result that
`tfma.load_eval_result` and TFMA's notebook views read. Three things differ from the stock Evaluator, all for
speed: the models are not called again, since their answers are in predictions.parquet; rows reach
TFMA slice by slice instead of one by one; and TFMA's plots, attributions and validations, which nobody configured,
are not written. The verdict is in the ModelBlessing artifact. TFMA and Beam are imported inside the functions.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from evergreen.components.evaluator import slices, tables
from evergreen.components.evaluator.settings import EvaluateSettings

CHALLENGER = "challenger"
CHAMPION = "champion"
PREDICTION_COLUMNS = {CHALLENGER: "prediction", CHAMPION: "champion_prediction"}
BATCH = 1 << 17

# {slice key: {model: {metric: value}}}
Result = dict[slices.SliceKey, dict[str, dict[str, float]]]


def run(
    make_pipeline: Any,
    predictions_file: str,
    output_uri: str,
    settings: EvaluateSettings,
    model_uris: Mapping[str, str],
) -> Result:
    """Runs TFMA and reads back what it wrote.

    Args:
      make_pipeline: gives the Beam pipeline to run in (`BaseBeamExecutor._make_beam_pipeline`).
      predictions_file: a Parquet file with `label`, the prediction columns and the columns to slice by.
      output_uri: the folder to write to.
      settings: the metrics and the slices.
      model_uris: where the models are, by `challenger` and, with a champion, `champion`; what TFMA's views show.

    Returns:
      By slice (the whole exam is `()`), model and metric; the rows of a slice are its metric `example_count`.
    """
    import apache_beam as beam
    import tensorflow_model_analysis as tfma

    models = [name for name in (CHALLENGER, CHAMPION) if name in model_uris]
    config = eval_config(settings, models)
    slice_columns = [(), *settings.slices]
    extractor = tfma.extractors.Extractor(
        stage_name=tfma.extractors.SLICE_KEY_EXTRACTOR_STAGE_NAME,
        ptransform=beam.FlatMap(_extracts, slice_columns, models),
    )
    locations = {name if len(models) > 1 else "": uri for name, uri in model_uris.items()}
    writers = [
        tfma.writers.EvalConfigWriter(
            output_uri, config, data_location=predictions_file, data_file_format="parquet", model_locations=locations
        ),
        tfma.writers.MetricsPlotsAndValidationsWriter(
            {tfma.METRICS_KEY: os.path.join(output_uri, tfma.METRICS_KEY)}, config, output_file_format="tfrecord"
        ),
    ]
    with make_pipeline() as pipeline:
        _ = (
            pipeline
            | "PredictionsFile" >> beam.Create([predictions_file])
            | "ReadPredictions" >> beam.FlatMap(_record_batches)
            | "Analyze"
            >> tfma.ExtractEvaluateAndWriteResults(
                eval_config=config, extractors=[extractor], writers=writers, output_path=output_uri
            )
        )
    return load(output_uri, models)


def eval_config(settings: EvaluateSettings, models: list[str]) -> Any:
    """Puts the settings into TFMA's words.

    Args:
      settings: the metrics and the slices.
      models: `challenger`, and `champion` where there is one.

    Returns:
      A `tfma.EvalConfig`; the champion is its baseline.
    """
    from tensorflow_model_analysis.proto import config_pb2  # TFMA 0.52 no longer offers these at its top.

    from evergreen.components.evaluator import tfma_metrics

    def metric(name: str) -> Any:
        arguments = json.dumps({"name": name, "threshold": settings.threshold})
        return config_pb2.MetricConfig(
            class_name=tfma_metrics.ExamMetric.__name__, module=tfma_metrics.__name__, config=arguments
        )

    return config_pb2.EvalConfig(
        model_specs=[
            config_pb2.ModelSpec(
                name=name,
                label_key="label",
                prediction_key=PREDICTION_COLUMNS[name],
                is_baseline=name == CHAMPION,
            )
            for name in models
        ],
        slicing_specs=[config_pb2.SlicingSpec(feature_keys=columns) for columns in ((), *settings.slices)],
        metrics_specs=[
            config_pb2.MetricsSpec(
                metrics=[metric(name) for name in (tfma_metrics.EXAMPLE_COUNT, *settings.metrics)],
                model_names=models if len(models) > 1 else [],
            )
        ],
    )


def load(output_uri: str, models: list[str]) -> Result:
    """Reads a result back with `tfma.load_eval_result`.

    Args:
      output_uri: where `run` wrote.
      models: `challenger`, and `champion` where there is one.

    Returns:
      As `run`.
    """
    import tensorflow_model_analysis as tfma

    found: Result = {}
    for model in models:
        loaded = tfma.load_eval_result(output_uri, model_name=model if len(models) > 1 else None)
        for key, outputs in loaded.slicing_metrics:
            values = outputs[""][""]
            found.setdefault(key, {})[model] = {
                name: float(value["doubleValue"]) for name, value in values.items() if not name.endswith("_diff")
            }
    return found


def _record_batches(predictions_file: str) -> Iterator[Any]:
    yield from tables.read(predictions_file).combine_chunks().to_batches(max_chunksize=BATCH)


def _extracts(extracts: Mapping[str, Any], slice_columns: list[tuple[str, ...]], models: list[str]) -> Iterator[Any]:
    """Yields the rows of a record batch slice by slice, as TFMA's evaluators take them."""
    import tensorflow_model_analysis as tfma
    from tensorflow_model_analysis.slicer import slicer_lib

    batch = extracts[tfma.ARROW_RECORD_BATCH_KEY]
    labels = batch.column("label").to_numpy()
    predictions = {name: batch.column(PREDICTION_COLUMNS[name]).to_numpy() for name in models}
    for columns in slice_columns:
        for key, rows in slices.members(batch, columns):
            answers = {name: values[rows] for name, values in predictions.items()}
            yield {
                tfma.LABELS_KEY: labels[rows],
                tfma.PREDICTIONS_KEY: answers if len(models) > 1 else answers[CHALLENGER],
                tfma.EXAMPLE_WEIGHTS_KEY: None,
                tfma.SLICE_KEY_TYPES_KEY: slicer_lib.slice_keys_to_numpy_array([key]),
            }
