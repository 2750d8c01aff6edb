"""The two servers that a metadata store can move to, through their Python drivers: insert rows, read them back.

Everything happens in one transaction: until `commit` the server shows nobody anything, and it forgets it all where this
process dies.
"""

from __future__ import annotations

import abc
import importlib
import io
import ssl
from collections.abc import Iterator, Sequence
from typing import Any

from evergreen.components.errors import ConfigError, EvergreenError
from evergreen.pipeline.connection import PASSWORD_VARIABLE, Connection
from evergreen.pipeline.migration.rows import PREFILLED_TYPES, TABLES, WITH_ID, Column, Row

SECONDS = 20
_READ_ROWS = 2000
_EXTRA = "evergreen-tfx[databases]"


class Server(abc.ABC):
    """A database on a server.

    Args:
      place: where it is.

    Attributes:
      failures: the driver's exceptions.
    """

    driver = ""
    failures: tuple[type[Exception], ...] = ()

    def __init__(self, place: Connection):
        self.place = place
        try:
            module = importlib.import_module(self.driver)
        except ImportError:
            raise ConfigError(
                f"the driver for {place.kind} is missing",
                f"the package {self.driver.partition('.')[0]} is not installed",
                f"pip install '{_EXTRA}'",
            ) from None
        self.failures = (module.Error,)
        try:
            self._connection = self._connect(module)
        except (*self.failures, OSError) as error:
            raise EvergreenError(
                f"{place.describe()} cannot be reached",
                str(error),
                f"check the address, that the database exists, and the password in {PASSWORD_VARIABLE}",
            ) from error

    @abc.abstractmethod
    def _connect(self, module: Any) -> Any:
        """Opens the connection, with a transaction that is committed by hand."""

    @abc.abstractmethod
    def columns(self, table: str, names: Sequence[str]) -> list[Column]:
        """Returns the types of a table's columns.

        Args:
          table: the table.
          names: the columns of the SQLite file, whose order is kept.

        Raises:
          EvergreenError: the server's table has other columns.
        """

    @abc.abstractmethod
    def insert(self, table: str, columns: Sequence[Column], rows: Sequence[Row]) -> None:
        """Inserts rows that `Encoder.encode` made."""

    @abc.abstractmethod
    def read(self, table: str, columns: Sequence[Column]) -> Iterator[Row]:
        """Yields a table's rows as `insert` took them, in any order."""

    @abc.abstractmethod
    def count_up(self) -> None:
        """Makes the next ids follow the highest that stand in the tables."""

    @abc.abstractmethod
    def _name(self, name: str) -> str:
        """Quotes a name of a table or column."""

    def count(self, table: str) -> int:
        """Returns the number of rows of a table."""
        return int(self._ask(f"SELECT COUNT(*) FROM {self._name(table)}")[0][0])

    def own_types(self) -> int:
        """Returns how many types are registered beside those that ML Metadata registers by itself."""
        begins = f"LEFT({self._name('name')}, {len(PREFILLED_TYPES)})"
        return int(self._ask(f"SELECT COUNT(*) FROM {self._name('Type')} WHERE {begins} <> '{PREFILLED_TYPES}'")[0][0])

    def clear(self, table: str) -> None:
        """Deletes a table's rows."""
        self._run(f"DELETE FROM {self._name(table)}")

    def commit(self) -> None:
        """Makes it stay."""
        self._connection.commit()

    def close(self) -> None:
        """Ends the connection; what was not committed never was."""
        self._connection.close()

    def _run(self, sql: str, parameters: Sequence[Any] | None = None) -> Any:
        cursor = self._connection.cursor()
        cursor.execute(sql, *(() if parameters is None else (parameters,)))
        return cursor

    def _ask(self, sql: str, parameters: Sequence[Any] | None = None) -> Any:
        return self._run(sql, parameters).fetchall()

    def _pick(self, table: str, names: Sequence[str], found: dict[str, str]) -> dict[str, str]:
        if {name.lower() for name in names} != set(found):
            raise EvergreenError(
                "the server's tables are of another layout",
                f"{table} has the columns {', '.join(sorted(found))} there and {', '.join(sorted(names))} in the file",
                "use the same release of TFX that wrote the store. Nothing was changed.",
            )
        return {name: found[name.lower()] for name in names}


