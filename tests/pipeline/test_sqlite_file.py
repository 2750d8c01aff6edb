"""A metadata store that cannot be used: one clear message in each case, and not a byte of it changed."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from evergreen.components.errors import EvergreenError
from evergreen.pipeline import connection, sqlite_file
from evergreen.pipeline.migration import move
from evergreen.pipeline.store import Store


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A store with one run."""
    path = tmp_path / "metadata.db"
    Store(connection.parse("sqlite", path), "p").begin_run("r", {})
    return path


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _noise(path: Path) -> None:
    path.write_bytes(os.urandom(5000))


def _cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:9000])


def _newer(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("UPDATE MLMDEnv SET schema_version = 99")
    database.close()


def _of_something_else(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE addresses (name TEXT)")
    database.close()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_empty, "empty"),
        (_noise, "damaged"),
        (_cut_off, "damaged"),
        (_newer, "newer ML Metadata"),
        (_of_something_else, "something else"),
    ],
)
def test_each_trouble_has_its_words_and_the_file_stays(good, harm, words):
    harm(good)
    before = good.read_bytes()
    with pytest.raises(EvergreenError) as raised:
        Store(connection.parse("sqlite", good), "p").runs()
    assert words in raised.value.reason and str(good) in raised.value.reason
    assert "Nothing was written" in raised.value.next_step
    assert good.read_bytes() == before


def test_a_locked_file_is_waited_for_and_then_reported(good, monkeypatch):
    monkeypatch.setattr(sqlite_file.examine, "__defaults__", (False, 0.2))
    with sqlite3.connect(good, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(EvergreenError, match="held it locked"):
            Store(connection.parse("sqlite", good), "p").runs()
        other.execute("ROLLBACK")
    other.close()
    assert [run.id for run in Store(connection.parse("sqlite", good), "p").runs()] == ["r"]


KILLED = """
import os, signal, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA cache_size = 1")
database.execute("BEGIN")
database.execute("CREATE TABLE half (written TEXT)")
database.executemany("INSERT INTO half VALUES (?)", [("x" * 1000,)] * 1000)
os.kill(os.getpid(), signal.SIGKILL)
"""


def _runs(path: Path) -> list[str]:
    return [run.id for run in Store(connection.parse("sqlite", path), "p").runs()]


def _runs_to_move(path: Path) -> list[str]:
    move.check_source(connection.parse("sqlite", path))
    with move._read_only(str(path)) as file:
        return [name for (name,) in file.execute("SELECT name FROM Context")]


@pytest.mark.parametrize("read", [_runs, _runs_to_move])
def test_a_transaction_whose_process_was_killed_is_taken_back(good, read):
    before = good.read_bytes()
    subprocess.run([sys.executable, "-S", "-c", KILLED, str(good)], check=False)
    assert good.with_name("metadata.db-journal").stat().st_size > 0
    assert good.read_bytes() != before
    assert read(good) == ["r"]
    assert good.read_bytes() == before


def test_a_missing_file_and_a_good_one_are_no_trouble(good, tmp_path):
    assert sqlite_file.examine(good, thorough=True) is None
    assert sqlite_file.examine(tmp_path / "no.db") is None


def test_a_path_with_a_question_mark_is_that_path(tmp_path):
    path = tmp_path / "what?mode=rw#100%.db"
    path.write_bytes(b"")
    trouble = sqlite_file.examine(path)
    assert trouble is not None and "empty" in trouble.reason
