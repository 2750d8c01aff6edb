"""`evergreen doctor`: what is wrong with this machine or project, and the mend."""

from __future__ import annotations

import dataclasses
import sys

import click
from rich.text import Text

from evergreen.components.errors import ConfigError
from evergreen.pipeline import config as configuration
from evergreen.pipeline import options
from evergreen.pipeline.checkup import Check, Level, checkup
from evergreen.pipeline.checkup_project import checkup_project
from evergreen.pipeline.console import Console, print_json

_STYLES = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}


@click.command()
@click.option("--quick", is_flag=True, help="Do not import your functions, which takes as long as TensorFlow does.")
@options.config
@options.json_output
def command(config_file: str | None, overrides: tuple[str, ...], quick: bool, as_json: bool) -> int:
    """Find out what is wrong with this machine or project, and how to mend it.

    Outside of a project only the machine is looked at. Exits 1 if something must be mended before a run can work.

    \b
    Example:
      evergreen doctor --quick
    """
    checks: list[Check] = []
    with Console(sys.stderr).working("looking at this machine and project"):
        checks += checkup()
        try:
            config = configuration.load(config_file, overrides)
        except configuration.NoProject as error:
            checks.append(Check("configuration", Level.WARN, error.headline, error.next_step))
        except ConfigError as error:
            checks.append(Check("configuration", Level.FAIL, f"{error.headline}: {error.reason}", error.next_step))
        else:
            checks.append(Check("configuration", Level.OK, str(config.file)))
            checks += checkup_project(config, with_functions=not quick)
    failed = any(check.level is Level.FAIL for check in checks)
    if as_json:
        print_json([dataclasses.asdict(check) for check in checks])
    else:
        _print(checks, Console())
    return 1 if failed else 0


def _print(checks: list[Check], console: Console) -> None:
    for check in checks:
        console.rich.print(
            Text.assemble((f"{check.level.value:<5}", _STYLES[check.level]), (f"{check.name}: ", "bold"), check.found)
        )
        if check.mend:
            console.rich.print(Text.assemble(("     mend: ", "bold"), check.mend), soft_wrap=True)
    counts = {level: sum(check.level is level for check in checks) for level in Level}
    console.note(f"{counts[Level.OK]} ok, {counts[Level.WARN]} to look at, {counts[Level.FAIL]} to mend")
