"""Connecting to the ML Metadata store that the configuration names: SQLite, MySQL or PostgreSQL."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evergreen.components.errors import EvergreenError
from evergreen.pipeline import sqlite_file

# For so long another process that creates the tables of an empty database is waited for; a busy MariaDB takes a while.
CREATION_S = 60.0
# What no waiting mends: the server cannot be reached, does not let us in, or holds a store of another release.
_FINAL = re.compile(r"real_connect failed|connection pointer is null|denied|database version", re.IGNORECASE)
# How MariaDB from 11.6.2 on refuses a call, reading ones too, that met another connection's write.
_MET_A_WRITE = "Record has changed since last read"
_TRIES = 10


def check_file(connection: Any) -> None:
    """Refuses a SQLite file that cannot be used; what a killed process left half-written in it is taken back.

    Args:
      connection: `Config.connection`, of the kind `sqlite`.

    Raises:
      EvergreenError: the file is damaged, locked or newer.
    """
    trouble = sqlite_file.examine(connection.path)
    if trouble is not None:
        raise EvergreenError(
            "the metadata store cannot be used",
            f"{connection.path}: {trouble.reason}",
            f"{trouble.mend[:1].upper()}{trouble.mend[1:]}. Nothing was written.",
        )


def open_store(connection: Any) -> Any:
    """Connects, which creates a SQLite file or a server's tables where there are none.

    Of several processes that meet an empty database one creates the tables. The others fail in ways that depend on how
    far it is (missing or duplicate tables, a deadlock), told apart by nothing but a text. So they try again whatever it
    says, unless waiting cannot help.

    Args:
      connection: `Config.connection`.

    Returns:
      An `ml_metadata.MetadataStore`.

    Raises:
      EvergreenError: the file is damaged, locked or newer, or the server does not let us in.
    """
    if connection.kind == "sqlite":
        check_file(connection)
    import ml_metadata

    deadline = time.monotonic() + CREATION_S
    while True:
        try:
            with without_chatter(connection.kind):
                store = ml_metadata.MetadataStore(connection_config(connection))
            break
        except Exception as error:
            if connection.kind != "sqlite" and not _FINAL.search(str(error)) and time.monotonic() < deadline:
                time.sleep(0.5)
                continue
            raise EvergreenError(
                "the metadata store cannot be opened",
                f"{connection.describe()}: {error}",
                connection.mend,
            ) from error
    if connection.kind == "mysql":
        try_again_beside_writes()
    return store


def try_again_beside_writes() -> None:
    """Lets ML Metadata's clients of this process, TFX's too, try a call again that met another connection's write.

    Each call is a transaction, which the server took back. Of such errors ML Metadata's client knows deadlocks alone.
    """
    import ml_metadata
    from ml_metadata import errors

    call = ml_metadata.MetadataStore._call_method
    if hasattr(call, "__wrapped__"):
        return

    @functools.wraps(call)
    def until_it_met_none(*arguments: Any) -> None:
        for _ in range(_TRIES - 1):
            try:
                return call(*arguments)
            except errors.InternalError as error:
                if _MET_A_WRITE not in str(error):
                    raise
        return call(*arguments)

    ml_metadata.MetadataStore._call_method = until_it_met_none
    logging.getLogger("absl").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line of the log is more than that a call is tried again."""
    return _MET_A_WRITE not in record.getMessage()


def connection_config(connection: Any) -> Any:
    """Turns the configuration's metadata section into an ml_metadata ConnectionConfig.

    Args:
      connection: `Config.connection`.

    Returns:
      A `metadata_store_pb2.ConnectionConfig`.
    """
    from ml_metadata.proto import metadata_store_pb2 as pb

    config = pb.ConnectionConfig()
    if connection.kind == "sqlite":
        Path(connection.path).parent.mkdir(parents=True, exist_ok=True)
        config.sqlite.filename_uri = str(connection.path)
        config.sqlite.connection_mode = pb.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    elif connection.kind == "mysql":
        config.mysql.host = connection.host
        config.mysql.port = connection.port
        config.mysql.database = connection.database
        config.mysql.user = connection.user
        config.mysql.password = connection.password
        if connection.tls:
            config.mysql.ssl_options.verify_server_cert = False  # any of these options makes the client encrypt
    else:
        config.postgresql.host = connection.host
        config.postgresql.port = str(connection.port)
        config.postgresql.dbname = connection.database
        config.postgresql.user = connection.user
        # MLMD writes it into libpq's connection string as it is.
        escaped = connection.password.replace("\\", "\\\\").replace("'", "\\'")
        config.postgresql.password = f"'{escaped}'"
    return config


@contextlib.contextmanager
def without_chatter(kind: str) -> Iterator[None]:
    """Keeps from the terminal what the library's C++ part writes to stderr: PostgreSQL's connections and refusals.

    Args:
      kind: the connection's; nothing is kept back where it is another than `postgresql`.
    """
    if kind != "postgresql":
        yield
        return
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
