"""Takes TFLite versions out of sight when a new version has none: a phone and the server agree on what is live.

A withdrawn version stays beside the others as `withdrawn-<version>`, which no reader takes for a version, until
retention deletes its SavedModel. The push announces the withdrawal in a file before it commits and carries it out
behind; what a kill leaves of it is completed by the next push, or dropped where the version never came to be.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from evergreen.components import atomic
from evergreen.components.pusher import versions

PREFIX = "withdrawn-"
_ANNOUNCEMENT = ".withdraw"


def announce(base: Path, version: int) -> None:
    """Says that every TFLite version below a new version is to go.

    Args:
      base: the base path of the SavedModels.
      version: the new version's number, which is not committed yet.
    """
    lite = versions.lite_path(base)
    if versions.list_entries(lite):
        atomic.write_file(lite / _ANNOUNCEMENT, str(version))


def complete(base: Path) -> list[str]:
    """Carries out what was announced, where its version is there.

    Args:
      base: the base path of the SavedModels.

    Returns:
      One sentence for each version that was withdrawn.
    """
    lite = versions.lite_path(base)
    announcement = lite / _ANNOUNCEMENT
    if not announcement.is_file():
        return []
    version = versions.parse_version(announcement.read_text(encoding="utf-8"))
    done = []
    if version is not None and version in versions.list_entries(base):
        for number, path in versions.list_entries(lite).items():
            if number < version:
                atomic.commit(path, lite / f"{PREFIX}{number}")
                done.append(f"Withdrew {path}: version {version} has no TFLite model.")
    os.unlink(announcement)
    atomic.sync_directory(lite)
    return done


def forget(base: Path, kept: Collection[int]) -> None:
    """Deletes withdrawn versions whose SavedModel is gone.

    Args:
      base: the base path of the SavedModels.
      kept: the versions that it holds.
    """
    lite = versions.lite_path(base)
    if not lite.is_dir():
        return
    for path in sorted(lite.glob(f"{PREFIX}*")):
        if versions.parse_version(path.name.removeprefix(PREFIX)) not in kept:
            atomic.remove(path)
