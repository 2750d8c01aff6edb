"""The options that commands share. `config` stands on every command, `json_output` where a command lists something.

The options of `config` may stand before the command's name too: `evergreen -c FILE run` is `evergreen run -c FILE`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

Command = Callable[..., Any]

CONFIG_FILE = click.Option(
    ["-c", "--config", "config_file"],
    metavar="FILE",
    help="The configuration; by default the evergreen.yaml of this folder or the nearest above.",
)
OVERRIDES = click.Option(
    ["--set", "overrides"],
    metavar="KEY.PATH=VALUE",
    multiple=True,
    help="Sets a key of the configuration for this command, such as trainer.steps=500; may be repeated.",
)
DEBUG = click.Option(["--debug"], is_flag=True, help="Print the traceback of an error.")
DEBUG_KEY, CONFIG_KEY = "evergreen.debug", "evergreen.config"  # in the meta of click's context
SHARED = (CONFIG_FILE, OVERRIDES, DEBUG)


def config(function: Command) -> Command:
    """Gives a command `-c`, `--set` and `--debug`, and passes it `config_file` and `overrides`.

    What stands before the command's name comes first: `--set` adds up, `-c` behind the name wins.
    """

    @functools.wraps(function)
    def command(*args: Any, config_file: str | None, overrides: tuple[str, ...], debug: bool, **others: Any) -> Any:
        root = click.get_current_context().find_root()
        file = config_file or root.params.get("config_file")
        sets = (*root.params.get("overrides", ()), *overrides)
        root.meta[DEBUG_KEY], root.meta[CONFIG_KEY] = debug, (file, sets)
        return function(*args, config_file=file, overrides=sets, **others)

    # click collects parameters in the order of decorators, the last one first.
    command.__click_params__ = [*getattr(function, "__click_params__", []), *reversed(SHARED)]  # type: ignore[attr-defined]
    return command


def json_output(function: Command) -> Command:
    """Gives a command `--json`, and passes it `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead, for programs.")(function)
