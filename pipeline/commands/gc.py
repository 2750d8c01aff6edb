"""`evergreen gc`: removes artifacts that nothing needs any more."""

from __future__ import annotations

import click

from evergreen.pipeline import config as configuration
from evergreen.pipeline import console, garbage, options
from evergreen.pipeline.commands import run
from evergreen.pipeline.store import Store


@click.command()
@click.option("--delete", is_flag=True, help="Remove them; without it they are only listed.")
@options.config
@options.json_output
def command(config_file: str | None, overrides: tuple[str, ...], delete: bool, as_json: bool) -> None:
    """List the artifacts that no published version, window or next run needs; remove them with --delete.

    Examples, transform graphs, analyzer caches, models and training files go. Their records in ML Metadata stay, marked
    as deleted, with statistics, verdicts and reports: lineage goes on to tell. The base path is not touched.

    \b
    Example:
      evergreen gc --delete
    """
    config = configuration.load(config_file, overrides)
    store = Store(config.connection, config.name)
    config.lock_path.parent.mkdir(parents=True, exist_ok=True)
    with run.held(config):
        items = garbage.find(config, store)
        if delete:
            garbage.remove(store, items)
    total = sum(item.bytes for item in items)
    if as_json:
        listed = [{"id": item.id, "type": item.type, "path": item.path, "bytes": item.bytes} for item in items]
        console.print_json({"deleted": delete, "bytes": total, "artifacts": listed})
        return
    out = console.Console()
    if not items:
        out.note("there is nothing to remove")
        return
    rows = []
    for kind in garbage.TYPES:
        own = [item for item in items if item.type == kind]
        if own:
            rows.append([kind, f"{len(own):,}", console.size(sum(item.bytes for item in own))])
    out.table(["type", "artifacts", "size"], rows, right=("artifacts", "size"))
    freed = console.size(total)
    out.note(f"{freed} removed" if delete else f"{freed} could be removed: evergreen gc --delete")
