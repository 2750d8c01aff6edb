"""`evergreen diff V W`: what changed between two versions."""

from __future__ import annotations

import dataclasses

import click

from evergreen.pipeline import config as configuration
from evergreen.pipeline import options
from evergreen.pipeline.console import Console, print_json


@click.command()
@click.argument("before", type=int, metavar="V")
@click.argument("after", type=int, metavar="W")
@click.option("-v", "--verbose", is_flag=True, help="Every metric of every slice, not the first one's alone.")
@options.config
@options.json_output
def command(
    config_file: str | None, overrides: tuple[str, ...], before: int, after: int, verbose: bool, as_json: bool
) -> None:
    """Show what changed from version V to version W: spans, schema, code, settings, packages, metrics, sizes.

    Only what differs is shown; of the slices, those with `evaluate.min_slice_rows` on both sides.

    \b
    Example:
      evergreen diff 1795420942 1795421158
    """
    from evergreen.pipeline.lineage import Lineage
    from evergreen.pipeline.lineage.diff import compare, words

    config = configuration.load(config_file, overrides)
    lineage = Lineage(config)
    sides = lineage.version(before), lineage.version(after)
    changes = compare(*sides, least_rows=0 if verbose else config.evaluate.min_slice_rows)
    if not verbose and not as_json:
        first = config.evaluate.metrics[0]
        changes = [change for change in changes if change.section != "slices" or change.name.endswith(f" {first}")]
    if as_json:
        print_json([{**dataclasses.asdict(change), "difference": change.difference} for change in changes])
        return
    console = Console()
    if not changes:
        console.note(f"versions {before} and {after} differ in nothing that was recorded")
        return
    rows, section = [], ""
    for change in changes:
        rows.append([change.section if change.section != section else " ", change.name, *words(change)])
        section = change.section
    console.table(["what", "", str(before), str(after), "by"], rows, right=("by",))
