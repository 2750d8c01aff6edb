"""What each TFLite variant of two convolutional models costs and loses, beside TFX's own TFLiteRewriter.

`digits` is a small network on scikit-learn's digits, 8 by 8 pixels; `conv` is one of more than a million multiply-adds
on the same images at 32 by 32. A third of the images, never trained on, measures. TFLiteRewriter makes what its options
can make of the same SavedModel: its `quantization_enable_full_integer` sets neither integer operators nor integer ends,
so that it gives `int8_float_io` at best. Published figures stand beside as ratios: float16 halves the bytes and int8
quarters them; post-training int8 costs MobileNet v1 .052, Inception v3 .008 and ResNet v2 101 .002 of their accuracy
(TensorFlow Lite's guide to post-training quantization).

    .venv/bin/python benchmarks/quantization.py [--model digits|conv|both] [--json]

Latencies are of this machine in this hour; read the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
import tf_keras
from sklearn.datasets import load_digits

from evergreen.components.quantizer import anatomy, lite_file, runtime, variants
from evergreen.components.quantizer.settings import VARIANTS
from evergreen.components.quantizer.worker import Worker

Images = tuple[np.ndarray, np.ndarray]
CALIBRATION = 300
SECONDS = 120.0


def images(size: int = 8) -> tuple[Images, Images]:
    """Returns training and test images, float32 [rows, size, size, 1] of 0 to 1, with their digits, int64 [rows]."""
    digits = load_digits()
    pixels = (digits.images[..., None] / 16).astype(np.float32)
    if size != 8:
        pixels = tf.image.resize(pixels, (size, size)).numpy()
    order = np.random.default_rng(0).permutation(len(pixels))
    split = len(order) * 2 // 3
    train, test = order[:split], order[split:]
    return (pixels[train], digits.target[train]), (pixels[test], digits.target[test])


def digits_model() -> tf_keras.Model:
    """A small network for 8 by 8 pixels."""
    return _model(8, [(16, 1), (32, 2)], dense=64)


def conv_model() -> tf_keras.Model:
    """A network of some four million multiply-adds for 32 by 32 pixels."""
    return _model(32, [(32, 1), (32, 2), (64, 2)], dense=64)


def _model(size: int, convolutions: list[tuple[int, int]], dense: int) -> tf_keras.Model:
    image = tf_keras.Input((size, size, 1), name="image")
    hidden = image
    for channels, stride in convolutions:
        hidden = tf_keras.layers.Conv2D(channels, 3, stride, "same", activation="relu")(hidden)
    hidden = tf_keras.layers.Dense(dense, activation="relu")(tf_keras.layers.Flatten()(hidden))
    return tf_keras.Model(image, tf_keras.layers.Dense(10, activation="softmax")(hidden))


def train(model: tf_keras.Model, rows: Images, epochs: int, folder: str) -> None:
    """Trains a model and writes it as a SavedModel with the signature that the Quantizer reads."""
    tf_keras.utils.set_random_seed(0)
    model.compile(tf_keras.optimizers.Adam(2e-3), tf_keras.losses.SparseCategoricalCrossentropy())
    model.fit(*rows, batch_size=64, epochs=epochs, verbose=0)
    shape = (None, *model.input_shape[1:])

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32, name="image")], autograph=False)
    def serving_default(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"predictions": model(image, training=False)}

    module = tf.Module()
    module.weights, module.serve = model.variables, serving_default
    tf.saved_model.save(module, folder, signatures={"serving_default": serving_default})


def ours(folder: str, rows: Images, test: Images) -> dict[str, dict[str, Any]]:
    """Makes and measures every variant of a SavedModel with Evergreen's Quantizer.

    Args:
      folder: of the SavedModel.
      rows: that calibrate; the first `CALIBRATION` of them.
      test: that measure.

    Returns:
      By variant, what `measured` gives and what the file is made of.
    """
    source = variants.Source(folder, None, {"image": rows[0][:CALIBRATION]}, {})
    found = {}
    with Worker(SECONDS) as worker:
        baseline = variants.make(worker, source, "float32")
        for name in VARIANTS:
            made = baseline if name == "float32" else variants.make(worker, source, name)
            found[name] = {**measured(made.content, test), **variants.describe(made, baseline, None)}
    return found


def rewritten(folder: str, rows: Images, test: Images) -> dict[str, dict[str, Any]]:
    """Makes and measures what TFX's TFLiteRewriter can make of the same SavedModel.

    Args:
      folder: of the SavedModel.
      rows: that calibrate; the first `CALIBRATION` of them.
      test: that measure.

    Returns:
      By option, what `measured` gives.
    """
    from tfx.components.trainer.rewriting import rewriter, tflite_rewriter

    calibration = rows[0][:CALIBRATION]

    def representative() -> Any:
        return ([image[None]] for image in calibration)

    optimized = {"quantization_optimizations": [tf.lite.Optimize.DEFAULT]}
    options: dict[str, dict[str, Any]] = {
        "float32": {},
        "float16": {**optimized, "quantization_supported_types": [tf.float16]},
        "dynamic_int8": optimized,
        "full_integer": {
            **optimized,
            "quantization_enable_full_integer": True,
            "representative_dataset": representative,
        },
    }
    found = {}
    for name, given in options.items():
        with tempfile.TemporaryDirectory() as target:
            maker = tflite_rewriter.TFLiteRewriter(name=name, signature_key="serving_default", **given)
            kinds = rewriter.ModelType
            maker.perform_rewrite(
                rewriter.ModelDescription(kinds.SAVED_MODEL, folder),
                rewriter.ModelDescription(kinds.TFLITE_MODEL, target),
            )
            content = Path(target, "tflite").read_bytes()
        found[name] = {**measured(content, test), "parts": {"weights": anatomy.constant_bytes(lite_file.read(content))}}
    return found


def measured(content: bytes, test: Images) -> dict[str, Any]:
    """Lets LiteRT answer the test images.

    Returns:
      `bytes`, `accuracy`, `latency_ms`, `first_answer_ms`, `arena_bytes`, `inputs` and `outputs` (their types) and
      `predictions` [rows, 10].
    """
    run = runtime.run(content, {"image": test[0]}, SECONDS)
    model = lite_file.read(content)
    (signature,) = model.signatureDefs
    subgraph = model.subgraphs[signature.subgraphIndex]
    return {
        "bytes": len(content),
        "accuracy": float(np.mean(run.predictions.argmax(axis=1) == test[1])),
        "predictions": run.predictions,
        "latency_ms": run.latency_ms,
        "first_answer_ms": run.first_answer_ms,
        "arena_bytes": run.arena_bytes,
        "inputs": lite_file.tensor_type(subgraph.tensors[signature.inputs[0].tensorIndex]),
        "outputs": lite_file.tensor_type(subgraph.tensors[signature.outputs[0].tensorIndex]),
    }


def show(title: str, found: dict[str, dict[str, Any]], baseline: dict[str, Any]) -> None:
    """Prints a table; ratios and differences are to our float32."""
    print(f"\n{title}")
    print(
        f"{'variant':<15}{'bytes':>9}{'ratio':>7}{'weights':>9}{'accuracy':>10}{'change':>9}{'largest Δ':>11}"
        f"{'1 row ms':>10}{'ratio':>7}{'64 rows ms':>12}{'ratio':>7}{'arena':>9}  in, out"
    )
    for name, row in found.items():
        one, batch = row["latency_ms"]["1x1"]["p50"], row["latency_ms"].get("64x1", {}).get("p50", float("nan"))
        base = baseline["latency_ms"]
        difference = np.abs(row["predictions"] - baseline["predictions"]).max()
        print(
            f"{name:<15}{row['bytes']:>9,}{row['bytes'] / baseline['bytes']:>7.2f}"
            f"{row['parts']['weights'] / baseline['parts']['weights']:>9.2f}{row['accuracy']:>10.4f}"
            f"{row['accuracy'] - baseline['accuracy']:>+9.4f}{difference:>11.1e}{one:>10.3f}"
            f"{one / base['1x1']['p50']:>7.2f}{batch:>12.3f}{batch / base['64x1']['p50']:>7.2f}"
            f"{row['arena_bytes']:>9,}  {row['inputs']}, {row['outputs']}"
        )


def main() -> None:
    """Trains, makes, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=["digits", "conv", "both"], default="both")
    parser.add_argument("--json", action="store_true", help="print what was measured as JSON")
    arguments = parser.parse_args()
    chosen = {"digits": (digits_model, 8, 30), "conv": (conv_model, 32, 8)}
    results: dict[str, Any] = {}
    for name, (build, size, epochs) in chosen.items():
        if arguments.model not in (name, "both"):
            continue
        rows, test = images(size)
        with tempfile.TemporaryDirectory() as folder:
            train(build(), rows, epochs, folder)
            results[name] = {"evergreen": ours(folder, rows, test), "tflite_rewriter": rewritten(folder, rows, test)}
    if arguments.json:
        print(json.dumps(results, default=lambda array: None, indent=1))
        return
    for name, result in results.items():
        baseline = result["evergreen"]["float32"]
        adds, weights = baseline["multiply_adds"], baseline["parts"]["weights"]
        print(f"\n== {name}: {adds:,} multiply-adds, {weights:,} bytes of weights")
        show("Evergreen's Quantizer", result["evergreen"], baseline)
        show("TFX's TFLiteRewriter", result["tflite_rewriter"], baseline)
        worst = [row for row in result["evergreen"]["int8"]["weights"] if row["snr_db"] is not None]
        for row in worst:
            print(f"  int8 {row['layer']:<40}{row['channels']:>4} scales{row['snr_db']:>7.1f} dB")


if __name__ == "__main__":
    main()
