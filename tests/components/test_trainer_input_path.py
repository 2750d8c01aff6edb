"""The rows that reach the model: all of them, transformed, shuffled anew each epoch, from memory or from the files."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
import trainer_world

from evergreen.components.errors import ConfigError, DataRejected
from evergreen.components.trainer import input_path
from evergreen.components.trainer.request import training_parts, validation_parts
from evergreen.components.trainer.transform_graph import Materialized, TransformGraph, _check_dense

pytestmark = pytest.mark.tensorflow

NAMES = ["colour", "shop", "size", "size_missing", "count", "name"]


@pytest.fixture(scope="module")
def graph(world):
    return TransformGraph(str(world / "transform_graph"))


@pytest.fixture(scope="module")
def window(world):
    return trainer_world.request(world, world).examples


def open_training(window, graph, budget=None):
    return input_path.open_rows(training_parts(window, 3), graph, NAMES, "late", budget)


def counted(window):
    """Returns the training parts with how many rows were written, as Examples of ours say."""
    parts = training_parts(window, 3)
    return [dataclasses.replace(part, rows=trainer_world.ROWS[part.split]) for part in parts]


def rows_of(batches):
    """Returns every row as a tuple, in order."""
    found = []
    for features, label in batches:
        columns = [features[name].numpy().ravel() for name in NAMES] + [label.numpy().ravel()]
        found.extend(zip(*columns, strict=True))
    return found


def expected_rows(world, parts):
    """Transforms the rows by tft itself, one batch for each part."""
    layer = TransformGraph(str(world / "transform_graph")).output.transform_features_layer()
    spec = TransformGraph(str(world / "transform_graph")).raw_spec
    found = []
    for part in parts:
        made = trainer_world.rows(part.span, part.split, trainer_world.ROWS[part.split])
        raw = tf.io.parse_example([trainer_world.example(row) for row in made[0::2] + made[1::2]], spec)
        found.extend(rows_of([((features := layer(raw)), features["late"])]))
    return found


@pytest.mark.parametrize("budget", [None, 0], ids=["cached", "streamed"])
def test_evaluation_reads_every_row_once_in_order(world, graph, window, budget):
    rows = input_path.open_rows(validation_parts(window), graph, NAMES, "late", budget)
    batches, count = rows.evaluation(50)
    assert rows.rows == 120
    assert count == len(list(batches)) == 3
    assert rows_of(batches) == expected_rows(world, validation_parts(window))
    assert (rows.cached_bytes > 0) == (rows.columns is not None) == (budget is None)


@pytest.mark.parametrize("budget", [None, 0], ids=["cached", "streamed"])
def test_rows_are_counted_by_span_and_split(graph, window, budget):
    rows = open_training(window, graph, budget)
    assert rows.rows == 720
    assert rows.rows_by_part == {
        (1, "train"): 200,
        (1, "exam"): 60,
        (2, "train"): 200,
        (2, "exam"): 60,
        (3, "train"): 200,
    }


@pytest.mark.parametrize("budget", [None, 0], ids=["cached", "streamed"])
def test_an_epoch_holds_each_row_once_in_another_order(world, graph, window, budget):
    rows = open_training(window, graph, budget)
    batches = rows.training(72, seed=5).take(20)
    found = rows_of(batches)
    first, second = found[:720], found[720:]
    expected = expected_rows(world, training_parts(window, 3))
    assert Counter(first) == Counter(second) == Counter(expected)
    assert first != second
    assert first != expected


@pytest.mark.parametrize("budget", [None, 0], ids=["cached", "streamed"])
def test_the_same_seed_gives_the_same_order(graph, window, budget):
    rows = open_training(window, graph, budget)
    first, again, other = (rows_of(rows.training(72, seed).take(10)) for seed in (5, 5, 6))
    assert first == again
    assert first != other


@pytest.mark.parametrize("start", [0, 3])
def test_a_training_that_takes_few_rows_gets_the_same_batches_and_keeps_no_others(graph, window, monkeypatch, start):
    monkeypatch.setattr(input_path, "READ_BATCH", 50)  # many reads, and a transform of what several of them give
    everything = open_training(window, graph)
    few = input_path.open_rows(counted(window), graph, NAMES, "late", draw=input_path.Draw(6 * 32, 5))
    wanted = everything.training(32, 5, start).take(6 - start)
    assert rows_of(few.training(32, 5, start).take(6 - start)) == rows_of(wanted)
    assert (few.rows, few.rows_by_part) == (everything.rows, everything.rows_by_part)
    assert {len(column) for column in few.columns.values()} == {6 * 32}
    assert few.cached_bytes < everything.cached_bytes / 3


def test_a_training_of_many_epochs_keeps_all_rows(graph, window):
    many = input_path.open_rows(counted(window), graph, NAMES, "late", draw=input_path.Draw(720, 5))
    assert many.cached_bytes == open_training(window, graph).cached_bytes
    assert rows_of(many.evaluation()[0]) == rows_of(open_training(window, graph).evaluation()[0])


def test_rows_that_are_gone_are_missed_though_few_are_taken(graph, window):
    short = [dataclasses.replace(part, rows=part.rows + 1) for part in counted(window)]
    with pytest.raises(DataRejected, match="rows of the window cannot be read"):
        input_path.open_rows(short, graph, NAMES, "late", draw=input_path.Draw(32, 5))


@pytest.mark.parametrize("budget", [None, 0], ids=["cached", "streamed"])
def test_materialized_rows_are_the_same(materialized, graph, window, budget):
    parts = training_parts(trainer_world.materialized_window(materialized), 3)
    rows = input_path.open_rows(parts, Materialized(graph), NAMES, "late", budget)
    raw = open_training(window, graph, budget)
    assert rows.rows_by_part == raw.rows_by_part
    assert Counter(rows_of(rows.evaluation()[0])) == Counter(rows_of(raw.evaluation()[0]))
    assert rows.evaluation()[0].element_spec == raw.evaluation()[0].element_spec


def test_a_batch_may_be_larger_than_the_data(graph, window):
    rows = input_path.open_rows(validation_parts(window), graph, NAMES, "late")
    batch = rows_of(rows.training(240, 0).take(1))
    assert sorted(Counter(batch).values()) == sorted(2 * n for n in Counter(rows_of(rows.evaluation()[0])).values())


def test_cached_rows_train_exactly_as_the_budget_allows(graph, window):
    size = open_training(window, graph).cached_bytes
    strings = 720 * 60  # contents of the strings, generously
    assert open_training(window, graph, size + strings).columns is not None
    assert open_training(window, graph, size // 2).columns is None


def test_no_files_are_no_rows(graph):
    assert input_path.open_rows([], graph, NAMES, "late").rows == 0


def test_only_the_raw_features_that_are_needed_are_parsed(graph):
    assert set(graph.parsing_spec(["colour"])) == {"colour"}
    assert set(graph.parsing_spec(["size", "late"])) == {"size", "late"}
    assert graph.needs["cheat"] == {"late"}


def test_rows_that_are_not_finite_are_found():
    columns = {
        "fine": np.ones((3, 1), np.float32),
        "bad": np.array([[1.0], [np.nan], [np.inf]]),
        "text": np.array([[b"x"]] * 3, object),
    }
    assert input_path.non_finite(columns) == {"bad": 2}


def test_a_sparse_output_is_refused_with_a_way_out():
    sparse = tf.sparse.from_dense([[1.0]])
    with pytest.raises(ConfigError, match=r"gives size as a SparseTensor(.|\n)*tf\.sparse\.to_dense"):
        _check_dense({"colour": tf.constant([1]), "size": sparse})


def test_the_budget_is_a_part_of_the_memory():
    assert 2**26 < input_path.memory_budget() < 2**42
