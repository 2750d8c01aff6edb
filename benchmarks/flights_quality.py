"""How good the flights example's model is on a month that it has not seen, and gradient boosting on the same columns.

Each window of three months goes through the example's own features.py (analyzed by TensorFlow Transform), model.py and
the steps and hyperparameters of its evergreen.yaml; the whole next month is scored. Prints the AUC of each seed.

    .venv/bin/python benchmarks/flights_quality.py [--seeds 3] [--windows 1,9] [--held-out] [--json]

`--held-out` trains as Evergreen does, without the newest month's exam and without the dates of validation.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "flights"
sys.path.insert(0, str(EXAMPLE))

import data  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pyarrow as pa  # noqa: E402
import yaml  # noqa: E402

RUNNER = "apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"
BATCH = 8192
# What the example promises by first month: January to March scored on April, September to November on December.
PROMISED = {1: 0.66, 9: 0.68}


def load_schema() -> Any:
    """Returns the example's data contract."""
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    text = (ROOT / "schemas" / "flights" / "schema.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, schema_pb2.Schema())


def examples(table: pa.Table, schema: Any) -> list[bytes]:
    """Returns the rows as serialized tf.Examples; null is a missing feature."""
    from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

    seconds = table["time_hour"].cast(pa.timestamp("s", tz="UTC")).cast(pa.int64())
    table = table.set_column(0, "time_hour", seconds).combine_chunks()
    lists = []
    for column in table.columns:
        values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        values = values.chunk(0) if isinstance(values, pa.ChunkedArray) else values
        ends = np.cumsum(~np.asarray(values.is_null()), dtype=np.int64)
        values = values.drop_null()
        if pa.types.is_string(values.type):
            values = values.cast(pa.large_string()).cast(pa.large_binary())
        lists.append(pa.LargeListArray.from_arrays(pa.array(np.concatenate([[0], ends])), values))
    return RecordBatchToExamplesEncoder(schema).encode(pa.RecordBatch.from_arrays(lists, table.column_names))


def analyze(rows: list[bytes], schema: Any, folder: Path | None = None) -> Any:
    """Runs the analyzers of features.py.

    Args:
      rows: serialized tf.Examples.
      schema: theirs.
      folder: where the transform graph goes; None for a new one.

    Returns:
      The TFTransformOutput.
    """
    import apache_beam as beam
    import features
    import tensorflow_transform.beam as tft_beam
    from tensorflow_transform import TFTransformOutput
    from tfx_bsl.public import tfxio

    graph_dir = tempfile.mkdtemp() if folder is None else str(folder)
    source = tfxio.TFExampleBeamRecord(physical_format="memory", schema=schema)
    with beam.Pipeline(runner=RUNNER) as pipeline, tft_beam.Context(temp_dir=tempfile.mkdtemp()):
        raw = pipeline | beam.Create(rows, reshuffle=False) | source.BeamSource(batch_size=BATCH)
        graph = (raw, source.TensorAdapterConfig()) | tft_beam.AnalyzeDataset(features.preprocessing_fn)
        graph | tft_beam.WriteTransformFn(graph_dir)
    return TFTransformOutput(graph_dir)


def transform(graph: Any, rows: list[bytes], schema: Any) -> dict[str, np.ndarray]:
    """Applies the transform graph: transformed features by name, each [rows, 1]."""
    import tensorflow as tf
    from tensorflow_transform.tf_metadata import schema_utils

    layer, spec = graph.transform_features_layer(), schema_utils.schema_as_feature_spec(schema).feature_spec

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def apply(batch: tf.Tensor) -> dict[str, tf.Tensor]:
        return layer(tf.io.parse_example(batch, spec))

    batches = [apply(tf.constant(rows[i : i + BATCH])) for i in range(0, len(rows), BATCH)]
    return {name: np.concatenate([batch[name].numpy() for batch in batches]) for name in batches[0]}


def train(graph: Any, columns: dict[str, np.ndarray], settings: dict[str, Any], seed: int) -> tuple[Any, float]:
    """Trains the example's model.

    Returns:
      The model, and the seconds that `fit` took.
    """
    import tensorflow as tf
    import tf_keras
    from model import build_model

    from evergreen.components.trainer.autograph import leave_libraries_alone

    leave_libraries_alone()
    tf_keras.utils.set_random_seed(seed)
    model = build_model(graph, settings["hyperparameters"])
    tensors = {name: tf.constant(values) for name, values in columns.items()}
    count, batch_size, steps = len(columns[data.LABEL]), settings["global_batch_size"], settings["steps"]
    generator = np.random.default_rng(seed)
    order = np.concatenate([generator.permutation(count) for _ in range(steps * batch_size // count + 1)])
    order = order[: steps * batch_size].reshape(steps, batch_size)

    def gather(index: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        batch = {name: tf.gather(tensor, index) for name, tensor in tensors.items()}
        return batch, batch.pop(data.LABEL)

    batches = tf.data.Dataset.from_tensor_slices(order).map(gather).prefetch(4)
    model.compile(model.optimizer, model.loss, steps_per_execution=50)
    began = time.perf_counter()
    model.fit(batches, epochs=1, verbose=0)
    return model, time.perf_counter() - began


def area(labels: np.ndarray, scores: np.ndarray) -> float:
    """Returns the area under the ROC curve; ties count half."""
    ranks = pd.Series(scores.ravel()).rank().to_numpy()
    positive = labels.ravel() == 1
    ones, zeros = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def boosting(training: pa.Table, test: pa.Table) -> float | None:
    """Returns the AUC of scikit-learn's gradient boosting on the model's columns, None where it is not installed."""
    try:
        from sklearn.ensemble import HistGradientBoostingClassifier
    except ImportError:
        return None
    # A tree takes 255 categories at most, so that planes and their models stay out; the route is origin and dest.
    left_out = ["time_hour", "date", data.LABEL, "route", "tailnum", "manufacturer", "plane_model"]
    categories = ["carrier", "origin", "dest"]
    frames = [table.drop(left_out).to_pandas() for table in (training, test)]
    both = pd.concat(frames)
    for name in categories:
        both[name] = both[name].astype("category").cat.codes
    chosen = HistGradientBoostingClassifier(categorical_features=categories, early_stopping=False)
    chosen.fit(both[: len(frames[0])], training[data.LABEL].to_numpy())
    return area(test[data.LABEL].to_numpy(), chosen.predict_proba(both[len(frames[0]) :])[:, 1])


def held_out(table: pa.Table, newest: bool, settings: dict[str, Any]) -> pa.Table:
    """Leaves out what Evergreen does not train on: a newest month's last rows by time, and a share of the dates."""
    frame = table.select(["time_hour", "date"]).to_pandas()
    keep = np.array([zlib.crc32(date.encode()) / 2**32 >= settings["validation"] for date in frame["date"]])
    if newest:
        keep &= (frame["time_hour"] < frame["time_hour"].quantile(1 - settings["exam"])).to_numpy()
    return table.filter(pa.array(keep))


def measure(first: int, seeds: int, without: bool, config: dict[str, Any]) -> dict[str, Any]:
    """Trains on the months `first` to `first + 2` and scores the whole month after.

    Returns:
      What was measured, ready for JSON.
    """
    schema = load_schema()
    months = [data.load_month(month) for month in range(first, first + 3)]
    if without:
        months = [held_out(table, table is months[-1], config["data"]) for table in months]
    training, test = pa.concat_tables(months), data.load_month(first + 3)
    began = time.perf_counter()
    rows = examples(training, schema)
    graph = analyze(rows, schema)
    analyzed = time.perf_counter() - began
    columns, unseen = transform(graph, rows, schema), transform(graph, examples(test, schema), schema)
    scores, seconds = [], []
    for seed in range(seeds):
        model, took = train(graph, columns, config["trainer"], seed)
        scores.append(area(unseen[data.LABEL], model.predict(unseen, batch_size=BATCH, verbose=0)))
        seconds.append(took)
    return {
        "trained_on": f"{first}-{first + 2}",
        "scored_on": first + 3,
        "rows": training.num_rows,
        "auc": scores,
        "boosting_auc": boosting(training, test),
        "promised_auc": PROMISED.get(first),
        "parameters": model.count_params(),
        "analyze_seconds": analyzed,
        "fit_seconds": seconds,
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--windows", default="1,9", help="first months of the windows, such as 1,9")
    parser.add_argument("--held-out", action="store_true", help="train as Evergreen does, on fewer rows")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    config = yaml.safe_load((EXAMPLE / "evergreen.yaml").read_text(encoding="utf-8"))
    results = []
    for first in map(int, options.windows.split(",")):
        result = measure(first, options.seeds, options.held_out, config)
        results.append(result)
        if not options.json:
            known = [f"{score:.4f}" for score in result["auc"]]
            boosted = "-" if result["boosting_auc"] is None else f"{result['boosting_auc']:.4f}"
            promised = "-" if result["promised_auc"] is None else f"{result['promised_auc']:.2f}"
            print(
                f"months {result['trained_on']:5} on month {result['scored_on']:2}: AUC {' '.join(known)}, mean "
                f"{np.mean(result['auc']):.4f}; promised {promised}, boosting {boosted}; {result['rows']:,} rows, "
                f"{result['parameters']:,} parameters, fit {np.mean(result['fit_seconds']):.1f} s",
                flush=True,
            )
    if options.json:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
