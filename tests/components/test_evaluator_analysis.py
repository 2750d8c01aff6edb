"""The TFMA run: its numbers are TFMA's own, and its result loads with TFMA."""

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
import tensorflow_model_analysis as tfma
from apache_beam.options.pipeline_options import PipelineOptions
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.proto import config_pb2

from evergreen.components.evaluator import analysis, metrics, tables, tfma_metrics
from evergreen.components.evaluator.settings import EvaluateSettings

pytestmark = pytest.mark.tensorflow

RUNNER = "--runner=apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"
URIS = {"challenger": "/models/2", "champion": "/models/1"}


def _pipeline():
    return beam.Pipeline(options=PipelineOptions([RUNNER]))


def _table(rows=400):
    generator = np.random.default_rng(0)
    labels = (generator.random(rows) < 0.4).astype(np.float64)
    return pa.table(
        {
            "label": labels,
            "prediction": np.clip(0.3 * labels + 0.6 * generator.random(rows), 0.01, 0.99),
            "champion_prediction": np.clip(0.2 * labels + 0.7 * generator.random(rows), 0.01, 0.99),
            "carrier": pa.array([None if c == "?" else str(c) for c in generator.choice(["AA", "UA", "?"], rows)]),
            "month": generator.integers(1, 3, rows),
        }
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("analysis"))
    settings = EvaluateSettings(
        label="late",
        metrics=("auc", "accuracy", "precision", "log_loss", "mean_absolute_error", "calibration"),
        slices=(("carrier",), ("month", "carrier")),
    )
    path = tables.write(_table(), folder)
    return folder, settings, analysis.run(_pipeline, path, folder, settings, URIS)


def test_slices_are_tfma_s(run):
    _, _, result = run
    table = _table().to_pandas()
    assert set(result) == (
        {(), *((("carrier", c),) for c in ("AA", "UA"))}
        | {(("carrier", c), ("month", m)) for c in ("AA", "UA") for m in (1, 2)}
    )
    for key, models in result.items():
        rows = table
        for column, value in key:
            rows = rows[rows[column] == value]
        for model, column in (("challenger", "prediction"), ("champion", "champion_prediction")):
            expected = metrics.compute(["auc", "calibration"], rows["label"].to_numpy(), rows[column].to_numpy())
            assert models[model]["example_count"] == len(rows)
            assert {name: models[model][name] for name in expected} == pytest.approx(expected)


def test_tfma_loads_both_models_and_the_difference(run):
    folder, _, result = run
    loaded = tfma.load_eval_result(folder, model_name="challenger")
    assert loaded.model_location == "/models/2" and loaded.config.model_specs[1].is_baseline
    overall = loaded.get_metrics_for_slice(())
    difference = result[()]["challenger"]["auc"] - result[()]["champion"]["auc"]
    assert overall["auc_diff"]["doubleValue"] == pytest.approx(difference)
    assert tfma.load_eval_result(folder, model_name="champion").get_metrics_for_slice(())["auc"]


def test_equal_to_tfma_s_own_metrics(run, tmp_path):
    """Its AUC has 10,000 bins and agrees to the third digit, the others to rounding; ours take single rows too."""
    _, _, result = run
    names = {
        "auc": "AUC",
        "accuracy": "BinaryAccuracy",
        "precision": "Precision",
        "log_loss": "BinaryCrossEntropy",
        "mean_absolute_error": "MeanAbsoluteError",
        "calibration": "Calibration",
    }
    config = config_pb2.EvalConfig(
        model_specs=[config_pb2.ModelSpec(label_key="label", prediction_key="prediction")],
        slicing_specs=[config_pb2.SlicingSpec(), config_pb2.SlicingSpec(feature_keys=["carrier"])],
        metrics_specs=[
            config_pb2.MetricsSpec(
                metrics=[
                    *(config_pb2.MetricConfig(class_name=c, config=f'{{"name": "{n}"}}') for n, c in names.items()),
                    config_pb2.MetricConfig(
                        class_name="ExamMetric", module=tfma_metrics.__name__, config='{"name": "brier"}'
                    ),
                ]
            )
        ],
    )
    table = _table()
    lists = {
        name: pa.array([None if v is None else [v] for v in table[name].to_pylist()]) for name in table.schema.names
    }
    batch = pa.RecordBatch.from_pydict(lists)
    with _pipeline() as pipeline:
        extracts = pipeline | beam.Create([batch])
        _ = extracts | tfma.ExtractEvaluateAndWriteResults(eval_config=config, output_path=str(tmp_path))
    stock = tfma.load_eval_result(str(tmp_path))
    for key in ((), (("carrier", "AA"),), (("carrier", "UA"),)):
        ours = {**result[key]["challenger"], "brier": _brier(key)}
        for name, value in stock.get_metrics_for_slice(key).items():
            assert ours[name] == pytest.approx(value["doubleValue"], abs=1e-3 if name == "auc" else 1e-5), (key, name)


def _brier(key):
    table = _table().to_pandas()
    for column, value in key:
        table = table[table[column] == value]
    return float(((table["label"] - table["prediction"]) ** 2).mean())


def test_one_model_without_slices_in_several_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(analysis, "BATCH", 150)
    settings = EvaluateSettings(label="late", metrics=("auc",))
    path = tables.write(_table(), str(tmp_path))
    result = analysis.run(_pipeline, path, str(tmp_path), settings, {"challenger": "/models/2"})
    expected = metrics.compute(["auc"], *(_table()[name].to_numpy() for name in ("label", "prediction")))
    assert result == {(): {"challenger": pytest.approx({"example_count": 400.0, **expected})}}
    assert tfma.load_eval_result(str(tmp_path)).model_location == "/models/2"


def test_the_rows_are_collected_once_for_all_metrics_of_a_model():
    computations = [
        computation
        for name in ("auc", "log_loss", tfma_metrics.EXAMPLE_COUNT)
        for computation in tfma_metrics.ExamMetric(name).computations(model_names=["challenger", "champion"])
    ]
    assert len({one for one in computations if isinstance(one, metric_types.MetricComputation)}) == 2
