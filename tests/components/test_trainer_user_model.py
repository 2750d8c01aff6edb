"""What a user's build_model may return, and what it is told otherwise."""

import pytest
import tf_keras
import trainer_world
from tf_keras import layers

from evergreen.components.errors import ConfigError
from evergreen.components.trainer import strategy as strategies
from evergreen.components.trainer import user_model
from evergreen.components.trainer.transform_graph import TransformGraph

pytestmark = pytest.mark.tensorflow

SPEC = "tiny_model:build_model"


@pytest.fixture(scope="module")
def graph(build_once):
    return TransformGraph(str(build_once("trainer_world", trainer_world.build) / "transform_graph"))


def model_of(*names, width=1, dtype=None):
    inputs = {name: tf_keras.Input((1,), name=name, dtype=dtype) for name in names}
    parts = list(inputs.values())
    x = layers.Concatenate()(parts) if len(parts) > 1 else parts[0]
    return compiled(tf_keras.Model(inputs, layers.Dense(width)(x)))


def compiled(model):
    model.compile("sgd", "mse")
    return model


def build(graph, returned):
    return user_model.build(lambda transform_output, hyperparameters: returned, SPEC, graph, {})


def test_a_compiled_model_passes(graph):
    model = build(graph, model_of("size", "count"))
    features = user_model.features_of(model, graph, "late", SPEC)
    assert features == ("count", "size")
    assert user_model.trace_core(model, features, graph, SPEC).function is not None


def test_the_function_gets_a_transform_output_and_its_own_copy_of_the_hyperparameters(graph):
    given = {"units": 3}

    def build_model(transform_output, hyperparameters):
        assert transform_output.vocabulary_size_by_name("colour") == 6
        hyperparameters["units"] = 0
        return model_of("size")

    user_model.build(build_model, SPEC, graph, given)
    assert given == {"units": 3}


def test_the_seed_decides_the_weights_and_names_start_anew(graph):
    made = []
    for seed in (1, 1, 2):
        strategies.seed_everything(seed)
        made.append(model_of("size", "count"))
    first, again, other = (model.get_weights()[0].tolist() for model in made)
    assert first == again != other
    assert len({model.weights[0].name for model in made}) == 1


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "received builtins.NoneType; build_model"),
        (lambda: 3, "received builtins.function"),
        (tf_keras.Sequential([layers.Dense(1)]), "Sequential without optimizer and loss"),
    ],
)
def test_anything_else_is_named(graph, returned, message):
    with pytest.raises(ConfigError) as error:
        build(graph, returned)
    assert message in error.value.reason and SPEC in error.value.headline


def test_a_keras_3_model_is_told_to_import_tf_keras(graph):
    import keras

    with pytest.raises(ConfigError, match="Import tf_keras in place of keras"):
        build(graph, keras.Sequential([keras.layers.Dense(1)]))


def test_an_exception_names_its_line(graph, tmp_path):
    from evergreen.components import user_code

    project = trainer_world.write_project(tmp_path, raising_model="def f(t, h):\n    return h['units']\n")
    function = user_code.load("raising_model:f", project)
    with pytest.raises(ConfigError, match=r"KeyError: 'units' \(.*raising_model\.py, line 2\)"):
        user_model.build(function, "raising_model:f", graph, {})


def test_a_layer_that_refuses_its_input_is_quoted_without_the_input(graph):
    def build_model(transform_output, hyperparameters):
        inputs = [tf_keras.Input((1,)), tf_keras.Input((1,), dtype="int64")]
        return layers.Concatenate()(inputs)

    with pytest.raises(ConfigError, match=r"TypeError: .*have types .*that don't all match") as error:
        user_model.build(build_model, SPEC, graph, {})
    assert len(error.value.reason) < 200


def test_an_input_that_is_no_feature_lists_the_features(graph):
    with pytest.raises(ConfigError, match=r"input 'weight'(.|\n)*it gives cheat, colour, count, name, shop, size"):
        user_model.features_of(model_of("size", "weight"), graph, "late", SPEC)


@pytest.mark.parametrize("leak", ["cheat", "late"])
def test_an_input_computed_from_the_label_is_refused(graph, leak):
    with pytest.raises(ConfigError, match=f"reads '{leak}', which is computed from the label 'late'"):
        user_model.features_of(model_of("size", leak), graph, "late", SPEC)


def test_a_label_that_is_not_given_is_named(graph):
    with pytest.raises(ConfigError, match="does not give the label 'delay'"):
        user_model.features_of(model_of("size"), graph, "delay", SPEC)


class Several(tf_keras.Model):
    def call(self, inputs):
        return {"a": inputs["size"], "b": inputs["size"]}


class Raising(tf_keras.Model):
    def call(self, inputs):
        return inputs["size"] * (1 / 0)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: model_of("size", width=2), r"an output of the shape \[None, 2\]"),
        (lambda: compiled(Several()), "a dict of outputs"),
        (lambda: compiled(Raising()), "ZeroDivisionError: division by zero"),
    ],
)
def test_an_output_of_another_shape_is_refused_before_training(graph, model, message):
    made = model()
    features = user_model.features_of(made, graph, "late", SPEC)
    with pytest.raises(ConfigError, match=message):
        user_model.trace_core(made, features, graph, SPEC)
