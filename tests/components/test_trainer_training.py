"""A whole training: the report, the seed, the strategies, early stopping, and what NaN gets."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import trainer_world
from tensorflow.core.util import event_pb2
from trainer_world import weights

from evergreen.components import model_layout, progress
from evergreen.components.errors import ConfigError, DataRejected, ModelRejected
from evergreen.components.trainer import child, input_path, step_functions, training

pytestmark = pytest.mark.tensorflow


def events(folder):
    """Reads TensorBoard's scalars: name to (step, value)."""
    found = {}
    (file,) = folder.glob("events*")
    for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
        event = event_pb2.Event.FromString(record)
        for value in event.summary.value:
            assert value.metadata.plugin_data.plugin_name == "scalars"
            found.setdefault(value.tag, []).append((event.step, float(tf.make_ndarray(value.tensor))))
    return found


def train(world, out, settings=None, **changes):
    request = trainer_world.request(world, out, settings, **changes)
    return training.run(request), request


def test_a_training_is_reported(world, tmp_path):
    heard = []
    progress.set_listener(lambda fraction, text: heard.append((fraction, text)))
    try:
        report, _ = train(world, tmp_path)
    finally:
        progress.set_listener(None)
    assert json.loads((tmp_path / "run" / "report.json").read_text()) == report
    assert report["rows"] == {"train": 720, "validation": 120}
    assert report["rows_by_span"]["2"] == {"train": 200, "exam": 60, "validation": 40}
    assert report["rows_by_span"]["3"] == {"train": 200, "validation": 40}
    assert report["steps"] == report["best_step"] == report["curve"][-1]["step"] == 20
    assert report["epochs"] == round(20 * 64 / 720, 2)
    assert report["features"] == ["colour", "count", "shop", "size", "size_missing"]
    assert report["parameters"] == (7 * 3 + 4 * 3) + (9 * 8 + 8) + 9
    assert report["bytes"] == {
        "weights": 4 * report["parameters"],
        "reads": 4 * (9 * 8 + 8 + 9),
        "gradients": 4 * (9 * 8 + 8 + 9),
        "example": 3 * 8 + 3 * 4,
        "tables": [
            {"rows": 7, "row_bytes": 3 * 4 + 8, "per_example": 1},
            {"rows": 4, "row_bytes": 3 * 4 + 8, "per_example": 1},
        ],
    }
    assert report["examples_per_second"] > 0 and report["step_ms"]["p50"] <= report["step_ms"]["p90"]
    assert set(report["seconds"]) == {"load", "build", "warm_start", "input", "fit", "export"}
    assert {"loss", "auc", "val_loss", "val_auc"} <= set(report["final"])
    assert report["curve"][-1]["loss"] < report["curve"][0]["loss"]
    assert report["versions"]["tensorflow"]
    assert heard[-1] == (1.0, "trained 20 steps") and any("step" in text for _, text in heard)
    for run, prefix in (("train", ""), ("validation", "val_")):
        written = events(tmp_path / "run" / "logs" / run)
        points = [point for point in report["curve"] if f"{prefix}loss" in point]
        assert [step for step, _ in written["loss"]] == [point["step"] for point in points]
        np.testing.assert_allclose([value for _, value in written["loss"]], [p[f"{prefix}loss"] for p in points])
        assert set(written) == {"loss", "auc"}


def test_the_same_inputs_twice_give_the_same_bits(world, tmp_path):
    _, first = train(world, tmp_path / "1", {"steps": 60})
    _, second = train(world, tmp_path / "2", {"steps": 60})
    child.train(third := trainer_world.request(world, tmp_path / "3", {"steps": 60}))
    one = weights(first)
    for again in (weights(second), weights(third)):
        assert list(one) == list(again)
        assert all(np.array_equal(one[name], again[name]) for name in one)


def test_streamed_rows_train_too_and_to_the_same_bits(world, tmp_path):
    report, first = train(world, tmp_path / "1", cache_bytes=0)
    _, second = train(world, tmp_path / "2", cache_bytes=0)
    assert report["cached_bytes"] == 0 and report["rows"] == {"train": 720, "validation": 120}
    assert all(np.array_equal(value, weights(second)[name]) for name, value in weights(first).items())


