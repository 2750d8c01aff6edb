"""Moves a metadata store: ML Metadata creates the server's tables, then rows are copied and compared table by table.

Ids and times stay, which they would not through ML Metadata's API: manifests of published versions name them. The file
is only read, in one transaction; the server's side is one transaction too.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from evergreen.components.errors import ConfigError, EvergreenError
from evergreen.pipeline.connection import Connection
from evergreen.pipeline.migration import servers
from evergreen.pipeline.migration.rows import PREFILLED, TABLES, Checksum, Encoder, Row, not_empty
from evergreen.pipeline.store import Store
from evergreen.pipeline.store_connection import check_file

_BATCH_ROWS = 2000
_BATCH_BYTES = 1_000_000  # MySQL takes statements of 16 MB as it comes, and hexadecimal doubles them

Tell = Callable[[float, str], None]


@dataclass(frozen=True)
class Moved:
    """What was moved.

    Attributes:
      rows: how many of each table.
      doubles: how many integers of more than 32 bits became doubles.
    """

    rows: dict[str, int]
    doubles: int


def move(store: Store, source: Connection, target: Connection, tell: Tell) -> Moved:
    """Copies every row of a SQLite metadata store to a server and compares what arrived.

    Args:
      store: the store on the server, through which ML Metadata creates its tables.
      source: the SQLite file; nobody writes to it meanwhile.
      target: the server's database.
      tell: called with the share that is done, 0 to 1, and a few words.

    Returns:
      What was moved.

    Raises:
      EvergreenError: the target is not empty, cannot hold a row, or gave something else back. Nothing was changed but
        that ML Metadata's empty tables may stand in the target.
    """
    server = servers.connect(target)
    try:
        store.mlmd  # noqa: B018  creates the tables
        _check_empty(server, target)
        with _read_only(source.path) as file:
            return _Copy(file, server, tell).run()
    except server.failures as error:
        raise EvergreenError(
            f"{target.describe()} refused the copy", f"{_words(error)}", "Nothing was changed there or here."
        ) from error
    finally:
        with contextlib.suppress(*server.failures, OSError):
            server.close()


def check_source(source: Connection) -> None:
    """Refuses a store that cannot be moved; to be asked before its lock is taken, which a server's store would hold.

    Args:
      source: where the store is.

    Raises:
      ConfigError: it is no SQLite file, or does not exist.
      EvergreenError: it is damaged, locked or newer.
    """
    if source.kind != "sqlite":
        raise ConfigError(
            "the metadata store is on a server already",
            f"`metadata` is {source.describe()}; only a SQLite store can be moved",
            "Between servers of one kind use their own tools: mysqldump, pg_dump.",
        )
    if not Path(source.path).exists():
        raise ConfigError(
            "there is no metadata store to move",
            f"{source.path} does not exist; the first run makes it",
            "Put the server's URL under `metadata` and run.",
        )
    check_file(source)


def _check_empty(server: servers.Server, target: Connection) -> None:
    found = not_empty(servers.counts(server), server.own_types())
    if found:
        raise ConfigError(
            "the target is not empty",
            f"{target.describe()} holds {found}",
            "Name another database; or, if nobody needs what is in this one, drop and create it. Nothing was changed.",
        )


@contextlib.contextmanager
def _read_only(path: str) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)) as file:
        file.execute("BEGIN")  # one state of the file for all tables
        yield file


class _Copy:
    """One move.

    Args:
      file: the SQLite file.
      server: the target, connected and empty.
      tell: see `move`.
    """

    def __init__(self, file: sqlite3.Connection, server: servers.Server, tell: Tell):
        self._file = file
        self._server = server
        self._tell = tell
        self._sums = {table: Checksum() for table in TABLES}
        self._encoders: dict[str, Encoder] = {}
        self._columns = {table: server.columns(table, self._names(table)) for table in TABLES}
        # What is copied is read back: two passes.
        self._all = 2 * sum(self._count(table) for table in TABLES)
        self._done = 0

    def run(self) -> Moved:
        self._check_layout()
        for table in PREFILLED:
            self._server.clear(table)
        for table in TABLES:
            self._copy(table)
        for table in TABLES:
            self._compare(table)
        self._server.count_up()
        self._server.commit()
        doubles = sum(encoder.doubles for encoder in self._encoders.values())
        return Moved({table: self._sums[table].rows for table in TABLES}, doubles)

    def _check_layout(self) -> None:
        (here,) = self._file.execute("SELECT schema_version FROM MLMDEnv").fetchone()
        ((there,),) = self._server.read("MLMDEnv", self._columns["MLMDEnv"])
        if here != there:
            raise EvergreenError(
                "the file's tables are of another layout",
                f"the file has layout {here}, the server's tables have {there}",
                "use the same release of TFX that wrote the store. Nothing was changed.",
            )

    def _names(self, table: str) -> list[str]:
        return [name for _, name, *_ in self._file.execute(f'PRAGMA table_info("{table}")')]

    def _count(self, table: str) -> int:
        return int(self._file.execute(f'SELECT COUNT(*) FROM "{table}"').fetchone()[0])

    def _copy(self, table: str) -> None:
        columns = self._columns[table]
        encoder = self._encoders[table] = Encoder(table, columns)
        names = ", ".join(f'"{column.name}"' for column in columns)
        batch: list[Row] = []
        size = 0
        for row in self._file.execute(f'SELECT {names} FROM "{table}"'):
            encoded = encoder.encode(row)
            self._sums[table].add(encoded)
            batch.append(encoded)
            size += sum(len(value) for value in encoded if isinstance(value, (str, bytes)))
            if len(batch) >= _BATCH_ROWS or size >= _BATCH_BYTES:
                self._put(table, batch)
                batch, size = [], 0
        if batch:
            self._put(table, batch)

    def _put(self, table: str, batch: list[Row]) -> None:
        try:
            self._server.insert(table, self._columns[table], batch)
        except self._server.failures as error:
            raise EvergreenError(
                "the server refused rows of the store",
                f"{table}: {_words(error)}",
                "Mend what it names, such as its space or limits, and move again. Nothing was changed there or here.",
            ) from error
        self._progress(len(batch), f"{table}: {self._sums[table].rows:,} rows copied")

    def _compare(self, table: str) -> None:
        found = Checksum()
        for row in self._server.read(table, self._columns[table]):
            found.add(row)
            if found.rows % _BATCH_ROWS == 0:
                self._progress(_BATCH_ROWS, f"{table}: {found.rows:,} rows compared")
        self._progress(found.rows % _BATCH_ROWS, f"{table}: {found.rows:,} rows compared")
        if found != self._sums[table]:
            raise EvergreenError(
                "what arrived is not what was sent",
                f"{table}: {self._sums[table].rows:,} rows sent, {found.rows:,} read back"
                + (", with other values" if found.rows == self._sums[table].rows else ""),
                "Nothing was changed there or here; please report it with the server's kind and version.",
            )

    def _progress(self, rows: int, text: str) -> None:
        self._done += rows
        self._tell(self._done / max(self._all, 1), text)


def _words(error: Exception) -> str:
    """Returns the server's sentence; drivers put it into a tuple or a dictionary."""
    for part in reversed(error.args):
        if isinstance(part, dict):
            return str(part.get("M", part))
        if isinstance(part, str) and part:
            return part
    return f"{type(error).__name__} {error}"
