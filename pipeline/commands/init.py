"""`evergreen init`: a project from a CSV or Parquet file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from evergreen.components.errors import ConfigError
from evergreen.pipeline import options
from evergreen.pipeline.config import FILE_NAME
from evergreen.pipeline.console import Console
from evergreen.pipeline.scaffold.deliver import Division
from evergreen.pipeline.scaffold.layout import MARKER
from evergreen.pipeline.scaffold.project import Project, create

_SHOWN = 8


@click.command()
@click.argument("source", metavar="[CSV]", required=False, type=click.Path(path_type=Path))
@click.option("--label", metavar="COLUMN", help="The column to predict; guessed by default.")
@click.option("--time", metavar="COLUMN", help="The column with the times, which divide the rows into spans; guessed.")
@click.option("--name", help="The project's name; by default that of the file.")
@click.option(
    "--dir", "folder", metavar="FOLDER", type=click.Path(path_type=Path), help="Where to write it; by default here."
)
@options.config
def command(
    config_file: str | None,
    overrides: tuple[str, ...],
    source: Path | None,
    label: str | None,
    time: str | None,
    name: str | None,
    folder: Path | None,
) -> None:
    """Start a project from a CSV or Parquet file, or from a folder of spans of such files.

    Looks into the data, guesses the label, the time and the features, and says what it guessed. Writes evergreen.yaml,
    features.py, model.py and schema.pbtxt, and copies the rows into spans: by month or day where the rows have times.
    Spans that are there already are used where they are. Overwrites nothing. Without a file, the columns are examples.

    With -c the configuration is written to that FILE; --set sets keys in it.

    \b
    Example:
      evergreen init sales.csv --label revenue --time day --dir sales
    """
    if config_file and folder:
        raise ConfigError(
            "-c and --dir both say where to write", f"received {config_file} and {folder}", "Give one of the two."
        )
    file = Path(config_file) if config_file else (folder or Path.cwd()) / FILE_NAME
    with Console(sys.stderr).working(f"looking into {source}" if source else "writing"):
        project = create(source, file.expanduser().absolute(), name, label, time, overrides)
    _tell(project, source, Console())


def _tell(project: Project, source: Path | None, console: Console) -> None:
    guess, profile, config = project.guess, project.profile, project.config
    names = ", ".join(path.name for path in project.files)
    console.note(f"{config.name}: wrote {names} to {config.project_dir}", "bold")
    if source is None:
        console.note("The columns are examples: replace them in features.py, schema.pbtxt and `evaluate.label`.")
        return
    read = "" if profile.complete else " (the first ones)"
    console.note(f"{profile.rows:,} rows{read}, {len(profile.columns)} columns of {profile.format}")
    kind = "yes or no (a probability is learnt)" if guess.binary else "a value (a regression is learnt)"
    rows: list[list[Any]] = [
        ["label", guess.label, f"{guess.label_why}; {kind}", "--label COLUMN"],
        ["time", guess.time, f"{guess.time_why}{_time_note(project)}", "--time COLUMN"],
        ["spans", _spans(project), _spans_note(project), "`data` in evergreen.yaml"],
        ["numbers", _listed(guess.numeric), "become scores", "NUMERIC in features.py"],
        ["categories", _listed(guess.categorical), "become embeddings", "CATEGORICAL in features.py"],
    ]
    console.table(["what", "guess", "why", "to change it"], rows)
    for column, why in guess.left_out.items():
        console.note(f"left out: {column}, {why}")
    if project.division is not None:
        _warn(project.division, console)
    console.note("Is a column known only after the label is? Take it out of features.py: it would give the label away.")
    console.note("Next: read schema.pbtxt, then `evergreen plan`, then `evergreen run`.", "bold")


def _warn(division: Division, console: Console) -> None:
    if division.without_time:
        console.warn(f"{division.without_time:,} rows have no time and are in no span")
    if division.unfinished:
        label, rows = list(division.rows.items())[-1]
        console.warn(f"span {label} has {rows:,} rows only: it is not used before it is complete and has a {MARKER}")


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _time_note(project: Project) -> str:
    guess = project.guess
    if guess.time_format is None:
        return ""
    how = f"; written as {guess.time_format.name}"
    unused = project.config.data.time is None
    return how + ("; it orders no rows inside of a span, so the exam is drawn by a hash" if unused else "")


def _spans(project: Project) -> str:
    if project.layout is not None:
        return f"{project.layout.spans} up to {project.layout.newest}"
    labels = list(project.division.rows) if project.division is not None else [""]
    return f"{len(labels)} up to {labels[-1]}" if len(labels) > 1 else labels[0]


def _spans_note(project: Project) -> str:
    if project.layout is not None:
        return f"left where they are, in {project.layout.root}"
    unit = project.division.unit if project.division is not None else "all"
    into = f"copied into {Path(project.config.data.path).name}/"
    if unit == "all":
        return f"{into}: too few rows or times to divide; deliver the next one as 2"
    return f"one a {unit}, {into}"
