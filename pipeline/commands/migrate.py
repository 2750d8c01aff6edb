"""`evergreen migrate`: moves the metadata store from its SQLite file to a server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import click
from filelock import Timeout

from evergreen.components.errors import ConfigError, LockHeld
from evergreen.pipeline import config as configuration
from evergreen.pipeline import connection, locks, options
from evergreen.pipeline.commands import run
from evergreen.pipeline.console import StageProgress
from evergreen.pipeline.migration.move import check_source, move
from evergreen.pipeline.schedule.state import Places
from evergreen.pipeline.store import Store


@click.command()
@click.option(
    "--to", required=True, metavar="URL", help="mysql://user@host/database or postgresql://user@host/database"
)
@options.config
def command(config_file: str | None, overrides: tuple[str, ...], to: str) -> None:
    """Move the metadata store from its SQLite file to a MySQL or PostgreSQL server.

    Every record keeps its id and its time. The database must exist and be empty; the password comes from the
    environment variable EVERGREEN_METADATA_PASSWORD. What arrives is read back and compared before it counts, and the
    file is not changed: a move that is cut off leaves both as they were.

    \b
    Example:
      evergreen migrate --to mysql://evergreen@db.internal/evergreen
    """
    config = configuration.load(config_file, overrides)
    target = _understood(to)
    check_source(config.connection)
    with _no_scheduler(config), run.held(config), StageProgress() as progress:
        progress.start("Move", f"{config.connection.describe()} to {target.describe()}")
        moved = move(Store(target, config.name), config.connection, target, progress.update)
        progress.done(f"{sum(moved.rows.values()):,} rows")
    out = progress.console
    out.table(["table", "rows"], [[table, f"{rows:,}"] for table, rows in moved.rows.items() if rows], right=("rows",))
    if moved.doubles:
        out.note(f"{moved.doubles:,} integers of more than 32 bits stand there as doubles, without loss")
    out.note("each table was read back and is the same; the file was not changed")
    out.note(f"Next: put this line into {config.file}, and start `schedule` and `ui` again")
    out.note(f"  metadata: {to}", "bold")


def _understood(text: str) -> connection.Connection:
    expected = "`mysql://user@host:3306/database` or `postgresql://user@host:5432/database`"
    try:
        target = connection.parse(text, "")
        if target.kind != "sqlite":
            return target
    except ValueError as error:
        expected = expected if str(error) == connection.EXPECTED else str(error)
    raise ConfigError("--to names no server", f"expected {expected}", "Correct the URL.")


@contextlib.contextmanager
def _no_scheduler(config: configuration.Config) -> Iterator[None]:
    """Holds the scheduler's lock for the time of a block: one at work would go on with the store that it began with."""
    places = Places(config.workspace_dir)
    places.folder.mkdir(parents=True, exist_ok=True)
    try:
        with locks.take(places.lock):
            yield
    except Timeout:
        raise LockHeld(
            "a scheduler is at work on this workspace",
            f"the lock {places.lock} is held by a live process, which would go on with the old store",
            "stop it, and start it again with the new `metadata`",
        ) from None
