"""What the scheduler reads of a project: its rules, its live version, and whether its files have changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

from evergreen.components.errors import ConfigError, EvergreenError
from evergreen.components.pusher import catalog
from evergreen.pipeline.config import Config
from evergreen.pipeline.console import moment
from evergreen.pipeline.schedule import times
from evergreen.pipeline.schedule.policy import Rules
from evergreen.pipeline.schedule.state import State
from evergreen.pipeline.settings import is_uri
from evergreen.pipeline.settings_schedule import ScheduleSettings
from evergreen.pipeline.span_pattern import Pattern


def settings_of(config: Config) -> ScheduleSettings:
    """Returns the section `schedule`.

    Raises:
      ConfigError: there is none.
    """
    if config.schedule is None:
        raise ConfigError(
            "there is no schedule",
            f"{config.file.name} has no section `schedule`",
            'add one, such as `schedule: {cron: "0 3 * * *"}`, or give --cron or --every',
        )
    return config.schedule


def rules(config: Config) -> Rules:
    """Returns what the configuration says about the schedule."""
    settings, pattern = settings_of(config), Pattern(config.data.pattern)

    def expected(scheduled: float) -> str | None:
        span = times.expected_span(pattern, scheduled, settings)
        return None if span is None else pattern.label(span)

    return Rules(settings, times.timetable(settings), expected)


def next_run(remembered: State, known: Rules) -> float | None:
    """Returns when a run is due next; None where none is, or the schedule is paused."""
    if known.timetable is None or remembered.cursor is None or remembered.paused is not None:
        return None
    return known.timetable.after(remembered.cursor)


def live_version(config: Config, remembered: State) -> tuple[int, float]:
    """Returns the live version and when it was published; zeros where there is none that says so.

    An object store can only be read by TensorFlow, which has no place in the scheduler: there it is the one that was
    published last.
    """
    if is_uri(config.publish.base_path):
        published = (ended for ended in reversed(remembered.ended) if ended.result == "published")
        last = next(published, None)
        return (last.version, last.ended) if last is not None else (0, 0.0)
    try:
        manifest = catalog.live_manifest(config.publish.base_path)
    except EvergreenError:
        return 0, 0.0
    when = moment(manifest.published) if manifest is not None else None
    return (manifest.version, when.timestamp()) if manifest is not None and when is not None else (0, 0.0)


def project_digest(config: Config) -> str:
    """Hashes the configuration file, and names, sizes and times of the project's modules and of the schema."""
    digest = hashlib.blake2b(digest_size=16)
    for path in (config.file, Path(config.schema_path), *sorted(config.project_dir.glob("*.py"))):
        try:
            status = path.stat()
            digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
        except OSError:
            digest.update(f"{path}\0gone\0".encode())
    return digest.hexdigest()
