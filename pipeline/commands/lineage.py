"""`evergreen lineage`: everything behind a version, or everything made from a span."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from evergreen.pipeline import config as configuration
from evergreen.pipeline import options
from evergreen.pipeline.console import Console, print_json
from evergreen.pipeline.span_pattern import Pattern

if TYPE_CHECKING:
    from evergreen.pipeline.lineage import Lineage
    from evergreen.pipeline.lineage.records import Provenance


@click.command()
@click.argument("version", type=int, required=False)
@click.option("--span", type=str, metavar="SPAN", help="What was made from this span, through every warm start.")
@click.option("--run", "run_id", metavar="ID", help="What a run was made from, published or not; `last` for the last.")
@click.option(
    "--artifact", "artifact_id", type=int, metavar="ID", help="Who made an artifact, of what, and who used it."
)
@click.option("--dot", is_flag=True, help="Print the graph for Graphviz instead.")
@click.option("-v", "--verbose", is_flag=True, help="With ids, fingerprints, hyperparameters, slices.")
@options.config
@options.json_output
def command(
    config_file: str | None,
    overrides: tuple[str, ...],
    version: int | None,
    span: str | None,
    run_id: str | None,
    artifact_id: int | None,
    dot: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Show everything behind a published version, by default the live one.

    \b
    Example:
      evergreen lineage                 which rows, code and run made the version that answers now
      evergreen lineage --span 7        what was made from span 7, and is any of it live
      evergreen lineage --dot | dot -Tsvg > lineage.svg
    """
    from evergreen.pipeline.lineage import Lineage, tree

    given = [value for value in (version, span, run_id, artifact_id) if value is not None]
    if len(given) > 1:
        raise click.UsageError("Ask for one thing: a version, --span, --run or --artifact.")
    if dot and (span is not None or artifact_id is not None):
        raise click.UsageError("--dot draws a version or a run.")
    config = configuration.load(config_file, overrides)
    lineage = Lineage(config)
    label = Pattern(config.data.pattern).label
    answer: Any
    if span is not None:
        answer = lineage.span(Pattern(config.data.pattern).parse(span))
        shown = tree.span(answer, label, verbose)
    elif artifact_id is not None:
        answer = lineage.artifact(artifact_id)
        shown = tree.artifact(answer)
    else:
        answer = lineage.run(run_id) if run_id is not None else lineage.version(version)
        if dot:
            click.echo(_dot(lineage, answer), nl=False)
            return
        shown = tree.provenance(answer, label, verbose)
    if as_json:
        print_json(dataclasses.asdict(answer))
    else:
        Console().rich.print(tree.render(shown))


def _dot(lineage: Lineage, found: Provenance) -> str:
    from evergreen.pipeline.lineage.dot import HISTORY, to_dot

    start = found.push_execution_id or (found.training.execution_id if found.training else None)
    executions = lineage.graph.behind([start], HISTORY) if start is not None else []
    return to_dot(lineage.graph, executions, f"version {found.version}" if found.version else found.run)
