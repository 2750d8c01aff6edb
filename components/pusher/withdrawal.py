"""Takes versions out of a server's sight, whole ones and TFLite ones alone; the caller holds the base path's lock.

What is withdrawn stays beside the versions as `withdrawn-<version>`, which no reader takes for a version, until
retention deletes it.

A whole version goes because it did not serve. Its record, `withdrawn-<version>.json` with the reason, is written first:
from then on the version is to go, and whoever holds the lock next carries it out. The SavedModel goes before the TFLite
model, so that a SavedModel that can be seen has its pair.

TFLite versions alone go when a new version has none: a phone and the server agree on what is live. The push announces
that in a file before it commits and carries it out behind; what a kill leaves of it is completed by the next push, or
dropped where the version never came to be. For the same reason the pair of a version comes back when it is live again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from evergreen.components import atomic
from evergreen.components.errors import EvergreenError
from evergreen.components.pusher import versions
from evergreen.components.pusher.manifest import Manifest, read_manifest

PREFIX = "withdrawn-"
_RECORD_SUFFIX = ".json"
_ANNOUNCEMENT = ".withdraw"
_Place = TypeVar("_Place", Path, str)


@dataclass(frozen=True)
class Withdrawn(Generic[_Place]):
    """A version that was taken out of sight; places are paths, or URIs on an object store.

    Attributes:
      version: its number, which is never used again.
      path: where its files lie now; they may be gone.
      reason: why, in words.
      since: ISO-8601 time in UTC, or empty.
      record: the file that says so.
    """

    version: int
    path: _Place
    reason: str
    since: str
    record: _Place


def record_name(version: int) -> str:
    """Returns the name of the file that says that a version is withdrawn."""
    return f"{PREFIX}{version}{_RECORD_SUFFIX}"


def recorded_version(name: str) -> int | None:
    """Returns the version whose record has this name; None for any other name."""
    if not (name.startswith(PREFIX) and name.endswith(_RECORD_SUFFIX)):
        return None
    return versions.parse_version(name.removeprefix(PREFIX).removesuffix(_RECORD_SUFFIX))


def record_text(version: int, reason: str, since: str) -> str:
    """Returns what a record says; see `record`."""
    return json.dumps({"version": version, "reason": reason, "since": since}, indent=2) + "\n"


def as_recorded(version: int, values: Any, path: _Place, record: _Place) -> Withdrawn[_Place]:
    """Makes a withdrawn version of its record.

    Args:
      version: its number.
      values: what the record says; what is no JSON object says nothing, and counts all the same.
      path: where its files lie.
      record: the record.
    """
    known = values if isinstance(values, dict) else {}
    return Withdrawn(version, path, str(known.get("reason", "")), str(known.get("since", "")), record)


def list_withdrawn(base: Path) -> dict[int, Withdrawn[Path]]:
    """Lists the versions that were withdrawn and not yet deleted; takes no lock.

    Args:
      base: the base path of the SavedModels.

    Returns:
      `{version: what is known of it}` in ascending order. A record that cannot be read as JSON counts all the same.
    """
    try:
        names = os.listdir(base)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    found = {}
    for name in names:
        version = recorded_version(name)
        if version is None:
            continue
        try:
            values = json.loads((base / name).read_text(encoding="utf-8", errors="replace"))
        except FileNotFoundError:
            continue
        except ValueError:
            values = None
        found[version] = as_recorded(version, values, base / f"{PREFIX}{version}", base / name)
    return dict(sorted(found.items()))


def withdrawn_manifest(withdrawn: Withdrawn[Path]) -> Manifest | None:
    """Reads the manifest of a withdrawn version; None where there is none or it is broken."""
    try:
        return read_manifest(withdrawn.path)
    except EvergreenError:
        return None


def record(base: Path, version: int, reason: str, since: str) -> None:
    """Says that a version is to go; `complete` carries it out.

    Args:
      base: the base path of the SavedModels.
      version: the version, which is there.
      reason: why, in words.
      since: ISO-8601 time in UTC.
    """
    # A number that a server may have seen is never used again, that of a version that somebody else made included.
    versions.write_highest(base, max(version, versions.read_highest(base) or 0))
    atomic.write_file(base / record_name(version), record_text(version, reason, since))


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
    """Carries out what was recorded or announced, and brings the live version's TFLite pair back.

    Args:
      base: the base path of the SavedModels.

    Returns:
      One sentence for each version that was withdrawn or came back.
    """
    return [*_complete_versions(base), *_complete_announced(base), *_bring_back(base)]


def _complete_versions(base: Path) -> list[str]:
    done = []
    lite = versions.lite_path(base)
    for version, withdrawn in list_withdrawn(base).items():
        for parent in (base, lite):
            path = versions.list_entries(parent).get(version)
            if path is None:
                continue
            aside = parent / f"{PREFIX}{version}"
            if os.path.lexists(aside):
                atomic.remove(path)  # its files were kept already
            else:
                atomic.commit(path, aside)
            done.append(f"Withdrew {path}: {withdrawn.reason or 'its record says so'}.")
    return done


def _complete_announced(base: Path) -> list[str]:
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


def _bring_back(base: Path) -> list[str]:
    """A newer version without a TFLite model had taken the live one's away, and has gone itself."""
    live = versions.live_version(base)
    lite = versions.lite_path(base)
    aside = lite / f"{PREFIX}{live}"
    if live is None or not aside.is_dir() or live in versions.list_entries(lite):
        return []
    atomic.commit(aside, lite / str(live))
    return [f"Brought {lite / str(live)} back: version {live} is live again."]


def forget(base: Path, kept: Collection[int], keep: int) -> None:
    """Deletes withdrawn versions: beyond the newest `keep`, and those that are older than everything that is kept.

    Args:
      base: the base path of the SavedModels.
      kept: the versions that it holds.
      keep: how many withdrawn ones stay for inspection.
    """
    withdrawn = list_withdrawn(base)
    oldest = min(kept, default=0)
    expired = versions.expired(withdrawn, keep, protected=())
    for version in (*expired, *(v for v in withdrawn if v < oldest and v not in expired)):
        # The record goes last: without it, files of a withdrawn version would belong to nobody.
        for path in (withdrawn[version].path, versions.lite_path(base) / f"{PREFIX}{version}"):
            if path.is_dir():
                atomic.remove(path)
        os.unlink(withdrawn[version].record)
        atomic.sync_directory(base)
    lite = versions.lite_path(base)
    if not lite.is_dir():
        return
    present = {*kept, *list_withdrawn(base)}
    for path in sorted(lite.glob(f"{PREFIX}*")):
        if versions.parse_version(path.name.removeprefix(PREFIX)) not in present:
            atomic.remove(path)
