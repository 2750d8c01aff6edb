"""The Trainer's `run_fn` of the stock pipeline: the example's model on TFX's own input path, as its guides write it."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft
import tf_keras
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx_bsl.public import tfxio

FIT_REPORT = "fit.json"  # in the Trainer's model_run


class StepTimer(tf_keras.callbacks.Callback):
    """Takes the milliseconds of each step of a `fit`."""

    def __init__(self) -> None:
        super().__init__()
        self.ms: list[float] = []
        self._last = 0.0
        # Else Keras turns the metrics of every step into NumPy arrays for it, which no module asks for.
        self._supports_tf_logs = True

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Starts the clock at the first step; from then on a step ends where the next one's input begins."""
        self._last = self._last or time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Takes a step's time."""
        now = time.perf_counter()
        self.ms.append((now - self._last) * 1e3)
        self._last = now


def _dataset(fn_args: FnArgs, patterns: list[str], transform: tft.TFTransformOutput) -> tf.data.Dataset:
    """Reads transformed examples, for ever: ({feature: [batch, 1]}, label [batch, 1])."""
    options = tfxio.TensorFlowDatasetOptions(
        batch_size=fn_args.custom_config["batch"], label_key=fn_args.custom_config["label"]
    )
    return fn_args.data_accessor.tf_dataset_factory(
        patterns, options, schema=transform.transformed_metadata.schema
    ).repeat()


def _serving(model: tf_keras.Model, transform: tft.TFTransformOutput, label: str) -> Any:
    """Returns the signature over serialized tf.Examples, [batch] strings to [batch, 1] predictions."""
    model.transform_layer = transform.transform_features_layer()  # the model must own its tables
    specification = transform.raw_feature_spec()
    specification.pop(label)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serve(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        features = model.transform_layer(tf.io.parse_example(examples, specification))
        return {"outputs": model(features)}

    return serve


def run_fn(fn_args: FnArgs) -> None:
    """Trains and saves the example's model.

    Args:
        fn_args: TFX's; `custom_config` holds batch, label, seed and hyperparameters.
    """
    import model as example  # examples/flights/model.py, on the path of the benchmark

    settings = fn_args.custom_config
    tf_keras.utils.set_random_seed(settings["seed"])
    transform = tft.TFTransformOutput(fn_args.transform_output)
    model = example.build_model(transform, settings["hyperparameters"])
    timer = StepTimer()
    started = time.perf_counter()
    history = model.fit(
        _dataset(fn_args, fn_args.train_files, transform),
        steps_per_epoch=fn_args.train_steps,
        validation_data=_dataset(fn_args, fn_args.eval_files, transform),
        validation_steps=fn_args.eval_steps,
        verbose=2,
        callbacks=[timer],
    )
    seconds = time.perf_counter() - started
    signature = _serving(model, transform, settings["label"])
    model.save(fn_args.serving_model_dir, save_format="tf", signatures={"serving_default": signature})
    report = Path(fn_args.model_run_dir) / FIT_REPORT
    report.parent.mkdir(parents=True, exist_ok=True)
    measured = {
        "fit_seconds": round(seconds, 2),
        "first_step_s": round(timer.ms[0] / 1e3, 2),
        "step_ms": round(statistics.median(timer.ms[1:]), 2),
        "val_auc": round(history.history["val_auc"][-1], 4),
    }
    report.write_text(json.dumps(measured), encoding="utf-8")
