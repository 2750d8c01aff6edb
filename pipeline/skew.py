"""What `evergreen skew` compares: the requests in a server's log, and the rows that the live model was trained on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evergreen.components import span_records
from evergreen.components.errors import ConfigError
from evergreen.components.pusher import catalog, labels
from evergreen.pipeline.config import Config
from evergreen.pipeline.span_pattern import Pattern
from evergreen.pipeline.store import Store

_SPLITS = ("train", "exam")


@dataclass(frozen=True)
class Window:
    """What the live model learnt from.

    Attributes:
      version: the live version.
      spans: the spans of its window, as users write them.
      files: TFRecords of its training rows.
    """

    version: int
    spans: list[str]
    files: list[str]


def log_prefix(config: Config) -> str:
    """Finds where the server logs its requests, in `publish.models_config`.

    Args:
      config: the project's configuration.

    Raises:
      ConfigError: nothing says where.
    """
    step = (
        "Give the prefix by --log, or let the server log a share of its requests: in models.config, "
        "`logging_config { log_collector_config { filename_prefix: ... } sampling_config { sampling_rate: 0.01 } }`."
    )
    path = config.publish.models_config
    if path is None:
        raise ConfigError(
            "it is not known where the server logs its requests", "`publish.models_config` is not set", step
        )
    one = labels.model_config(labels.parse(labels.read_text(path), path), config.name, path)
    prefix = str(one.logging_config.log_collector_config.filename_prefix)
    if not prefix:
        raise ConfigError(
            f"the server does not log requests to `{config.name}`", f"{path} has no logging_config for it", step
        )
    return prefix


def live_window(config: Config, store: Store) -> Window:
    """Finds the training rows of the live model.

    Args:
      config: the project's configuration.
      store: its metadata store.

    Raises:
      ConfigError: nothing is live, or the workspace does not know what is, or its examples are gone.
    """
    manifest = catalog.live_manifest(config.publish.base_path)
    if manifest is None:
        raise ConfigError(
            "there is no live model to compare with",
            f"{config.publish.base_path} holds no version that Evergreen published",
            "`evergreen run` publishes the first one.",
        )
    run = next((run for run in store.runs() if run.id == manifest.run), None)
    if run is None:
        raise ConfigError(
            f"the window of the live version {manifest.version} is not known",
            f"this workspace has no run {manifest.run}",
            "Ask in the workspace that published it.",
        )
    window = [int(span) for span in json.loads(run.properties.get("window", "[]"))]
    decided = [record for record in store.span_records() if record.decided <= (run.ended or record.decided)]
    newest = span_records.newest_accepted(decided)
    files: list[str] = []
    for span in window:
        artifact = store.artifact(newest[span].examples_id) if span in newest else None
        if artifact is not None:
            # The newest span's exam rows are what the model was judged on, and not what it learnt.
            files += _files(artifact, _SPLITS if span != manifest.span else _SPLITS[:1])
    if not files:
        raise ConfigError(
            f"the rows that the live version {manifest.version} learnt from are gone",
            f"no Examples of its window are in {config.pipeline_root}",
            "Train again on these spans, or compare after the next version is live.",
        )
    pattern = Pattern(config.data.pattern)
    return Window(manifest.version, [pattern.label(span) for span in window], files)


def _files(artifact: Any, splits: tuple[str, ...]) -> list[str]:
    folders = [Path(artifact.uri) / f"Split-{split}" for split in splits]
    return [str(path) for folder in folders for path in sorted(folder.glob("[!._]*"))]
