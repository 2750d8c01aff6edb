"""Warm starts: embeddings by token, other weights by name and shape, and cold now and then."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import trainer_world

from evergreen.components import model_layout
from evergreen.components.trainer import strategy as strategies
from evergreen.components.trainer import training, user_model, warm_start
from evergreen.components.trainer.request import BaseModel
from evergreen.components.trainer.settings import WarmStart
from evergreen.components.trainer.transform_graph import TransformGraph

pytestmark = pytest.mark.tensorflow

ROWS = [{"colour": colour, "size": 8.0} for colour in (*trainer_world.COLOURS, "unheard of")]


@pytest.fixture(scope="module")
def champion(world, build_once):
    folder = build_once("trainer_trained", lambda out: trainer_world.train_champion(world, out))
    return BaseModel(str(folder / "model"))


@pytest.fixture(scope="module")
def permuted(world, build_once):
    return str(build_once("trainer_permuted", lambda out: trainer_world.permuted(world, out / "graph")) / "graph")


def fresh(world, graph_uri, seed=7, **hyperparameters):
    """Builds a model that was never trained."""
    from evergreen.components import user_code

    graph = TransformGraph(graph_uri)
    strategies.seed_everything(seed)
    function = user_code.load("tiny_model:build_model", world / "project")
    model = user_model.build(function, "tiny_model:build_model", graph, hyperparameters)
    return model, graph


def predict(model, graph):
    names = ("colour", "shop", "size", "size_missing", "count")
    rows = tf.constant([trainer_world.example(row) for row in ROWS])
    return model(graph.parse_and_apply(rows, names), training=False).numpy()


def champions_answers(champion):
    served = tf.saved_model.load(model_layout.serving_dir(champion.uri)).signatures["serving_default"]
    return served(examples=tf.constant([trainer_world.example(row) for row in ROWS]))["predictions"].numpy()


def test_a_permuted_vocabulary_gives_the_same_predictions(world, champion, permuted):
    model, graph = fresh(world, permuted)
    assert graph.vocabulary("colour") == TransformGraph(str(world / "transform_graph")).vocabulary("colour")[::-1]
    expected = champions_answers(champion)
    assert np.abs(predict(model, graph) - expected).max() > 0.01
    result = warm_start.apply(model, graph, champion, WarmStart())
    np.testing.assert_allclose(predict(model, graph), expected, atol=1e-6)
    assert result.warm and result.warm_runs == 1 and result.reason == ""
    assert result.embeddings["colour"] == {"tokens": 6, "matched": 6, "fresh": 0, "gone": 0}
    assert result.matched == 4 and result.fresh == [] and result.changed == []


def test_a_table_is_not_taken_by_row(world, champion, permuted):
    """The test above could not fail if rows were matched by number and the answers did not depend on them."""
    model, graph = fresh(world, permuted)
    with np.load(f"{model_layout.warm_start_dir(champion.uri)}/weights.npz") as weights:
        for name, variable in warm_start.names(model).items():
            variable.assign(weights[name])
    assert np.abs(predict(model, graph) - champions_answers(champion)).max() > 0.01


def test_a_layer_of_another_shape_starts_fresh_and_is_reported(world, champion):
    model, graph = fresh(world, str(world / "transform_graph"), units=9)
    before = {name: variable.numpy() for name, variable in warm_start.names(model).items()}
    result = warm_start.apply(model, graph, champion, WarmStart())
    assert result.changed == ["dense/kernel", "dense/bias", "dense_1/kernel"]
    assert result.matched == 1 and set(result.embeddings) == {"colour", "shop"}
    after = {name: variable.numpy() for name, variable in warm_start.names(model).items()}
    assert all(np.array_equal(before[name], after[name]) for name in result.changed)
    assert not np.array_equal(before["colour_embedding/embeddings"], after["colour_embedding/embeddings"])


def test_rows_are_matched_by_token_and_extra_rows_by_place():
    old_tokens, new_tokens = np.array([b"a", b"b", b"c"]), np.array([b"c", b"x", b"a", b"y"])
    old = np.arange(5.0)[:, None] + 1  # two rows behind the tokens
    new = -np.arange(5.0)[:, None]  # one row behind them
    table, counts = warm_start.match_rows(new, new_tokens, old, old_tokens)
    assert table.ravel().tolist() == [3.0, -1.0, 1.0, -3.0, 4.0]
    assert counts == {"tokens": 4, "matched": 2, "fresh": 2, "gone": 1}


@pytest.mark.parametrize(("old", "new"), [([], [b"a"]), ([b"a"], []), ([], [])])
def test_empty_vocabularies_match_nothing(old, new):
    as_tokens = warm_start._tokens
    table, counts = warm_start.match_rows(np.ones((2, 1)), as_tokens(new), np.zeros((2, 1)), as_tokens(old))
    assert counts["matched"] == 0
    assert table.ravel().tolist() == [1.0] * len(new) + [0.0] * (2 - max(len(new), len(old))) + [1.0] * max(
        0, len(old) - len(new)
    )


@pytest.mark.parametrize(
    ("base", "settings", "reason"),
    [
        (None, WarmStart(), "there is no champion"),
        (BaseModel("/nowhere"), WarmStart(), "keeps no weights"),
        (BaseModel("/champion"), None, "trainer.warm_start is not set"),
        (BaseModel("?", 2), WarmStart(3), "every 3 runs one starts from scratch, and 2 in a row started warm"),
        (BaseModel("?", 0), WarmStart(1), "every 1 runs"),
        (BaseModel("?", 1), WarmStart(3), ""),
    ],
)
def test_when_a_training_starts_cold(world, champion, base, settings, reason):
    if base is not None and base.uri == "?":
        base = dataclasses.replace(base, uri=champion.uri)
    model, graph = fresh(world, str(world / "transform_graph"))
    result = warm_start.apply(model, graph, base, settings)
    assert reason in result.reason and bool(reason) != result.warm
    assert result.warm_runs == (0 if reason else 2)


def test_a_chain_of_trainings_starts_cold_every_third_time(world, champion):
    model, graph = fresh(world, str(world / "transform_graph"))
    base, started = None, []
    for _ in range(7):
        result = warm_start.apply(model, graph, base, WarmStart(3))
        started.append(result.warm)
        base = BaseModel(champion.uri, result.warm_runs)
    assert started == [False, True, True, False, True, True, False]


def test_a_warm_training_goes_on_where_the_champion_stopped(world, champion, tmp_path):
    settings = {"steps": 1, "warm_start": {}, "hyperparameters": {"dropout": 0.0}}
    report = training.run(trainer_world.request(world, tmp_path, settings, base_model=champion))
    before = json.loads(Path(champion.uri, "..", "run", "report.json").read_text())["final"]["val_loss"]
    assert before < 0.6
    assert abs(report["final"]["val_loss"] - before) < 0.02
    assert report["warm_start"]["warm"] and report["warm_start"]["embeddings"]["shop"]["fresh"] == 0
