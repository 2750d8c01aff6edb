"""A stock module runs unchanged: what it is given, what it must leave behind."""

import json
import shutil

import pytest
import tensorflow as tf
import trainer_world

from evergreen.components import model_layout
from evergreen.components.errors import ConfigError
from evergreen.components.trainer import training
from evergreen.components.trainer.request import BaseModel

pytestmark = pytest.mark.tensorflow

# Written as in TFX's own examples (penguin_utils_keras.py); it saves with tf_keras.
STOCK = """
import tensorflow as tf
import tensorflow_transform as tft
import tf_keras as keras
from tfx_bsl.public import tfxio

_FEATURES = ["size", "count"]
_LABEL = "late"


def _input_fn(file_pattern, data_accessor, tf_transform_output, batch_size=20):
    return data_accessor.tf_dataset_factory(
        file_pattern,
        tfxio.TensorFlowDatasetOptions(batch_size=batch_size, label_key=_LABEL),
        tf_transform_output.transformed_metadata.schema,
    ).repeat()


def _get_serve_tf_examples_fn(model, tf_transform_output):
    model.tft_layer = tf_transform_output.transform_features_layer()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serve_tf_examples_fn(serialized_tf_examples):
        feature_spec = tf_transform_output.raw_feature_spec()
        feature_spec.pop(_LABEL)
        parsed = tf.io.parse_example(serialized_tf_examples, feature_spec)
        transformed = model.tft_layer(parsed)
        return {"predictions": model({name: transformed[name] for name in _FEATURES})}

    return serve_tf_examples_fn


def _build_keras_model():
    inputs = {name: keras.layers.Input(shape=(1,), name=name) for name in _FEATURES}
    x = keras.layers.Dense(4, activation="relu")(keras.layers.concatenate(list(inputs.values())))
    model = keras.Model(inputs=inputs, outputs=keras.layers.Dense(1, activation="sigmoid")(x))
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="binary_crossentropy")
    return model


def run_fn(fn_args):
    tf_transform_output = tft.TFTransformOutput(fn_args.transform_output)
    train_dataset = _input_fn(fn_args.train_files, fn_args.data_accessor, tf_transform_output)
    eval_dataset = _input_fn(fn_args.eval_files, fn_args.data_accessor, tf_transform_output)
    model = _build_keras_model()
    model.fit(
        train_dataset,
        steps_per_epoch=fn_args.train_steps,
        validation_data=eval_dataset,
        validation_steps=fn_args.eval_steps,
        verbose=0,
    )
    signatures = {"serving_default": _get_serve_tf_examples_fn(model, tf_transform_output)}
    model.save(fn_args.serving_model_dir, save_format="tf", signatures=signatures)
"""

LOOKING = """
import json
import tensorflow as tf

def run_fn(fn_args):
    seen = {name: getattr(fn_args, name) for name in (
        "train_files", "eval_files", "train_steps", "eval_steps", "schema_path", "schema_file", "transform_graph_path",
        "transform_output", "serving_model_dir", "eval_model_dir", "model_run_dir", "base_model", "hyperparameters")}
    seen["strategy"] = isinstance(fn_args.custom_config["strategy"], tf.distribute.Strategy)
    seen["custom"] = {name: fn_args.custom_config[name] for name in ("hyperparameters", "label", "seed")}
    with open(fn_args.model_run_dir + "/seen.json", "w") as file:
        json.dump(seen, file)
    tf.saved_model.save(tf.Module(), fn_args.serving_model_dir)

def saves_nothing(fn_args):
    pass

def raises(fn_args):
    raise ValueError("no such column: speed")
"""


def request(world, materialized, out, module, function="run_fn", settings=None, **changes):
    project = trainer_world.write_project(out / "project", stock_module=module)
    window = trainer_world.materialized_window(materialized)
    values = {"model": None, "run_fn": f"stock_module:{function}", "steps": 10, **(settings or {})}
    return trainer_world.request(
        world, out, values, project_dir=str(project), **{"transformed_examples": window, **changes}
    )


def test_a_module_as_in_tfxs_examples_runs_unchanged(world, materialized, tmp_path):
    asked = request(world, materialized, tmp_path, STOCK)
    report = training.run(asked)
    assert report["rows"] == {"train": 720, "validation": 120} and report["warm_start"]["warm"] is False
    assert json.loads((tmp_path / "run" / "report.json").read_text()) == report
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["Format-Serving"]
    served = tf.saved_model.load(model_layout.serving_dir(asked.model_dir)).signatures["serving_default"]
    rows = [{"colour": "red", "size": 9.0}, {"colour": "red", "shop": "west", "count": 3}]
    answers = served(examples=tf.constant([trainer_world.example(row) for row in rows]))["predictions"]
    assert answers.shape == (2, 1)


def test_fn_args_are_the_stock_trainers(world, materialized, tmp_path):
    settings = {"hyperparameters": {"units": 3}, "seed": 4, "global_batch_size": 50}
    champion = BaseModel(str(tmp_path / "champion"))
    training.run(request(world, materialized, tmp_path, LOOKING, settings=settings, base_model=champion))
    seen = json.loads((tmp_path / "run" / "seen.json").read_text())
    parts = [file.replace(str(materialized), "").rsplit("/", 1)[0] for file in seen["train_files"]]
    assert parts == ["/0/Split-train", "/0/Split-exam", "/1/Split-train", "/1/Split-exam", "/2/Split-train"]
    assert len(seen["eval_files"]) == 3 and all("Split-validation" in file for file in seen["eval_files"])
    assert (seen["train_steps"], seen["eval_steps"]) == (10, 2)
    assert seen["schema_path"] == seen["schema_file"] == str(world / "schema" / "schema.pbtxt")
    assert seen["transform_output"] == seen["transform_graph_path"] == str(world / "transform_graph")
    assert seen["serving_model_dir"] == str(tmp_path / "model" / "Format-Serving")
    assert seen["model_run_dir"] == str(tmp_path / "run")
    assert seen["base_model"] == str(tmp_path / "champion" / "Format-Serving")
    assert seen["hyperparameters"] is None and seen["strategy"] is True
    assert seen["custom"] == {"hyperparameters": {"units": 3}, "label": "late", "seed": 4}


def test_a_module_that_saves_nothing_is_told(world, materialized, tmp_path):
    with pytest.raises(ConfigError, match="stock_module:saves_nothing saved no model"):
        training.run(request(world, materialized, tmp_path, LOOKING, "saves_nothing"))


def test_a_module_that_raises_names_its_line(world, materialized, tmp_path):
    with pytest.raises(ConfigError, match=r"ValueError: no such column: speed \(.*stock_module\.py, line \d+\)"):
        training.run(request(world, materialized, tmp_path, LOOKING, "raises"))


def test_materialized_rows_of_another_span_are_not_taken(world, materialized, tmp_path):
    """Paired wrongly, the exam rows of the newest span would be trained on."""
    shutil.copytree(materialized, tmp_path / "other")
    trainer_world.write_rows(tmp_path / "other" / "2" / "Split-exam", [{"colour": "red", "late": 1}])
    with pytest.raises(RuntimeError, match="span 3 has 60 rows in exam, what Transform made of it 61"):
        training.run(request(world, tmp_path / "other", tmp_path, LOOKING))
