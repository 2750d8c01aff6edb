"""`evergreen rollback`: an earlier version's model live again, and publishing held."""

from __future__ import annotations

import click

from evergreen.pipeline import config as configuration
from evergreen.pipeline import options, rollback
from evergreen.pipeline.console import Console, print_json, slowly
from evergreen.pipeline.store import Store


@click.command()
@click.option("--to", type=int, default=None, metavar="V", help="The version to restore; by default the one before.")
@options.config
@options.json_output
def command(config_file: str | None, overrides: tuple[str, ...], to: int | None, as_json: bool) -> None:
    """Make an earlier version's model live again, and hold publishing until `evergreen release`.

    A server answers from the highest version, so the earlier model is published again under a new number. Needs no
    training and waits for no run that goes on, only for a push.

    \b
    Example:
      evergreen rollback
      evergreen rollback --to 1714532400
    """
    config = configuration.load(config_file, overrides)
    console = Console(quiet=as_json)
    done, warnings = rollback.roll_back(config, Store(config.connection, config.name), to, slowly(console.note))
    if as_json:
        print_json({"version": done.version, "restores": done.restores, "was_live": done.was_live, "held": True})
    console.note(f"live was version {done.was_live}; now version {done.version} restores version {done.restores}")
    for text in (*done.warnings, *warnings):
        console.warn(text)
    console.note("publishing is held, so that no run undoes this; `evergreen release` lets it go on")
