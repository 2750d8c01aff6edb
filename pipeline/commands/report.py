"""`evergreen report`: the card of a run or version, or the model's history, as one HTML file."""

from __future__ import annotations

import datetime
from pathlib import Path

import click

from evergreen.components import atomic
from evergreen.pipeline import config as configuration
from evergreen.pipeline import options
from evergreen.pipeline.console import Console, size
from evergreen.pipeline.span_pattern import Pattern

_HISTORY_RUNS = 1000


@click.command()
@click.argument("run_id", required=False, metavar="[RUN]")
@click.option("--version", type=int, metavar="V", help="The card of a published version instead.")
@click.option(
    "--all", "everything", is_flag=True, help=f"The model's history instead, of its {_HISTORY_RUNS} last runs."
)
@click.option(
    "--html", "file", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The file to write."
)
@options.config
def command(
    config_file: str | None,
    overrides: tuple[str, ...],
    run_id: str | None,
    version: int | None,
    everything: bool,
    file: Path,
) -> None:
    """Write the card of a run, by default the last: gates, data, training, quality, variants, serving, lineage.

    RUN is a run's id or its beginning. The file holds everything and asks for nothing over the network.

    \b
    Example:
      evergreen report --html card.html
      evergreen report --version 1795421158 --html card.html
      evergreen report --all --html history.html
    """
    from evergreen.pipeline.lineage import Lineage
    from evergreen.pipeline.web import data, history, pages

    if sum((run_id is not None, version is not None, everything)) > 1:
        raise click.UsageError("Ask for one thing: a run, --version or --all.")
    config = configuration.load(config_file, overrides)
    lineage = Lineage(config)
    shared = {"project": config.name, "pages": False, "made": f"{datetime.datetime.now():%Y-%m-%d %H:%M}"}
    if everything:
        text = pages.report("history", history=history.history(lineage, _HISTORY_RUNS), **shared)
    else:
        found = lineage.version(version) if version is not None else lineage.run(run_id or "last")
        card = data.card(lineage, found, Pattern(config.data.pattern).label, as_run=version is None)
        text = pages.report("card", card=card, **shared)
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_file(file, text)
    Console().note(f"wrote {file}, {size(len(text.encode()))}")
