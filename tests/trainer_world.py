"""A small world to train in: a project of two functions, three spans of rows, their transform graph.

Rows have a colour (string, always there), a shop (string, may be absent), a size (float, may be absent), a count (int,
may be absent) and the label `late`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

COLOURS = ("red", "green", "blue", "white", "black", "pink")
SHOPS = ("north", "south", "west")
SPANS = (1, 2, 3)
ROWS = {"train": 200, "validation": 40, "exam": 60}
LABEL = "late"

FEATURES = """
import tensorflow as tf
import tensorflow_transform as tft


def dense(x, default):
    return tf.sparse.to_dense(tf.SparseTensor(x.indices, x.values, [x.dense_shape[0], 1]), default)


def preprocessing_fn(inputs):
    size = dense(inputs["size"], float("nan"))
    missing = tf.math.is_nan(size)
    return {
        "colour": tft.compute_and_apply_vocabulary(inputs["colour"], num_oov_buckets=1, vocab_filename="colour"),
        "shop": tft.compute_and_apply_vocabulary(dense(inputs["shop"], ""), num_oov_buckets=1, vocab_filename="shop"),
        "size": tft.scale_to_z_score(tf.where(missing, tf.zeros_like(size), size)),
        "size_missing": tf.cast(missing, tf.float32),
        "count": tf.cast(dense(inputs["count"], -1), tf.float32),
        "name": tf.strings.upper(inputs["colour"]),
        "cheat": tf.cast(inputs["late"], tf.float32) * 2.0,
        "late": inputs["late"],
    }
"""

MODEL = """
import tensorflow as tf
import tf_keras
from tf_keras import layers


def build_model(transform_output, hyperparameters):
    inputs, parts = {}, []
    for name in ("colour", "shop"):
        inputs[name] = tf_keras.Input((1,), name=name, dtype=tf.int64)
        rows = transform_output.vocabulary_size_by_name(name) + 1
        parts.append(layers.Flatten()(layers.Embedding(rows, 3, name=f"{name}_embedding")(inputs[name])))
    for name in ("size", "size_missing", "count"):
        inputs[name] = tf_keras.Input((1,), name=name)
        parts.append(inputs[name])
    x = layers.Dense(hyperparameters.get("units", 8), activation="relu")(layers.Concatenate()(parts))
    x = layers.Dropout(hyperparameters.get("dropout", 0.1))(x)
    model = tf_keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))
    optimizer = tf_keras.optimizers.get(hyperparameters.get("optimizer", "adam"))
    optimizer.learning_rate = hyperparameters.get("learning_rate", 0.01)
    if hyperparameters.get("schedule"):
        optimizer = tf_keras.optimizers.Adam(tf_keras.optimizers.schedules.CosineDecay(0.05, 20))
    model.compile(optimizer, "binary_crossentropy", metrics=[tf_keras.metrics.AUC(name="auc")])
    return model
"""

SCHEMA = """
feature { name: "colour" type: BYTES presence { min_fraction: 1 } shape { dim { size: 1 } } }
feature { name: "shop" type: BYTES value_count { min: 1 max: 1 } }
feature { name: "size" type: FLOAT value_count { min: 1 max: 1 } }
feature { name: "count" type: INT value_count { min: 1 max: 1 } }
feature { name: "late" type: INT presence { min_fraction: 1 } shape { dim { size: 1 } } }
"""


def build(folder: Path) -> None:
    """Writes the project, the spans and the transform graph into a folder (about ten seconds)."""
    write_project(folder / "project")
    (folder / "schema").mkdir()
    (folder / "schema" / "schema.pbtxt").write_text(SCHEMA)
    for span in SPANS:
        for split, count in ROWS.items():
            write_rows(folder / "spans" / str(span) / f"Split-{split}", rows(span, split, count), compressed=span != 2)
    transform(folder, folder / "transform_graph")


def write_project(folder: Path, **modules: str) -> Path:
    """Writes a project's modules; by default the world's own two."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (modules or {"tiny_features": FEATURES, "tiny_model": MODEL}).items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
    return folder


