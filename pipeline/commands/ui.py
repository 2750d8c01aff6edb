"""`evergreen ui`: runs, versions and lineage as a local web page."""

from __future__ import annotations

import socket

import click

from evergreen.components.errors import ConfigError
from evergreen.pipeline import config as configuration
from evergreen.pipeline import options
from evergreen.pipeline.console import Console

HOST = "127.0.0.1"


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8888, show_default=True, help="Where to listen; 0: any.")
@options.config
def command(config_file: str | None, overrides: tuple[str, ...], port: int) -> None:
    """Show what is live, the runs, the lineage and what changed, in a browser on this machine.

    Reads the store anew for each page and changes nothing, but for a rollback that is confirmed in the page and asks
    for the token in the printed address. Ctrl-C ends it.

    \b
    Example:
      evergreen ui
      evergreen ui --port 0
    """
    from aiohttp import web

    from evergreen.pipeline.web import app, guard

    config = configuration.load(config_file, overrides)
    try:
        listening = socket.create_server((HOST, port))
    except OSError as error:
        raise ConfigError(
            f"port {port} cannot be used",
            f"{HOST}:{port}: {error.strerror}",
            "Choose another with --port, or --port 0 for any that is free.",
        ) from error
    port = listening.getsockname()[1]
    checks = guard.Guard(port)
    console = Console()
    console.note(f"http://{HOST}:{port}/?token={checks.token}")
    console.note("the token lets this browser roll back; Ctrl-C ends the server", "dim")
    web.run_app(app.build(config, checks), sock=listening, print=None, access_log=None, shutdown_timeout=2)
