"""`evergreen versions`: what the base path holds."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import click

from evergreen.components.errors import EvergreenError
from evergreen.components.pusher import catalog, labels, versions, watch_plan
from evergreen.components.pusher.versions import Hold, read_hold
from evergreen.pipeline import config as configuration
from evergreen.pipeline import options
from evergreen.pipeline.config import Config
from evergreen.pipeline.console import Console, clock, number, print_json, size
from evergreen.pipeline.span_pattern import Pattern


@click.command()
@options.config
@options.json_output
def command(config_file: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """List the published versions, newest first: live, withdrawn or neither, run, span, metrics, sizes, labels.

    The metric is the first of `evaluate.metrics`: on the exam, and in brackets what the version before it was worth on
    the same span before training. All of them are in `--json`.

    \b
    Example:
      evergreen versions --json
    """
    config = configuration.load(config_file, overrides)
    records = catalog.list_versions(config.publish.base_path)
    if as_json:
        print_json([_to_json(record, config, _labels(config)) for record in records])
        return
    print_versions(config, Console(), records)


def print_versions(config: Config, console: Console, records: list[catalog.VersionRecord] | None = None) -> None:
    """Prints the table of the published versions.

    Args:
      config: the project's configuration.
      console: where.
      records: the versions; read from the base path by default.
    """
    records = catalog.list_versions(config.publish.base_path) if records is None else records
    hold = read_hold(config.publish.base_path)
    if not records:
        console.note(
            f"nothing is published in {config.publish.base_path} yet; `evergreen run` publishes the first version"
        )
        return
    metric = config.evaluate.metrics[0]
    base_path = config.publish.base_path
    pending = None if versions.is_uri(base_path) else watch_plan.read_pending(versions.local_path(base_path))
    pointing = _labels(config)
    columns = ["version", "live", "published", "run", "span", f"{metric} [before]", "size", "TFLite", "note"]
    rows = [
        [
            record.version,
            _state(record),
            clock(record.published),
            record.run,
            _label(record, config),
            _measured(record, metric),
            size(record.bytes),
            _tflite(record, metric),
            _note(record, pointing.get(record.version, []), pending is not None and pending.version == record.version),
        ]
        for record in records
    ]
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    console.table(columns, rows, right=("size",))
    if hold is not None:
        console.note(held_line(hold))


def held_line(hold: Hold) -> str:
    """Says that publishing is held, since when, why, and what ends it.

    Args:
      hold: the hold.
    """
    since = f" since {clock(hold.since)}" if hold.since else ""
    return f"publishing is held{since}: {hold.reason or 'no reason is given'} `evergreen release` ends that."


def _label(record: catalog.VersionRecord, config: Config) -> str | None:
    return None if record.span is None else Pattern(config.data.pattern).label(record.span)


def _measured(record: catalog.VersionRecord, metric: str) -> str:
    exam, before = record.metrics.get(metric), (record.champion_on_span or {}).get(metric)
    if exam is None:
        return ""
    return number(exam) + (f" [{number(before)}]" if before is not None else "")


def _tflite(record: catalog.VersionRecord, metric: str) -> str:
    if not record.tflite_bytes:
        return ""
    measured = record.tflite_metrics.get(metric)
    words = [
        size(record.tflite_bytes),
        record.tflite_variant or "",
        "" if measured is None else f"({number(measured)})",
    ]
    return " ".join(word for word in words if word)


def _state(record: catalog.VersionRecord) -> str:
    if record.withdrawn is not None:
        return "withdrawn"
    return "live" if record.live else ""


def _note(record: catalog.VersionRecord, pointing: list[str], watched: bool) -> str:
    notes = [
        ", ".join(f"`{label}`" for label in pointing),
        "being watched" if watched else "",
        f"restores {record.restores}" if record.restores else "",
        record.withdrawn or "",
        record.problem or "",
    ]
    return "; ".join(note for note in notes if note)


def _labels(config: Config) -> dict[int, list[str]]:
    """Returns the labels of each version; none where they cannot be read, which is for `evergreen run` to say."""
    found: dict[int, list[str]] = {}
    if config.publish.models_config is not None:
        with contextlib.suppress(EvergreenError):
            for label, version in sorted(labels.read(config.publish.models_config, config.name).items()):
                found.setdefault(version, []).append(label)
    return found


def _to_json(record: catalog.VersionRecord, config: Config, pointing: dict[int, list[str]]) -> dict[str, Any]:
    return {
        **dataclasses.asdict(record),
        "span_label": _label(record, config),
        "labels": pointing.get(record.version, []),
    }