def rows(span: int, split: str, count: int) -> list[dict[str, Any]]:
    """Makes rows; the label follows the colour and the size, with noise. `row` numbers them in no feature."""
    import numpy as np

    random = np.random.default_rng([span, len(split)])
    made = []
    for _ in range(count):
        colour, size = int(random.integers(len(COLOURS))), float(np.float32(random.normal(10, 3)))
        logit = (colour - 2.5) + (size - 10) / 3 + random.normal()
        row: dict[str, Any] = {"colour": COLOURS[colour], "late": int(logit > 0)}
        if random.random() > 0.2:
            row["shop"] = SHOPS[int(random.integers(len(SHOPS)))]
        if random.random() > 0.2:
            row["size"] = size
        if random.random() > 0.2:
            row["count"] = int(random.integers(9))
        made.append(row)
    return made


def example(row: dict[str, Any]) -> bytes:
    """Serializes a row as a tf.Example."""
    import tensorflow as tf

    record = tf.train.Example()
    for name, value in row.items():
        feature = record.features.feature[name]
        if isinstance(value, str):
            feature.bytes_list.value.append(value.encode())
        elif isinstance(value, int):
            feature.int64_list.value.append(value)
        else:
            feature.float_list.value.append(value)
    return bytes(record.SerializeToString())


def write_rows(folder: Path, made: Sequence[dict[str, Any]], compressed: bool = True) -> None:
    """Writes rows as TFX's ExampleGen does, in two files."""
    import tensorflow as tf

    folder.mkdir(parents=True, exist_ok=True)
    for shard in (0, 1):
        path = folder / f"data_tfrecord-{shard:05d}-of-00002{'.gz' if compressed else ''}"
        with tf.io.TFRecordWriter(str(path), "GZIP" if compressed else "") as writer:
            for row in made[shard::2]:
                writer.write(example(row))


def transform(world: Path, target: Path, materialized: Path | None = None) -> None:
    """Analyzes the training rows and writes the transform graph as TFX's Transform does."""
    import apache_beam as beam
    import tensorflow_transform as tft
    import tensorflow_transform.beam as tft_beam
    from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2
    from tensorflow_transform.tf_metadata import dataset_metadata, metadata_io
    from tfx_bsl.public import tfxio

    from evergreen.components import user_code

    schema = text_format.Parse(SCHEMA, schema_pb2.Schema())
    function = user_code.load("tiny_features:preprocessing_fn", world / "project")
    patterns = [f"{world}/spans/{span}/Split-train/*" for span in SPANS]
    with beam.Pipeline(runner=FnApiRunner()) as pipeline, tft_beam.Context(temp_dir=str(world / "temp")):
        source = tfxio.TFExampleRecord(patterns, schema=schema, telemetry_descriptors=["test"])
        data = (pipeline | source.BeamSource(), source.TensorAdapterConfig())
        _ = data | tft_beam.AnalyzeDataset(function) | tft_beam.WriteTransformFn(str(target))
    metadata_io.write_metadata(
        dataset_metadata.DatasetMetadata(schema), str(target / tft.TFTransformOutput.RAW_METADATA_DIR)
    )


def materialize(world: Path, target: Path) -> None:
    """Writes the transformed rows of every span as TFX's Transform does: a numbered folder for each."""
    import tensorflow as tf

    from evergreen.components.trainer.transform_graph import TransformGraph

    graph = TransformGraph(str(world / "transform_graph"))
    for number, span in enumerate(SPANS):
        for split, count in ROWS.items():
            raw = tf.constant([example(row) for row in rows(span, split, count)])
            columns = {name: t.numpy()[:, 0] for name, t in graph.parse_and_apply(raw, graph.specs).items()}
            place = target / str(number) / f"Split-{split}"
            place.mkdir(parents=True)
            with tf.io.TFRecordWriter(str(place / "transformed_examples-00000.gz"), "GZIP") as writer:
                for position in range(count):
                    values = {name: column[position] for name, column in columns.items()}
                    writer.write(
                        example({n: v.decode() if isinstance(v, bytes) else v.item() for n, v in values.items()})
                    )


