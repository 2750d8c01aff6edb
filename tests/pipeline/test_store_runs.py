"""The newest runs of a store, read without the others."""

import json

import pytest
from web_world import lineage_store, make

from evergreen.pipeline import cli, connection
from evergreen.pipeline.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    path = tmp_path_factory.mktemp("store") / "metadata.db"
    lineage_store().Writer(path).write(12)
    return Store(connection.parse("sqlite", path), "many")


@pytest.mark.parametrize(
    ("count", "skip", "spans"),
    [
        (1, 0, [11]),
        (3, 0, [11, 10, 9]),
        (3, 4, [7, 6, 5]),
        (5, 10, [1, 0]),
        (5, 12, []),
        (100, 0, [*range(11, -1, -1)]),
    ],
)
def test_the_newest_come_first_however_many_other_contexts_lie_between(store, count, skip, spans):
    assert [run.span for run in store.newest_runs(count, skip)] == spans
    assert [run.id for run in store.newest_runs(count, skip)] == [run.id for run in store.runs()[::-1]][
        skip : skip + count
    ]


def test_another_pipeline_s_runs_are_passed_over(store, tmp_path):
    other = Store(store._connection, "other")
    other.begin_run("20300101T000000-1", {"span": 99})
    assert [run.id for run in other.newest_runs(5)] == ["20300101T000000-1"]
    assert store.newest_runs(1)[0].span == 11


def test_a_store_that_is_not_there_holds_none(tmp_path):
    store = Store(connection.parse("sqlite", tmp_path / "metadata.db"), "many")
    assert store.newest_runs(5) == []
    assert not (tmp_path / "metadata.db").exists()


def test_the_newest_runs_come_with_the_stages_that_reading_all_finds(store):
    everything = store.runs(stages=True)
    assert store.newest_runs(3, stages=True) == everything[:-4:-1]
    assert {stage.node for stage in everything[-1].stages} >= {"Trainer", "Evaluator"}


def test_the_command_lists_the_last_ones_and_says_that_there_are_more(tmp_path, capsys):
    file = str(make(tmp_path, runs=5))
    assert cli.main(["runs", "--last", "2", "-c", file]) == 0
    text = capsys.readouterr().out
    assert text.index("20200101T000004-1") < text.index("20200101T000003-1") and "20200101T000002-1" not in text
    assert "there are older ones" in text
    assert cli.main(["runs", "--last", "5", "--json", "-c", file]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 5
    assert cli.main(["runs", "--last", "5", "-c", file]) == 0
    assert "older" not in capsys.readouterr().out
    assert cli.main(["runs", "--last", "0", "-c", file]) == 2
