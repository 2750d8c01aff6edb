"""What a training step costs when the rows come by the stock input path, by ours, and by none at all.

The same model and the same rows, made up here: 5 strings, 6 integers and 9 floats, the last with gaps, transformed by
one graph. The stock path is that of TFX's examples: materialized transformed rows, `data_accessor.tf_dataset_factory`
(tfxio), `Model.fit`. Ours reads raw rows, applies the transform graph once and trains in `components/trainer/loop.py`;
its seconds hold the transforming, the stock ones do not. The floor is our loop on one batch that is there already.

The first step of the stock `fit` is where most of its time goes on TensorFlow 2.16: `components/trainer/autograph.py`
says why.

    python benchmarks/input_path.py [--rows 81000] [--steps 200] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
import tf_keras
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform.tf_metadata import dataset_metadata, metadata_io
from tfx_bsl.coders import example_coder
from tfx_bsl.public import tfxio

from evergreen.components.trainer import autograph, input_path, loop
from evergreen.components.trainer import strategy as strategies
from evergreen.components.trainer.request import Part
from evergreen.components.trainer.settings import TrainerSettings
from evergreen.components.trainer.transform_graph import TransformGraph

STRINGS = {"carrier": 16, "origin": 3, "dest": 105, "tail": 3500, "route": 220}
INTEGERS = {"month": 13, "weekday": 8, "hour": 24, "minute": 60, "seats": 450, "engines": 5}
FLOATS = tuple(f"number_{i}" for i in range(9))
LABEL = "late"
BATCH = 512


def preprocessing_fn(inputs: dict[str, Any]) -> dict[str, Any]:
    """Looks strings up, scales numbers, marks gaps."""
    outputs = {name: inputs[name] for name in (*INTEGERS, LABEL)}
    for name in STRINGS:
        outputs[name] = tft.compute_and_apply_vocabulary(inputs[name], num_oov_buckets=1, vocab_filename=name)
    for name in FLOATS:
        sparse = inputs[name]
        column = tf.SparseTensor(sparse.indices, sparse.values, [sparse.dense_shape[0], 1])
        dense = tf.sparse.to_dense(column, default_value=float("nan"))
        missing = tf.math.is_nan(dense)
        outputs[f"{name}_missing"] = tf.cast(missing, tf.float32)
        outputs[name] = tft.scale_to_z_score(tf.where(missing, tf.zeros_like(dense), dense))
    return outputs


def build_model(graph: TransformGraph) -> tf_keras.Model:
    """Embeddings and a small multi-layer perceptron, as in the flights example."""
    sizes = {name: graph.output.vocabulary_size_by_name(name) + 1 for name in STRINGS} | INTEGERS
    inputs, parts = {}, []
    for name, spec in graph.specs.items():
        if name == LABEL:
            continue
        inputs[name] = tf_keras.Input((1,), name=name, dtype=spec.dtype)
        part = inputs[name]
        if name in sizes:
            part = tf_keras.layers.Flatten()(tf_keras.layers.Embedding(sizes[name], 16)(part))
        parts.append(part)
    hidden = tf_keras.layers.Concatenate()(parts)
    for units in (256, 128):
        hidden = tf_keras.layers.Dense(units, activation="relu")(hidden)
    model = tf_keras.Model(inputs, tf_keras.layers.Dense(1, activation="sigmoid")(hidden))
    model.compile("adam", "binary_crossentropy", metrics=[tf_keras.metrics.AUC(name="auc")])
    return model


def write_rows(folder: Path, rows: int) -> schema_pb2.Schema:
    """Makes the raw rows up and writes them as tf.Examples."""
    import pyarrow as pa

    random = np.random.default_rng(0)
    columns: dict[str, list[Any]] = {}
    schema = schema_pb2.Schema()
    for name, size in (*STRINGS.items(), *INTEGERS.items(), (LABEL, 2)):
        values = random.integers(size, size=rows)
        columns[name] = [[f"{name}{value}"] if name in STRINGS else [int(value)] for value in values]
        feature = schema.feature.add(name=name, type=schema_pb2.BYTES if name in STRINGS else schema_pb2.INT)
        feature.presence.min_fraction = 1
        feature.shape.dim.add(size=1)
    for name in FLOATS:
        gaps = random.random(rows) < 0.02
        columns[name] = [None if gap else [value] for gap, value in zip(gaps, random.normal(50, 20, rows), strict=True)]
        schema.feature.add(name=name, type=schema_pb2.FLOAT)
    types = dict.fromkeys(STRINGS, pa.binary()) | dict.fromkeys((*INTEGERS, LABEL), pa.int64())
    batch = pa.record_batch(
        [pa.array(values, pa.list_(types.get(name, pa.float32()))) for name, values in columns.items()],
        names=list(columns),
    )
    with tf.io.TFRecordWriter(str(folder / "raw.gz"), "GZIP") as writer:
        for example in example_coder.RecordBatchToExamplesEncoder(schema).encode(batch):
            writer.write(example)
    return schema


def write_graph(folder: Path, schema: schema_pb2.Schema) -> TransformGraph:
    """Analyzes the rows, in Beam's in-process runner."""
    import apache_beam as beam
    from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

    source = tfxio.TFExampleRecord([str(folder / "raw.gz")], schema=schema, telemetry_descriptors=["benchmark"])
    with beam.Pipeline(runner=FnApiRunner()) as pipeline, tft_beam.Context(temp_dir=str(folder / "temp")):
        data = (pipeline | source.BeamSource(), source.TensorAdapterConfig())
        _ = data | tft_beam.AnalyzeDataset(preprocessing_fn) | tft_beam.WriteTransformFn(str(folder / "graph"))
    metadata_io.write_metadata(dataset_metadata.DatasetMetadata(schema), str(folder / "graph" / "metadata"))
    return TransformGraph(str(folder / "graph"))