class MySQL(Server):
    """MySQL and MariaDB.

    ML Metadata's client speaks latin1 and sends UTF-8: the server takes each byte for a character. Text goes in, and
    comes out, in the same manner here, whatever the tables' character set.
    """

    driver = "pymysql"
    _KINDS = {"tinyint": "int", "int": "int", "bigint": "bigint", "double": "float", "varchar": "text"}

    def _connect(self, module: Any) -> Any:
        place = self.place
        connection = module.connect(
            host=place.host,
            port=place.port,
            user=place.user,
            password=place.password,
            database=place.database,
            charset="utf8mb4",
            connect_timeout=SECONDS,
            autocommit=False,
            ssl=_unverified() if place.tls else None,
        )
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION sql_mode = 'STRICT_ALL_TABLES'")  # what is too long is refused, not cut off
        return connection

    def columns(self, table: str, names: Sequence[str]) -> list[Column]:
        sql = (
            "SELECT LOWER(column_name), LOWER(data_type) FROM information_schema.columns "
            "WHERE table_schema = %s AND table_name = %s"
        )
        kinds = self._pick(table, names, dict(self._ask(sql, (self.place.database, table))))
        return [Column(name, self._kind(kind)) for name, kind in kinds.items()]

    def _kind(self, kind: str) -> str:
        return self._KINDS.get(kind, "bytes" if kind.endswith("blob") else "text")

    def insert(self, table: str, columns: Sequence[Column], rows: Sequence[Row]) -> None:
        names = ", ".join(self._name(column.name) for column in columns)
        values = (
            "(" + ", ".join(_literal(value, c.kind) for value, c in zip(row, columns, strict=True)) + ")"
            for row in rows
        )
        self._run(f"INSERT INTO {self._name(table)} ({names}) VALUES {', '.join(values)}")

    def read(self, table: str, columns: Sequence[Column]) -> Iterator[Row]:
        from pymysql.cursors import SSCursor

        asked = ", ".join(
            f"CAST(CONVERT({self._name(c.name)} USING latin1) AS BINARY)" if c.kind == "text" else self._name(c.name)
            for c in columns
        )
        with self._connection.cursor(SSCursor) as cursor:
            cursor.execute(f"SELECT {asked} FROM {self._name(table)}")
            for row in cursor:
                yield tuple(
                    value.decode("utf-8", "replace") if column.kind == "text" and value is not None else value
                    for value, column in zip(row, columns, strict=True)
                )

    def count_up(self) -> None:
        """Does nothing: InnoDB counts on from the highest id that was inserted."""

    def _name(self, name: str) -> str:
        return f"`{name}`"


def _unverified() -> ssl.SSLContext:
    """TLS as ML Metadata's client does it: encrypted, and nobody asks whose certificate it is."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _literal(value: Any, kind: str) -> str:
    if value is None:
        return "NULL"
    if kind == "text":
        return f"_latin1 X'{value.encode().hex()}'"
    return f"X'{value.hex()}'" if kind == "bytes" else repr(value)


class PostgreSQL(Server):
    """PostgreSQL."""

    driver = "pg8000.dbapi"
    _KINDS = {
        "integer": "int",
        "smallint": "int",
        "bigint": "bigint",
        "boolean": "bool",
        "double precision": "float",
        "bytea": "bytes",
    }

    def _connect(self, module: Any) -> Any:
        place = self.place
        return module.connect(
            host=place.host,
            port=place.port,
            user=place.user,
            password=place.password,
            database=place.database,
            timeout=None,
        )

    def columns(self, table: str, names: Sequence[str]) -> list[Column]:
        sql = (
            "SELECT column_name, data_type FROM information_schema.columns "
            "WHERE table_schema = current_schema() AND table_name = %s"
        )
        kinds = self._pick(table, names, dict(map(tuple, self._ask(sql, (table.lower(),)))))
        return [Column(name, self._KINDS.get(kind, "text"), name == "proto_value") for name, kind in kinds.items()]

    def insert(self, table: str, columns: Sequence[Column], rows: Sequence[Row]) -> None:
        names = ", ".join(self._name(column.name) for column in columns)
        lines = io.BytesIO("".join("\t".join(map(_copied, row)) + "\n" for row in rows).encode())
        self._connection.cursor().execute(f"COPY {self._name(table)} ({names}) FROM STDIN", stream=lines)

    def read(self, table: str, columns: Sequence[Column]) -> Iterator[Row]:
        names = ", ".join(self._name(column.name) for column in columns)
        self._run(f"DECLARE moved NO SCROLL CURSOR FOR SELECT {names} FROM {self._name(table)}")
        while rows := self._ask(f"FETCH {_READ_ROWS} FROM moved"):
            yield from map(tuple, rows)
        self._run("CLOSE moved")

    def count_up(self) -> None:
        for table in WITH_ID:
            name = self._name(table)
            self._run(
                f"SELECT setval(pg_get_serial_sequence('{name}', 'id'), COALESCE(MAX(id), 1), MAX(id) IS NOT NULL) "
                f"FROM {name}"
            )

    def _name(self, name: str) -> str:
        return f'"{name.lower()}"'


_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def _copied(value: Any) -> str:
    """Writes a value in COPY's text format."""
    if value is None:
        return "\\N"
    if isinstance(value, str):
        return value.translate(_ESCAPES)
    return f"\\\\x{value.hex()}" if isinstance(value, bytes) else str(value)


def connect(place: Connection) -> Server:
    """Connects to a server.

    Args:
      place: a MySQL or PostgreSQL database.

    Returns:
      The server; the caller closes it.

    Raises:
      ConfigError: the driver is not installed.
      EvergreenError: the server cannot be reached, or does not let us in.
    """
    return MySQL(place) if place.kind == "mysql" else PostgreSQL(place)


def counts(server: Server) -> dict[str, int]:
    """Returns the rows of each of ML Metadata's tables."""
    return {table: server.count(table) for table in TABLES}
