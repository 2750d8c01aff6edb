"""Holds publishing and releases it; the caller holds the base path's lock. `versions.read_hold` reads the file.

A rollback holds publishing in the same step as it shows its version: the hold is written before the commit, with the
version's number as `pending`. Whoever holds the lock next settles it: where the version came, the hold stays; where it
did not, what was there before comes back.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from evergreen.components import atomic
from evergreen.components.pusher import versions, withdrawal
from evergreen.components.pusher.locking import LOCK_SECONDS, locked


def prepare(base: Path, version: int, reason: str, since: str) -> None:
    """Holds publishing for a version that is about to be shown.

    Args:
      base: the base path of the SavedModels.
      version: the version's number.
      reason: why, in words.
      since: ISO-8601 time in UTC.
    """
    held = versions.read_hold(base)
    before = None if held is None else {"reason": held.reason, "since": held.since}
    _write(base, {"reason": reason, "since": since, "pending": version, "before": before})


def settle(base: Path) -> list[str]:
    """Makes a prepared hold final where its version came, and takes it back where it did not.

    Args:
      base: the base path of the SavedModels.

    Returns:
      A sentence where a hold was taken back.
    """
    marker = versions.read_hold_marker(base)
    pending = None if marker is None else marker.get("pending")
    if marker is None or not isinstance(pending, int):
        return []
    if pending in versions.list_entries(base) or pending in withdrawal.list_withdrawn(base):
        _write(base, {"reason": marker.get("reason", ""), "since": marker.get("since", "")})
        return []
    if isinstance(marker.get("before"), dict):
        _write(base, marker["before"])
    else:
        _remove(base)
    return [f"Took the hold of a rollback back: its version {pending} never came."]


def release(base_path: atomic.StrPath, lock_seconds: float = LOCK_SECONDS) -> versions.Hold | None:
    """Lets publishing go on.

    Args:
      base_path: the base path.
      lock_seconds: how long to wait for a push or a rollback that goes on.

    Returns:
      What held it; None where nothing did.

    Raises:
      LockHeld: a push went on for longer than `lock_seconds`.
      EvergreenError: the file system refused.
    """
    if versions.is_uri(base_path):
        from evergreen.components.pusher import object_store

        return object_store.release(os.fspath(base_path))
    base = versions.local_path(base_path)
    if versions.read_hold(base) is None:
        return None
    with locked(base, lock_seconds, "release"):
        settle(base)
        held = versions.read_hold(base)
        if held is not None:
            _remove(base)
        return held


def _write(base: Path, marker: dict[str, Any]) -> None:
    atomic.write_file(base / versions.HOLD_FILE, json.dumps(marker, indent=2) + "\n")


def _remove(base: Path) -> None:
    os.unlink(base / versions.HOLD_FILE)
    atomic.sync_directory(base)