@pytest.mark.parametrize("changes", [{}, {"cache_bytes": 0}], ids=["in memory", "streamed"])
def test_the_steps_are_traced_once_and_before_there_are_rows(world, tmp_path, monkeypatch, changes):
    made, trace_ahead = [], step_functions.trace_ahead
    monkeypatch.setattr(step_functions, "trace_ahead", lambda *given: made.append(trace_ahead(*given)) or made[0])
    report, _ = train(world, tmp_path, **changes)
    (functions,) = made
    assert functions.train.experimental_get_tracing_count() == 1
    assert functions.test.experimental_get_tracing_count() == 1
    assert 0 < functions.traced_s <= report["trace_s"]


def test_mirrored_in_a_child_process_equals_single(world, tmp_path, build_once):
    mirrored = build_once("trainer_mirrored", lambda out: trainer_world.train_mirrored(world, out))
    report = json.loads((mirrored / "run" / "report.json").read_text())
    assert report["devices"] == ["CPU:0", "CPU:1"] and report["replicas"] == 2
    _, single = train(world, tmp_path, trainer_world.SAME_SUMS)
    one, two = weights(single), weights(trainer_world.request(world, mirrored))
    assert list(one) == list(two)
    for name in one:
        np.testing.assert_allclose(one[name], two[name], atol=1e-6, err_msg=name)


def test_early_stopping_restores_the_best_weights(world, tmp_path):
    settings = {
        "steps": 400,
        "early_stopping": {"metric": "val_loss", "patience": 2, "every": 7},
        "hyperparameters": {"learning_rate": 0.3},
    }
    report, request = train(world, tmp_path, settings)
    values = {point["step"]: point["val_loss"] for point in report["curve"]}
    best = min(values, key=values.get)
    assert report["stopped_early"] and report["steps"] == best + 2 * 7 < 400
    assert report["best_step"] == best
    _, short = train(world, tmp_path / "short", {**settings, "steps": best, "early_stopping": None})
    assert all(np.array_equal(value, weights(short)[name]) for name, value in weights(request).items())


def test_early_stopping_follows_a_growing_metric_upwards(world, tmp_path):
    settings = {"steps": 40, "early_stopping": {"metric": "val_auc", "patience": 9, "every": 10}}
    report, _ = train(world, tmp_path, settings)
    values = {point["step"]: point["val_auc"] for point in report["curve"]}
    assert report["best_step"] == max(values, key=values.get)
    assert not report["stopped_early"]


def test_an_unknown_metric_lists_those_that_are_measured(world, tmp_path):
    with pytest.raises(ConfigError, match="measured: val_loss, val_auc"):
        train(world, tmp_path, {"early_stopping": {"metric": "val_acc", "every": 1}})


def test_early_stopping_without_validation_rows_is_refused(world, tmp_path):
    window = trainer_world.request(world, tmp_path).examples
    bare = tuple(type(one)(one.uri, one.span, one.version, ("train", "exam")) for one in window)
    with pytest.raises(ConfigError, match="no validation rows"):
        train(world, tmp_path, {"early_stopping": {"every": 5}}, examples=bare)
    report, _ = train(world, tmp_path, examples=bare)
    assert "val_loss" not in report["final"]


def test_materialized_rows_are_enough(world, materialized, tmp_path):
    rows = trainer_world.materialized_window(materialized)
    report, request = train(world, tmp_path, examples=(), transformed_examples=rows)
    assert report["rows"] == {"train": 720, "validation": 120}
    assert report["curve"][-1]["loss"] < report["curve"][0]["loss"]
    served = tf.saved_model.load(model_layout.serving_dir(request.model_dir)).signatures["serving_default"]
    raw = tf.constant([trainer_world.example({"colour": "red", "size": 9.0})])
    assert served(examples=raw)["predictions"].shape == (1, 1)


def test_no_rows_to_train_on_is_said(world, tmp_path):
    window = trainer_world.request(world, tmp_path).examples
    bare = tuple(type(one)(one.uri, one.span, one.version, ("validation",)) for one in window)
    with pytest.raises(DataRejected, match="no rows to train on"):
        train(world, tmp_path, examples=bare)


