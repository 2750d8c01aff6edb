"""Publishes one model as a new version, whole or not at all, and withdraws one that did not serve.

Under the lock of the base path: sweep leftovers, look whether this very model is published already, check the champion
once more, stage both copies beside the versions, remember the number, rename the TFLite version, rename the SavedModel,
delete what retention no longer keeps. The SavedModel's rename is the commit: before it nothing has happened, after it
the version is published whatever comes next.

What a kill leaves is put right by `cleanup`, which every push, withdrawal and rollback does first.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from evergreen.components import atomic
from evergreen.components.errors import ConfigError
from evergreen.components.pusher import checks, versions, withdrawal
from evergreen.components.pusher.catalog import manifests
from evergreen.components.pusher.cleanup import clean, finish, undone_on_failure
from evergreen.components.pusher.locking import LOCK_SECONDS, locked
from evergreen.components.pusher.manifest import utc_time
from evergreen.components.pusher.placing import Candidate, check_source, put
from evergreen.components.pusher.retention import retain


@dataclass(frozen=True)
class Outcome:
    """What a push did.

    Attributes:
      version: the version that holds the model.
      path: its directory, or its URI.
      published: False where an earlier push had published the same model.
      live: whether it is the live version.
      message: one sentence for the user.
      removed: versions that retention deleted.
      warnings: what went wrong after the commit and is left to the next push.
    """

    version: int
    path: atomic.StrPath
    published: bool
    live: bool
    message: str
    removed: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()


def publish(
    base_path: atomic.StrPath,
    candidate: Candidate,
    *,
    keep: int,
    protected: Collection[int] = (),
    announce: Callable[[int], None] | None = None,
    champion_model_uri: str | None = None,
    examined_at: float | None = None,
    now: Callable[[], float] = time.time,
    lock_seconds: float = LOCK_SECONDS,
) -> Outcome:
    """Publishes a model into `<base_path>/<version>`, and its TFLite model into `<base_path>_lite/<version>`.

    Args:
      base_path: TensorFlow Serving's base path; created if it is missing.
      candidate: the model.
      keep: how many of the newest versions stay on disk.
      protected: versions that stay whatever their age, such as those that a label points to.
      announce: called under the lock with the new version's number, before anything of it can be seen.
      champion_model_uri: URI of the model that the candidate was compared with; '' if ML Metadata knew none; None not
        to check.
      examined_at: when the candidate was examined, seconds since 1970; None if unknown. Without a champion it is what
        tells a version that has been published since from one that ML Metadata has never known.
      now: the clock, seconds since 1970.
      lock_seconds: how long to wait for another push into the same base path.

    Returns:
      The version; an earlier one where the same Model artifact had been published before, live or not.

    Raises:
      ConfigError: `keep` or the base path is wrong, or the model has no `saved_model.pb`.
      ModelRejected: another model went live since the comparison, or publishing is held.
      LockHeld: another push went on for longer than `lock_seconds`.
      EvergreenError: the file system refused; nothing of the new version can be seen.
    """
    versions.expired((), keep)  # refuses a wrong `keep` before anything is written
    check_source(candidate)
    if versions.is_uri(base_path):
        from evergreen.components.pusher import object_store

        return object_store.publish(
            os.fspath(base_path),
            candidate,
            keep=keep,
            protected=protected,
            champion_model_uri=champion_model_uri,
            examined_at=examined_at,
            now=now,
        )
    base = versions.local_path(base_path)
    with locked(base, lock_seconds):
        clean(base)
        entries = versions.list_entries(base)
        live, known = versions.live_of(entries), manifests(entries)
        found = checks.find_published(known, candidate)
        if found is not None:
            # The push that published it may have been killed before this.
            removed, warnings = retain(base, keep, protected)
            message = checks.published_already(found, live)
            return Outcome(found, entries[found], False, found == live, message, removed, warnings)
        for withdrawn in withdrawal.list_withdrawn(base).values():
            checks.refuse_withdrawn(withdrawal.withdrawn_manifest(withdrawn), withdrawn, candidate)
        checks.refuse_held(base, versions.read_hold(base))
        if champion_model_uri is not None:
            checks.refuse_overtaken(live, known.get(live or 0), champion_model_uri, examined_at)
        version = versions.next_version(now(), versions.highest_ever(base))
        with undone_on_failure(base):
            if announce is not None:
                announce(version)
            path = put(base, version, candidate, now())
        unsettled = finish(base)
        removed, warnings = retain(base, keep, protected)
    message = f"Published as version {version}."
    return Outcome(version, path, True, True, message, removed, (*unsettled, *warnings))


def withdraw(
    base_path: atomic.StrPath,
    version: int,
    reason: str,
    *,
    now: Callable[[], float] = time.time,
    lock_seconds: float = LOCK_SECONDS,
) -> atomic.StrPath:
    """Takes a published version and its TFLite pair out of a server's sight, for good.

    The files stay beside the versions for inspection until retention deletes them. The version before it is live then,
    with its TFLite pair. A kill at any moment leaves it undone or to be completed by whoever holds the lock next.

    Args:
      base_path: the base path.
      version: the version; one that was withdrawn before stays withdrawn, for the reason given then.
      reason: why, in words.
      now: the clock, seconds since 1970.
      lock_seconds: how long to wait for a push that goes on.

    Returns:
      Where its files lie now.

    Raises:
      ConfigError: there is no such version.
      LockHeld: a push went on for longer than `lock_seconds`.
      EvergreenError: the file system refused.
    """
    if versions.is_uri(base_path):
        from evergreen.components.pusher import object_store

        return object_store.withdraw(os.fspath(base_path), version, reason, now)
    base = versions.local_path(base_path)
    missing = ConfigError(
        f"there is no version {version} to withdraw",
        f"{base} holds {', '.join(map(str, versions.list_entries(base))) or 'no version'}",
        "`evergreen versions` lists them.",
    )
    if not base.is_dir():
        raise missing
    with locked(base, lock_seconds, "withdraw a version from"):
        clean(base)
        if version not in withdrawal.list_withdrawn(base):
            path = versions.list_entries(base).get(version)
            if path is None or not path.is_dir():
                raise missing
            withdrawal.record(base, version, reason, utc_time(now()))
            withdrawal.complete(base)
        return withdrawal.list_withdrawn(base)[version].path


def recover(base_path: atomic.StrPath, lock_seconds: float = LOCK_SECONDS) -> list[str]:
    """Cleans up after pushes that were killed. Every push does so first; this is for doing it sooner.

    Args:
      base_path: the base path; a missing one needs nothing.
      lock_seconds: how long to wait for a push that goes on.

    Returns:
      One sentence for each thing that was removed.

    Raises:
      LockHeld: a push went on for longer than `lock_seconds`.
      EvergreenError: the file system refused.
    """
    if versions.is_uri(base_path):
        from evergreen.components.pusher import object_store

        return object_store.recover(os.fspath(base_path))
    base = versions.local_path(base_path)
    if not base.is_dir():
        return []
    with locked(base, lock_seconds):
        return clean(base)
