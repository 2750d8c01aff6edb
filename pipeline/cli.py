"""The command `evergreen`: finds the command, and turns whatever goes wrong into a message and an exit status.

A command's module is imported when the command is used, so that `--help` and the light commands answer at once. Each is
`evergreen.pipeline.commands.<name>` with a click command `command`, which returns None or an exit status.
"""

from __future__ import annotations

import difflib
import importlib
import io
import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import click

from evergreen.components.errors import EvergreenError
from evergreen.pipeline import options

COMMANDS = {
    "init": "Start a project from a CSV or Parquet file.",
    "plan": "Say what `run` would do now, and why.",
    "run": "Retrain once: validate, train, examine, quantize, publish.",
    "backfill": "Take in the spans of a range, and train on the last.",
    "schedule": "Retrain by the clock, or when data arrives.",
    "status": "Show what is live, how old it is, and what runs now.",
    "versions": "List the published versions.",
    "rollback": "Make an earlier version's model live again, and hold publishing.",
    "release": "Let publishing go on after a rollback.",
    "runs": "List the runs and how they ended.",
    "lineage": "Show everything behind a version, or made from a span.",
    "diff": "Show what changed between two versions.",
    "report": "Write the card of a run, or the history, as one HTML file.",
    "ui": "Show runs, versions and lineage as a local web page.",
    "logs": "Show a run's log, or a stage's.",
    "serve": "Serve the published versions.",
    "predict": "Send rows to a running server.",
    "skew": "Compare served requests with what the live model learnt.",
    "worker": "Take part in the trainings of another host.",
    "scaling": "Measure and predict what more devices would bring.",
    "gc": "Remove artifacts that nothing needs.",
    "migrate": "Move the metadata store to MySQL or PostgreSQL.",
    "doctor": "Find out what is wrong with this machine or project.",
}
INTERRUPTED = 130


class _LazyGroup(click.Group):
    """A group that knows its commands by name and imports one when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"evergreen.pipeline.commands.{cmd_name}").command
        command.name = cmd_name
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            guess = f" Did you mean `{near[0]}`?" if near else ""
            ctx.fail(f"There is no command `{args[0]}`.{guess}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=_LazyGroup,
    params=list(options.SHARED),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Each command has an example: evergreen COMMAND --help",
)
@click.version_option(package_name="evergreen-tfx", message="evergreen %(version)s")
def cli(config_file: str | None, overrides: tuple[str, ...], debug: bool) -> None:
    """Models that never go stale: continuous training for TensorFlow, on TFX.

    A project is one evergreen.yaml and two functions. Each run takes in the newest span of data, trains on a window of
    spans, and publishes the model as a new version where TensorFlow Serving finds it, if it passes every gate.

    \b
    Example:
      evergreen init sales.csv    a project from a file
      evergreen run               one retraining
      evergreen versions          what is published
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
      arguments: without the program's name; those of the process by default.

    Returns:
      The exit status.
    """
    context: click.Context | None = None
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # what a terminal cannot show must not end a command
    try:
        context = cli.make_context("evergreen", list(sys.argv[1:] if arguments is None else arguments))
        with context:
            status = cli.invoke(context)
        return status if isinstance(status, int) else 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        sys.stderr.write("\ninterrupted\n")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone, as in `evergreen runs | head`; nothing may be flushed into it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except EvergreenError as error:
        if _wants_traceback(context):
            traceback.print_exc()
        _print(error)
        return error.exit_status
    except Exception as error:
        _print(_unexpected(error, context))
        return 1


def _print(error: EvergreenError) -> None:
    from evergreen.pipeline.console import Console

    Console(sys.stderr).error(error)


def _wants_traceback(context: click.Context | None) -> bool:
    return context is not None and bool(context.meta.get(options.DEBUG_KEY) or context.params.get("debug"))


def _unexpected(error: Exception, context: click.Context | None) -> EvergreenError:
    """Describes a defect, with its traceback in a file unless it was printed."""
    lines = str(error).strip().splitlines() or [""]
    reason = f"{type(error).__name__}: {lines[0]}".rstrip(": ")
    if _wants_traceback(context):
        traceback.print_exc()
        return EvergreenError("unexpected error", reason, "The traceback stands above; please report it.")
    written = _write_traceback(context)
    place = f"The traceback is in {written}" if written else "Add --debug to see the traceback"
    return EvergreenError("unexpected error", reason, f"{place}; please report it with what you did.")


def _write_traceback(context: click.Context | None) -> Path | None:
    """Appends the traceback to `errors.log` in the workspace, where there is a project."""
    from evergreen.pipeline import config

    try:
        shared = context.meta[options.CONFIG_KEY] if context is not None else (None, ())
        folder = config.load(*shared).logs_dir
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "errors.log", "a", encoding="utf-8") as file:
            file.write(
                f"{time.strftime('%Y-%m-%dT%H:%M:%S')} evergreen {' '.join(sys.argv[1:])}\n{traceback.format_exc()}\n"
            )
    except (EvergreenError, OSError, KeyError):
        return None
    return folder / "errors.log"
