"""The sides of training.py, each a process of its own: trains the flights model and prints what it took, as JSON.

stock     TFX's own Trainer with the `run_fn` of stock_trainer.py: `Model.fit` on transformed rows, read by tfxio
ours      our Trainer under `--strategy` on raw rows: reads and transforms them, trains, exports
memory    no Trainer and no input path: the model's `train_step` in one graph loop over batches that are in memory
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parent / "examples" / "flights"
sys.path += [str(HERE), str(EXAMPLE)]

import training_data  # noqa: E402

LABEL = training_data.LABEL
SPLITS = (training_data.TRAIN, training_data.VALIDATION)
_CALL = 50  # steps of a graph call of the side `memory`


def stock(options: argparse.Namespace) -> dict[str, Any]:
    """Runs the stock Trainer's executor."""
    import stock_trainer
    from tfx.components.trainer.executor import GenericExecutor
    from tfx.proto import trainer_pb2
    from tfx.types import standard_artifacts
    from tfx.utils import json_utils, proto_utils

    from evergreen.components.trainer import input_path

    def artifact(kind: Any, folder: Path) -> Any:
        made = kind()
        made.uri = str(folder)
        return made

    examples = artifact(standard_artifacts.Examples, training_data.transformed_dir(options.work))
    examples.split_names = json.dumps(SPLITS)
    examples.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    examples.set_string_custom_property("file_format", "tfrecords_gzip")
    validation = Path(examples.uri) / f"Split-{training_data.VALIDATION}"
    rows = input_path.count_rows(str(path) for path in validation.iterdir())
    graph = artifact(standard_artifacts.TransformGraph, training_data.graph_dir(options.work))
    schema = artifact(standard_artifacts.Schema, training_data.schema_dir(options.work))
    custom = {"batch": options.batch, "label": LABEL, "seed": 0, "hyperparameters": options.hyperparameters}
    run = artifact(standard_artifacts.ModelRun, options.out / "run")
    GenericExecutor(GenericExecutor.Context(tmp_dir=str(options.out / "tmp"), unique_id="1")).Do(
        {"examples": [examples], "transform_graph": [graph], "schema": [schema]},
        {"model": [artifact(standard_artifacts.Model, options.out / "model")], "model_run": [run]},
        {
            "run_fn": "stock_trainer.run_fn",
            "train_args": proto_utils.proto_to_json(
                trainer_pb2.TrainArgs(num_steps=options.steps, splits=[training_data.TRAIN])
            ),
            "eval_args": proto_utils.proto_to_json(
                trainer_pb2.EvalArgs(num_steps=-(-rows // options.batch), splits=[training_data.VALIDATION])
            ),
            "custom_config": json_utils.dumps(custom),
        },
    )
    report = json.loads((Path(run.uri) / stock_trainer.FIT_REPORT).read_text(encoding="utf-8"))
    return {
        "step_ms": report["step_ms"],
        "first_step_s": report["first_step_s"],
        "input_s": 0.0,
        "fit_s": report["fit_seconds"],
        "val_auc": report["val_auc"],
    }


def ours(options: argparse.Namespace) -> dict[str, Any]:
    """Runs our Trainer."""
    from evergreen.components.trainer import devices, training

    settings = {
        "strategy": options.strategy,
        "devices": options.devices,
        "global_batch_size": options.batch,
        "steps": options.steps,
        "hyperparameters": options.hyperparameters,
        "profile": options.profile,
        "threads": options.threads,
    }
    request = training_data.request(options.work, options.out, settings)
    devices.configure(request.settings)
    report = training.run(request)
    seconds = report["seconds"]
    return {
        "step_ms": report["step_ms"]["p50"],
        "first_step_s": report["trace_s"],
        "input_s": seconds["input"],
        "fit_s": seconds["fit"],
        "val_auc": report["final"]["val_auc"],
    }


def memory(options: argparse.Namespace) -> dict[str, Any]:
    """Trains on batches that are in memory before the clock starts."""
    import model as example
    import numpy as np
    import tensorflow as tf
    import tf_keras

    from evergreen.components.trainer import autograph, input_path
    from evergreen.components.trainer.request import Part
    from evergreen.components.trainer.transform_graph import TransformGraph

    autograph.leave_libraries_alone()
    graph = TransformGraph(str(training_data.graph_dir(options.work)))
    tf_keras.utils.set_random_seed(0)
    model = example.build_model(graph.output, options.hyperparameters)
    model.optimizer.build(model.trainable_variables)
    folder = training_data.raw_dir(options.work) / f"Split-{training_data.TRAIN}"
    parts = [Part(1, training_data.TRAIN, tuple(str(path) for path in folder.iterdir()))]
    columns = input_path.open_rows(parts, graph, sorted(set(graph.specs) - {LABEL}), LABEL).columns
    assert columns is not None
    count = len(columns[LABEL]) // options.batch
    order = np.random.default_rng(0).permutation(count * options.batch)
    features = {name: tf.constant(column[order].reshape(count, options.batch, 1)) for name, column in columns.items()}
    labels = features.pop(LABEL)

    @tf.function
    def train(first: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
        loss = tf.constant(0.0)
        for step in tf.range(first, first + steps):
            at = step % count
            loss = model.train_step(({name: batches[at] for name, batches in features.items()}, labels[at]))["loss"]
        return loss

    began = last = time.perf_counter()
    step_ms, done, first_step = [], 0, 0.0
    while done < options.steps:
        steps = min(_CALL, options.steps - done) if done else 1
        float(train(tf.constant(done), tf.constant(steps)))
        now = time.perf_counter()
        if done:
            step_ms += [(now - last) * 1e3 / steps]
        else:
            first_step = now - last
        last, done = now, done + steps
    step_p50 = float(np.median(step_ms))
    return {"step_ms": step_p50, "first_step_s": first_step, "input_s": 0.0, "fit_s": last - began}


def main() -> None:
    """The command line: one side, or the rows for all of them."""
    parser = argparse.ArgumentParser(description="One side of training.py.")
    parser.add_argument("side", choices=["prepare", "stock", "ours", "memory"])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--months", type=json.loads, default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--strategy", default="single")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--hyperparameters", type=json.loads, default={})
    parser.add_argument("--profile", type=json.loads, help="first and last step of a trace, such as [100, 119]")
    parser.add_argument("--threads", type=json.loads, default={}, help='such as {"inter_op": 2}')
    options = parser.parse_args()
    if options.side == "prepare":
        training_data.write(options.work, options.months)
        return
    import tensorflow as tf

    began = time.perf_counter()
    result = {"stock": stock, "ours": ours, "memory": memory}[options.side](options)
    print(json.dumps({**result, "total_s": time.perf_counter() - began, "tensorflow": tf.__version__}))


if __name__ == "__main__":
    main()