def test_a_damaged_file_is_said_in_a_line(world, tmp_path):
    shutil.copytree(world / "spans" / "1", tmp_path / "1")
    (file, *_) = sorted((tmp_path / "1" / "Split-train").iterdir())
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] + bytes(8) + whole[len(whole) // 2 + 8 :])
    window = trainer_world.request(world, tmp_path).examples
    window = (type(window[0])(str(tmp_path / "1"), 1, 1, window[0].splits), *window[1:])
    with pytest.raises(DataRejected, match="cannot be read\nDataLossError: ") as error:
        train(world, tmp_path, examples=window)
    assert len(error.value.reason) < 300


@pytest.mark.parametrize("cache_bytes", [None, 0], ids=["cached", "streamed"])
def test_rows_that_are_gone_are_missed(world, tmp_path, cache_bytes):
    window = trainer_world.request(world, tmp_path).examples
    written = input_path.count_rows(window[0].files("train"))
    whole = dataclasses.replace(window[0], rows={"train": written})
    train(world, tmp_path, examples=(whole, *window[1:]), cache_bytes=cache_bytes)
    short = dataclasses.replace(window[0], rows={"train": written + 1})
    with pytest.raises(DataRejected, match=f"span 1 has {written:,} rows of its split train, and {written + 1:,} were"):
        train(world, tmp_path, examples=(short, *window[1:]), cache_bytes=cache_bytes)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("tf.math.log(x - 1e6)", "the loss is nan by step 1;"),
        ("x * 1e30", "the loss is (nan|inf) by step 1;"),
    ],
    ids=["at once", "overflow"],
)
def test_a_loss_that_is_not_finite_is_rejected_early(world, tmp_path, model, message):
    project = trainer_world.write_project(
        tmp_path / "project",
        nan_model=f"""
            import tensorflow as tf
            import tf_keras

            def build_model(transform_output, hyperparameters):
                size = tf_keras.Input((1,), name="size")
                x = tf_keras.layers.Dense(1)(size)
                model = tf_keras.Model({{"size": size}}, tf_keras.layers.Lambda(lambda x: {model})(x))
                model.compile("sgd", "mse")
                return model
        """,
    )
    with pytest.raises(ModelRejected, match=message) as error:
        train(world, tmp_path, {"model": "nan_model:build_model", "steps": 500}, project_dir=str(project))
    assert error.value.headline == "training gave NaN" and error.value.exit_status == 4
    assert "the learning rate is 0.01" in error.value.reason
    assert not Path(tmp_path, "model", "Format-Serving").exists()


def test_a_learning_rate_that_blows_up_is_rejected_with_the_last_finite_loss(world, tmp_path):
    settings = {"steps": 2000, "hyperparameters": {"optimizer": "sgd", "learning_rate": 1e30, "dropout": 0}}
    with pytest.raises(ModelRejected, match=r"learning rate is 1e\+30.*\n.*clipnorm") as error:
        train(world, tmp_path, settings)
    assert "by step" in error.value.reason
    assert int(error.value.reason.split("by step ")[1].split(";")[0]) < 400


def test_rows_that_are_not_finite_are_named(world, tmp_path):
    made = [{**row, "size": float("inf")} for row in trainer_world.rows(4, "train", 50)]
    trainer_world.write_rows(tmp_path / "4" / "Split-train", made)
    window = trainer_world.request(world, tmp_path).examples
    window += (type(window[0])(str(tmp_path / "4"), 4, 1, ("train",)),)
    with pytest.raises(ModelRejected, match=r"NaN or infinity in size \(50 rows\)"):
        train(world, tmp_path, examples=window)


def test_a_model_that_cannot_be_trained_is_said_in_a_line(world, tmp_path):
    project = trainer_world.write_project(
        tmp_path / "project",
        hopeless_model="""
            import tensorflow as tf
            import tf_keras
            from tf_keras import layers

            def small(transform_output, hyperparameters):
                colour = tf_keras.Input((1,), name="colour", dtype=tf.int64)
                x = layers.Flatten()(layers.Embedding(2, 3, name="colour_embedding")(colour))
                model = tf_keras.Model({"colour": colour}, layers.Dense(1)(x))
                model.compile("sgd", "mse")
                return model

            def stuck(transform_output, hyperparameters):
                size = tf_keras.Input((1,), name="size")
                model = tf_keras.Model({"size": size}, layers.Lambda(tf.stop_gradient)(layers.Dense(1)(size)))
                model.compile("sgd", "mse")
                return model
        """,
    )
    with pytest.raises(ConfigError, match=r"indices\[.* is not in \[0, 2\).*colour_embedding"):
        train(world, tmp_path, {"model": "hopeless_model:small"}, project_dir=str(project))
    with pytest.raises(ConfigError, match="ValueError: No gradients provided for any variable"):
        train(world, tmp_path, {"model": "hopeless_model:stuck"}, project_dir=str(project))


