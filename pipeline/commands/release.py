"""`evergreen release`: publishing goes on after a rollback."""

from __future__ import annotations

import click

from evergreen.components.pusher import hold
from evergreen.pipeline import config as configuration
from evergreen.pipeline import options
from evergreen.pipeline.console import Console, clock, print_json


@click.command()
@options.config
@options.json_output
def command(config_file: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Let publishing go on, and say since when and why it was held.

    \b
    Example:
      evergreen release
    """
    config = configuration.load(config_file, overrides)
    held = hold.release(config.publish.base_path)
    if as_json:
        print_json({"released": held is not None, "reason": held and held.reason, "since": held and held.since})
        return
    console = Console()
    if held is None:
        console.note(f"nothing holds publishing into {config.publish.base_path}")
        return
    since = f"since {clock(held.since)}" if held.since else "since an unknown time"
    console.note(f"released; publishing was held {since}: {held.reason or 'no reason was given'}")
    console.note("what a run had trained meanwhile is published by `evergreen run --span SPAN`, from the cache")