def materialized_window(folder: Path) -> tuple[Any, ...]:
    """Returns what `materialize` wrote as a request's window."""
    from evergreen.components.trainer.request import Examples

    return tuple(Examples(str(folder / str(number)), span, 1, tuple(ROWS)) for number, span in enumerate(SPANS))


def permuted(world: Path, target: Path) -> Path:
    """Copies the transform graph with the colours in the opposite order: row i is another token."""
    shutil.copytree(world / "transform_graph", target)
    vocabulary = target / "transform_fn" / "assets" / "colour"
    vocabulary.write_text("".join(f"{line}\n" for line in reversed(vocabulary.read_text().split())))
    return target


def request(world: Path, out: Path, settings: dict[str, Any] | None = None, **changes: Any) -> Any:
    """Asks for a training on the three spans; `changes` are fields of the request."""
    from evergreen.components.trainer.request import Examples, Request
    from evergreen.components.trainer.settings import TrainerSettings

    values = {"model": "tiny_model:build_model", "steps": 20, "global_batch_size": 64, **(settings or {})}
    window = tuple(Examples(str(world / "spans" / str(span)), span, 1, tuple(ROWS)) for span in SPANS)
    fields = {
        "settings": TrainerSettings.from_json(json.dumps(values)),
        "project_dir": str(world / "project"),
        "label": LABEL,
        "newest_span": SPANS[-1],
        "examples": window,
        "transform_graph": str(world / "transform_graph"),
        "schema": str(world / "schema" / "schema.pbtxt"),
        "model_dir": str(out / "model"),
        "run_dir": str(out / "run"),
        **changes,
    }
    return Request(**fields)


def train_champion(world: Path, out: Path) -> None:
    """Trains the model that several modules look at."""
    from evergreen.components.trainer import training

    hyperparameters = {"learning_rate": 0.05, "dropout": 0.0}
    training.run(request(world, out, {"steps": 60, "hyperparameters": hyperparameters}))


SAME_SUMS = {"hyperparameters": {"optimizer": "sgd", "learning_rate": 0.1, "dropout": 0.0}, "seed": 3}


def train_mirrored(world: Path, out: Path) -> None:
    """Trains over two devices, in a child process, a model whose sums do not depend on how they are split."""
    train_apart(world, out, strategy="mirrored", devices=2)


def train_apart(world: Path, out: Path, **settings: Any) -> Any:
    """Trains in a child process a model whose sums do not depend on how they are split; returns the request."""
    from evergreen.components.trainer import child

    asked = request(world, out, {**SAME_SUMS, **settings})
    child.train(asked)
    return asked


def weights(asked: Any) -> dict[str, Any]:
    """Returns the weights that a training left for the next one's warm start, by name."""
    import numpy as np

    from evergreen.components import model_layout

    with np.load(f"{model_layout.warm_start_dir(asked.model_dir)}/weights.npz") as file:
        return dict(file)


_PARENT = """
import sys
from evergreen.components import progress
from evergreen.components.trainer import child
from evergreen.components.trainer.request import Request
progress.set_listener(lambda fraction, text: print(text, flush=True))
child.train(Request.from_json(open(sys.argv[1]).read()))
"""


def start_parent(asked: Any, folder: Path) -> subprocess.Popen[str]:
    """Starts a process that trains in a child process, and prints its progress."""
    file = folder / "request.json"
    file.write_text(asked.to_json())
    command = [sys.executable, "-c", _PARENT, str(file)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