@pytest.mark.parametrize("optimizer", ["tf_keras.optimizers.legacy.SGD(schedule)", "tf_keras.optimizers.SGD(schedule)"])
def test_a_models_own_train_step_and_any_optimizer_are_used(world, tmp_path, optimizer):
    project = trainer_world.write_project(
        tmp_path / "project",
        own_model=f"""
            import tensorflow as tf
            import tf_keras

            class Own(tf_keras.Model):
                def train_step(self, data):
                    self.weights[-1].assign_add([1.0])
                    return {{"loss": tf.where(self.weights[-1][0] > 5.5, float("nan"), 1.0)}}

            def build_model(transform_output, hyperparameters):
                size = tf_keras.Input((1,), name="size")
                model = Own({{"size": size}}, tf_keras.layers.Dense(1)(size))
                schedule = tf_keras.optimizers.schedules.ExponentialDecay(0.25, 100, 0.5)
                model.compile({optimizer}, "mse")
                return model
        """,
    )
    settings = {"model": "own_model:build_model", "steps": 5}
    _, request = train(world, tmp_path, settings, project_dir=str(project))
    assert weights(request)["dense/bias"].tolist() == [5.0]
    with pytest.raises(ModelRejected, match=r"the loss is nan by step \d;.* the learning rate is 0.25"):
        train(world, tmp_path, {**settings, "steps": 9}, project_dir=str(project))


def test_the_users_code_may_branch_on_tensors(world, tmp_path):
    project = trainer_world.write_project(
        tmp_path / "project",
        branching_model="""
            import tensorflow as tf
            import tf_keras

            class Positive(tf_keras.layers.Layer):
                def call(self, inputs):
                    if tf.reduce_sum(inputs) < 0.0:
                        inputs = -inputs
                    return inputs

            class Own(tf_keras.Model):
                def train_step(self, data):
                    if self.weights[-1][0] < 2.5:
                        self.weights[-1].assign_add([1.0])
                    return {"loss": tf.reduce_mean(self(data[0]))}

                def test_step(self, data):
                    loss = 0.0
                    for row in data[1]:
                        loss += tf.reduce_sum(tf.cast(row, tf.float32))
                    return {"loss": loss}

            def build_model(transform_output, hyperparameters):
                size = tf_keras.Input((1,), name="size")
                model = Own({"size": size}, tf_keras.layers.Dense(1)(Positive()(size)))
                model.compile("sgd", "mse")
                return model
        """,
    )
    _, request = train(world, tmp_path, {"model": "branching_model:build_model", "steps": 5}, project_dir=str(project))
    assert weights(request)["dense/bias"].tolist() == [3.0]


def test_averaged_weights_are_what_the_model_ends_with(world, tmp_path):
    text = trainer_world.MODEL.replace(
        '"adam"))', '"adam"))\n    optimizer.use_ema, optimizer.ema_momentum = True, 0.5'
    )
    project = trainer_world.write_project(tmp_path / "project", averaged_model=text)
    settings = {**trainer_world.SAME_SUMS, "steps": 1}
    _, averaged = train(
        world, tmp_path / "1", {**settings, "model": "averaged_model:build_model"}, project_dir=str(project)
    )
    _, plain = train(world, tmp_path / "2", settings)
    expected = weights(plain)["dense_1/bias"] / 2  # the mean of the bias after the step and of where it starts, 0
    np.testing.assert_allclose(weights(averaged)["dense_1/bias"], expected, rtol=1e-5)


def test_what_a_killed_attempt_left_is_cleared(world, tmp_path):
    left = tmp_path / "model" / "Format-Serving" / "half"
    left.mkdir(parents=True)
    train(world, tmp_path)
    assert not left.exists()


def test_a_layer_of_the_users_own_may_branch_on_tensors(world, tmp_path):
    project = trainer_world.write_project(
        tmp_path / "project",
        branching_model="""
            import tensorflow as tf
            import tf_keras

            class Gate(tf_keras.layers.Layer):
                def call(self, x):
                    if tf.reduce_mean(x) > 0.0:
                        return x * 2.0
                    return x

            class Net(tf_keras.Model):
                def __init__(self):
                    super().__init__()
                    self.gate, self.out = Gate(), tf_keras.layers.Dense(1, "sigmoid")

                def call(self, inputs):
                    return self.out(self.gate(tf.concat([inputs["size"], inputs["count"]], axis=1)))

            def build_model(transform_output, hyperparameters):
                model = Net()
                model.compile("sgd", "binary_crossentropy")
                return model
        """,
    )
    report, request = train(world, tmp_path, {"model": "branching_model:build_model"}, project_dir=str(project))
    assert math.isfinite(report["final"]["loss"])
    assert "late" not in report["features"] and "cheat" not in report["features"]
    assert model_layout.is_saved_model(model_layout.serving_dir(request.model_dir))
