"""Version numbers: which a base path holds, which one is live, which comes next and which may go.

Reads a base path as TensorFlow Serving reads it. Imports no TensorFlow; changes nothing on disk but the file that
remembers the highest version ever used.

A model has two base paths: `<base_path>` with SavedModels and `<base_path>_lite` with the TFLite models of the same
version numbers. Beside the versions lie files whose names are no numbers, which a server passes over:
  .highest-version   the highest version number ever used, because retention and withdrawal forget
  .hold.json         publishing is held: `{"reason": ..., "since": ...}`
  .publish.lock      held by the process that publishes
  .watch.json        a version was published and is being watched
  withdrawn-*        versions that were taken out of sight, and why
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evergreen.components import atomic
from evergreen.components.errors import ConfigError, EvergreenError

MAX_VERSION = 2**63 - 1
SAVED_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt")
TFLITE_FILE = "model.tflite"
WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
LOCK_FILE = ".publish.lock"
HOLD_FILE = ".hold.json"
_HIGHEST_FILE = ".highest-version"
# What TensorFlow Serving's parser of int64 takes: surrounding blanks, a sign and leading zeros, ASCII digits only.
_NUMBER = re.compile(r"\s*[+-]?[0-9]+\s*", re.ASCII)


@dataclass(frozen=True)
class Hold:
    """Why nothing may be published for now.

    Attributes:
      reason: in words, for the user.
      since: ISO-8601 time in UTC, or empty.
      path: the file that holds publishing.
    """

    reason: str
    since: str
    path: atomic.StrPath


def is_uri(base_path: atomic.StrPath) -> bool:
    """Tells `gs://bucket/flights` and the like from a path of a file system."""
    return "://" in os.fspath(base_path)


def local_path(base_path: atomic.StrPath) -> Path:
    """Makes a base path absolute.

    Args:
      base_path: a local path; a relative one is meant from the current folder.

    Returns:
      The absolute path, without a trailing slash.

    Raises:
      ConfigError: it is a URI.
    """
    text = os.fspath(base_path)
    if not text or is_uri(text):
        raise ConfigError(
            "the base path must be a local path",
            f"received publish.base_path={text!r}, expected a path on a local or mounted file system, where one step "
            "renames a directory",
            "This is not done on an object store: docs/operations.md says what is.",
        )
    return Path(os.path.abspath(text))


def lite_path(base_path: atomic.StrPath) -> Path:
    """Returns the base path of the TFLite models that pair with `base_path`."""
    base = local_path(base_path)
    return base.with_name(base.name + "_lite")


def parse_version(name: str) -> int | None:
    """Reads a directory's name as TensorFlow Serving does.

    Args:
      name: the child's name.

    Returns:
      The version, or None where the server skips the name.
    """
    if not _NUMBER.fullmatch(name):
        return None
    number = int(name)
    return number if -MAX_VERSION - 1 <= number <= MAX_VERSION else None


def list_entries(base_path: atomic.StrPath) -> dict[int, Path]:
    """Lists what TensorFlow Serving takes for versions, complete or not, files included.

    Args:
      base_path: the base path; a missing one holds nothing.

    Returns:
      `{version: path}` in ascending order. Of two names of one number (`7` and `007`) the later in byte order counts.
    """
    try:
        names = sorted(os.listdir(base_path))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    found = {}
    for name in names:
        version = parse_version(name)
        if version is not None:
            found[version] = Path(base_path) / name
    return dict(sorted(found.items()))


def is_complete(version_path: Path) -> bool:
    """Says whether a version is a SavedModel that a server can load.

    Our own versions appear by one rename and are complete or absent; of others the graph file is the sign.
    """
    return any((version_path / name).is_file() for name in SAVED_MODEL_FILES)


def live_of(entries: Mapping[int, Path]) -> int | None:
    """Returns which of the listed versions a server with its default policy answers from.

    Args:
      entries: what `list_entries` returned.

    Returns:
      The highest complete version, or None.
    """
    return max((version for version, path in entries.items() if is_complete(path)), default=None)


def live_version(base_path: atomic.StrPath) -> int | None:
    """Returns the live version of a base path, or None."""
    return live_of(list_entries(base_path))


def read_highest(base_path: atomic.StrPath) -> int | None:
    """Reads the highest version number ever used in a base path.

    Args:
      base_path: the base path.

    Returns:
      The number, or None where Evergreen has never published.

    Raises:
      EvergreenError: the file that remembers it holds something else.
    """
    path = Path(base_path) / _HIGHEST_FILE
    try:
        text = path.read_text(encoding="utf-8", errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not text.isascii() or not text.isdigit():
        raise EvergreenError(
            "the highest version ever used cannot be read",
            f"received {text[:60]!r} in {path}, expected a whole number",
            "Write the highest version number that was ever served from this base path into the file.",
        )
    return int(text)


def write_highest(base_path: atomic.StrPath, version: int) -> None:
    """Remembers a version number as used, durably; call it before the version can be seen.

    Args:
      base_path: the base path.
      version: the number.

    Raises:
      OSError: the file cannot be written.
    """
    atomic.write_file(Path(base_path) / _HIGHEST_FILE, f"{version}\n")


def highest_ever(base_path: atomic.StrPath) -> int:
    """Returns the highest number that was used or lies there now, in either base path; 0 where none was.

    Raises:
      EvergreenError: the file that remembers it cannot be read.
    """
    present = [*list_entries(base_path), *list_entries(lite_path(base_path))]
    return max([read_highest(base_path) or 0, 0, *present])


def next_version(now: float, highest: int) -> int:
    """Numbers the next version: TFX's unix seconds, made monotonic.

    Args:
      now: seconds since 1970.
      highest: the highest number ever used, 0 for none.

    Returns:
      `max(now, highest + 1)`; a clock that was set back makes no older version.

    Raises:
      EvergreenError: no int64 is left above `highest`.
    """
    version = max(int(now), highest + 1)
    if version > MAX_VERSION:
        raise EvergreenError(
            "no version number is left",
            f"version {highest} is in use, and TensorFlow Serving counts to {MAX_VERSION}",
            "Remove that directory if it is no version, and correct the file " + _HIGHEST_FILE + " in the base path.",
        )
    return version


def expired(versions: Iterable[int], keep: int, protected: Collection[int] = ()) -> list[int]:
    """Plans retention.

    Args:
      versions: the versions that retention may touch.
      keep: how many of the newest stay, at least 1.
      protected: versions that stay whatever their age, such as the live one.

    Returns:
      The versions to delete, oldest first.

    Raises:
      ConfigError: `keep` is less than 1.
    """
    if keep < 1:
        raise ConfigError(
            "publish.keep must be at least 1",
            f"received publish.keep={keep}",
            "Set publish.keep to the number of versions that stay on disk, the live one included.",
        )
    newest_first = sorted(versions, reverse=True)
    return sorted(version for version in newest_first[keep:] if version not in protected)


def lone_lite_versions(base_path: atomic.StrPath) -> list[int]:
    """Lists TFLite versions without a SavedModel of the same number, in ascending order."""
    saved_models = list_entries(base_path)
    return [version for version in list_entries(lite_path(base_path)) if version not in saved_models]


def read_hold(base_path: atomic.StrPath) -> Hold | None:
    """Reads whether publishing is held, as a rollback does until a person releases it.

    Args:
      base_path: the base path.

    Returns:
      The hold, or None. A marker that cannot be read as JSON holds all the same.
    """
    if is_uri(base_path):
        from evergreen.components.pusher import object_store

        return object_store.read_hold(os.fspath(base_path))
    marker = read_hold_marker(base_path)
    if marker is None:
        return None
    return Hold(str(marker.get("reason", "")), str(marker.get("since", "")), Path(base_path) / HOLD_FILE)


def read_hold_marker(base_path: atomic.StrPath) -> dict[str, Any] | None:
    """Reads everything that the file of a hold says, for `hold`; None where there is none."""
    path = Path(base_path) / HOLD_FILE
    try:
        marker = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        return {}
    return marker if isinstance(marker, dict) else {}