def materialize(folder: Path, rows: input_path.Dataset) -> None:
    """Writes the transformed rows as TFX's Transform materializes them."""
    assert rows.columns is not None
    names = list(rows.columns)
    with tf.io.TFRecordWriter(str(folder / "transformed.gz"), "GZIP") as writer:
        for values in zip(*(rows.columns[name][:, 0] for name in names), strict=True):
            example = tf.train.Example()
            for name, value in zip(names, values, strict=True):
                feature = example.features.feature[name]
                kind = feature.int64_list if isinstance(value, np.integer) else feature.float_list
                kind.value.append(value)
            writer.write(example.SerializeToString())


class StepTimer(tf_keras.callbacks.Callback):
    """Takes the milliseconds of each step of a `fit`."""

    def __init__(self) -> None:
        super().__init__()
        self.ms: list[float] = []
        self._last = 0.0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Starts the clock at the first step; from then on a step ends where the next one's input begins."""
        self._last = self._last or time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Takes a step's time."""
        now = time.perf_counter()
        self.ms.append((now - self._last) * 1e3)
        self._last = now


def stock(folder: Path, graph: TransformGraph, steps: int) -> dict[str, float]:
    """Trains as a stock module does."""
    source = tfxio.TFExampleRecord(
        [str(folder / "transformed.gz")],
        schema=graph.output.transformed_metadata.schema,
        telemetry_descriptors=["benchmark"],
    )
    dataset = source.TensorFlowDataset(tfxio.TensorFlowDatasetOptions(batch_size=BATCH, label_key=LABEL)).repeat()
    timer = StepTimer()
    started = time.perf_counter()
    build_model(graph).fit(dataset, steps_per_epoch=steps, verbose=0, callbacks=[timer])
    seconds = time.perf_counter() - started
    return {"step_ms": float(np.median(timer.ms[1:])), "first_step_s": timer.ms[0] / 1e3, "seconds": seconds}


def ours(graph: TransformGraph, rows: Callable[[], input_path.Dataset], steps: int) -> dict[str, float]:
    """Trains as our Trainer does; the seconds include reading and transforming the rows."""
    autograph.leave_tf_keras_alone()
    started = time.perf_counter()
    settings = TrainerSettings(model="benchmark:build_model", steps=steps, global_batch_size=BATCH)
    nothing = input_path.open_rows([], graph, [], LABEL)
    outcome = loop.fit(build_model(graph), tf.distribute.get_strategy(), rows(), nothing, settings)
    seconds = time.perf_counter() - started
    return {"step_ms": float(np.median(outcome.step_ms)), "first_step_s": outcome.trace_s, "seconds": seconds}


def one_batch(rows: input_path.Dataset) -> input_path.Dataset:
    """Returns a dataset that gives its first batch for ever, at no cost."""
    assert rows.columns is not None
    features = {name: tf.constant(column[:BATCH]) for name, column in rows.columns.items()}
    label = features.pop(LABEL)
    batch = tf.data.Dataset.from_tensors((features, label)).repeat()
    return input_path.Dataset(rows.rows, {}, 0, lambda batch_size, seed: batch)


def main() -> None:
    """Runs the three and prints them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=81_000)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        graph = write_graph(folder, write_rows(folder, arguments.rows))
        parts = [Part(1, "train", (str(folder / "raw.gz"),))]
        features = [feature for feature in graph.specs if feature != LABEL]

        def rows() -> input_path.Dataset:
            return input_path.open_rows(parts, graph, features, LABEL)

        loaded = rows()
        materialize(folder, loaded)
        strategies.seed_everything(0)
        result = {
            "stock": stock(folder, graph, arguments.steps),
            "ours": ours(graph, rows, arguments.steps),
            "floor": ours(graph, lambda: one_batch(loaded), arguments.steps),
        }
    step = {side: values["step_ms"] for side, values in result.items()}
    ratios = {
        "step_stock_to_ours": step["stock"] / step["ours"],
        "step_ours_to_floor": step["ours"] / step["floor"],
        "seconds_stock_to_ours": result["stock"]["seconds"] / result["ours"]["seconds"],
    }
    if arguments.json:
        settings = {"rows": arguments.rows, "steps": arguments.steps, "batch": BATCH, "tensorflow": tf.__version__}
        json.dump({**settings, **result, **ratios}, sys.stdout, indent=1)
        print()
        return
    print(f"{'':8}{'ms a step':>12}{'first step, s':>16}{'all, s':>10}")
    for side, values in result.items():
        print(f"{side:8}{values['step_ms']:12.1f}{values['first_step_s']:16.1f}{values['seconds']:10.1f}")
    print(
        f"A step by the stock path takes {ratios['step_stock_to_ours']:.1f} times ours, and ours "
        f"{ratios['step_ours_to_floor']:.2f} times one whose input is there already; "
        f"{arguments.steps} steps with all that comes before take {ratios['seconds_stock_to_ours']:.1f} times ours."
    )


if __name__ == "__main__":
    main()
