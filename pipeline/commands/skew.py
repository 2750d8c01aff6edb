"""`evergreen skew`: served requests against what the live model learnt."""

from __future__ import annotations

import dataclasses
import os
import warnings
from pathlib import Path
from typing import Any

import click

from evergreen.components import schema_file
from evergreen.components.errors import ConfigError
from evergreen.components.skew import measure, requests
from evergreen.pipeline import config as configuration
from evergreen.pipeline import light_imports, options, skew
from evergreen.pipeline.console import Console, number, print_json
from evergreen.pipeline.store import Store

MODEL_AT_FAULT = 4
_MOST_ROWS = 100_000


@click.command()
@click.option("--log", metavar="PREFIX", help="The log's files; by default what `publish.models_config` names.")
@options.config
@options.json_output
def command(config_file: str | None, overrides: tuple[str, ...], as_json: bool, log: str | None) -> int:
    """Compare the requests in a server's log with the rows that the live model was trained on.

    Measures by the schema's skew_comparator. A feature without one has the threshold 0.1, which counts only in a schema
    that has none at all. Takes the newest 100,000 rows, and judges nothing by fewer than 100. Exits 4 where a feature
    is over its threshold or is never sent.

    \b
    Example:
      evergreen skew --log /var/log/requests/flights
    """
    config = configuration.load(config_file, overrides)
    configuration.check_files(config)
    console = Console(quiet=as_json)
    prefix = log or skew.log_prefix(config)
    files = requests.log_files(prefix)
    if not files:
        raise ConfigError(
            "no requests are logged",
            f"there is no file {prefix}*",
            "Name the log by --log; a server logs what models.config asks for in `logging_config`.",
        )
    window = skew.live_window(config, Store(config.connection, config.name))
    # TensorFlow warns of the end of each file, and Google's libraries of the age of this Python.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.filterwarnings("ignore", category=FutureWarning)
    light_imports.install()
    with console.working("comparing requests with the window"):
        found = requests.read(files, config.name, _MOST_ROWS)
        if not found.rows:
            raise ConfigError(
                f"the log holds no rows of `{config.name}`",
                f"{len(files)} files, {found.count} requests to it, none with raw features",
                "Ask the model by serving_default or predict_raw, or name another log by --log.",
            )
        lines = measure.measure(
            found.rows, window.files, schema_file.read(Path(config.schema_path)), [config.evaluate.label]
        )
    over = [line.feature for line in lines if line.over]
    if as_json:
        print_json(
            {
                "log": prefix,
                "requests": found.count,
                "rows": len(found.rows),
                "version": window.version,
                "window": window.spans,
                "features": [dataclasses.asdict(line) for line in lines],
                "over": over,
            }
        )
        return MODEL_AT_FAULT if over else 0
    console.note(
        f"{len(found.rows):,} rows of {found.count:,} requests against the window of version {window.version} "
        f"(span {', '.join(window.spans)})"
    )
    console.table(
        ["feature", "measure", "value", "threshold", "missing served / learnt", "verdict"],
        [_row(line) for line in lines],
        right=("value", "threshold"),
    )
    if any(line.default for line in lines):
        console.note("* a default: the schema has no skew_comparator for the feature")
    for path in found.truncated:
        console.warn(f"{path} ends within a record: a server still writes it, or was killed")
    if found.unread:
        console.warn(f"{found.unread:,} requests hold no rows of raw features and were left out")
    if len(found.rows) < measure.MIN_ROWS:
        console.warn(f"nothing is judged by fewer than {measure.MIN_ROWS} rows")
    return MODEL_AT_FAULT if over else 0


def _row(line: measure.Skew) -> list[Any]:
    return [
        line.feature,
        line.measure,
        number(line.value),
        number(line.threshold) + ("*" if line.default else ""),
        f"{line.missing_served:.1%} / {line.missing_learnt:.1%}",
        line.verdict,
    ]
