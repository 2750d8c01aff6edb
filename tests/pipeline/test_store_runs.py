"""The newest runs of a store, read without the others."""

import pytest
from web_world import lineage_store

from evergreen.pipeline import connection
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
