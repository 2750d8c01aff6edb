"""Opening a store on MariaDB and PostgreSQL beside a process that creates its tables, and where waiting cannot help."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from evergreen.components.errors import EvergreenError
from evergreen.pipeline import connection, store_connection
from evergreen.pipeline.connection import PASSWORD_VARIABLE, Connection
from evergreen.pipeline.migration import servers

# Until a second process would have to have waited; and what is far from `CREATION_S`, on a busy machine too.
AWAY_S, AT_ONCE_S = 1.0, 20.0
READS = 300
# Counts a property of a context up, again and again.
WRITER = """
import sys
from ml_metadata.proto import metadata_store_pb2 as pb
from evergreen.pipeline import connection, store_connection
store = store_connection.open_store(connection.parse(sys.argv[1], ""))
kind = store.put_context_type(pb.ContextType(name="beating"), can_add_fields=True)
context = pb.Context(type_id=kind, name="beats")
(context.id,) = store.put_contexts([context])
print("writing", flush=True)
while True:
    context.custom_properties["beat"].int_value += 1
    store.put_contexts([context])
"""


@pytest.fixture
def place(database_server) -> Connection:
    return connection.parse(database_server.url, "")


@contextlib.contextmanager
def half_created(place: Connection, table: str) -> Iterator[None]:
    """Takes a table away from a store, and gives it back a moment later, as a creation does that gets there."""
    own = servers.connect(place)
    renamed = f"ALTER TABLE {table} RENAME TO {table}_away"
    back = f"ALTER TABLE {table}_away RENAME TO {table}"
    own._run(renamed)
    own.commit()

    def arrive() -> None:
        own._run(back)
        own.commit()
        own.close()

    timer = threading.Timer(AWAY_S, arrive)
    timer.start()
    try:
        yield
    finally:
        timer.join()


def test_a_store_that_is_being_created_is_waited_for(place):
    store_connection.open_store(place)
    # Without its version a store looks like one of an old release, without another table incomplete.
    for table in ("MLMDEnv", "Attribution"):
        began = time.monotonic()
        with half_created(place, table):
            store = store_connection.open_store(place)
        assert time.monotonic() - began >= AWAY_S
        assert store.get_contexts() == []


def test_what_no_waiting_mends_is_said_at_once(place, monkeypatch):
    store_connection.open_store(place)
    own = servers.connect(place)
    own._run("UPDATE MLMDEnv SET schema_version = schema_version + 1")
    own.commit()
    own.close()
    began = time.monotonic()
    with pytest.raises(EvergreenError, match="is greater than library version"):
        store_connection.open_store(place)
    with pytest.raises(EvergreenError, match="cannot be opened"):
        store_connection.open_store(dataclasses.replace(place, port=1))
    with pytest.raises(EvergreenError, match="cannot be opened"):
        store_connection.open_store(dataclasses.replace(place, user="somebody"))
    monkeypatch.setenv(PASSWORD_VARIABLE, "wrong")
    with pytest.raises(EvergreenError, match="cannot be opened"):
        store_connection.open_store(place)
    assert time.monotonic() - began < AT_ONCE_S


def test_reading_beside_a_writer_fails_for_nobody(place, capfd):
    from ml_metadata import ListOptions

    url = place.describe()
    reader = store_connection.open_store(place)
    writer = subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True)
    try:
        assert writer.stdout.readline() == "writing\n"
        for _ in range(READS):
            (found,) = reader.get_contexts(ListOptions(limit=32))
            assert found.name == "beats"
        assert writer.poll() is None
    finally:
        writer.kill()
        writer.communicate()
    assert "Record has changed" not in capfd.readouterr().err
