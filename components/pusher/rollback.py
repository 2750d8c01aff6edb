"""Publishes an earlier version's model again, under a new, higher number, and holds publishing.

A server answers from the highest version, so going back means going forward: the files of the earlier version are
copied as they lie on disk, into a version whose manifest says which one it restores. The hold is written with it, or
tonight's run would undo the rollback.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evergreen.components import atomic
from evergreen.components.errors import ConfigError
from evergreen.components.pusher import catalog, versions, withdrawal
from evergreen.components.pusher.catalog import VersionRecord
from evergreen.components.pusher.cleanup import clean, finish, undone_on_failure
from evergreen.components.pusher.locking import LOCK_SECONDS, locked
from evergreen.components.pusher.manifest import Manifest
from evergreen.components.pusher.placing import Candidate, put

_LIST_STEP = "`evergreen versions` lists them; name another one by --to."


@dataclass(frozen=True)
class Restored:
    """What a rollback did.

    Attributes:
      version: the new version, which is live now.
      path: its directory, or its URI.
      restores: the version whose model it holds.
      was_live: the version that was live before.
      warnings: what went wrong after the commit and is left to the next push.
    """

    version: int
    path: atomic.StrPath
    restores: int
    was_live: int
    warnings: tuple[str, ...] = ()


def roll_back(
    base_path: atomic.StrPath,
    to: int | None = None,
    *,
    register: Callable[[], str] = str,
    now: Callable[[], float] = time.time,
    lock_seconds: float = LOCK_SECONDS,
) -> Restored:
    """Makes an earlier version's model live again and holds publishing.

    Args:
      base_path: the base path.
      to: the version to restore; None for the one before the model that is live.
      register: called when all is checked and nothing is written yet; returns the id of the rollback's execution in ML
        Metadata for the manifest, or '' where there is none.
      now: the clock, seconds since 1970.
      lock_seconds: how long to wait for a push that goes on.

    Returns:
      The new version.

    Raises:
      ConfigError: there is no version to go back to, or `to` cannot be restored.
      LockHeld: a push went on for longer than `lock_seconds`.
      EvergreenError: the file system refused; nothing of the new version can be seen.
    """
    if versions.is_uri(base_path):
        from evergreen.components.pusher import object_store

        return object_store.roll_back(os.fspath(base_path), to, register=register, now=now)
    base = versions.local_path(base_path)
    if not base.is_dir():
        raise nothing_live(base)
    with locked(base, lock_seconds, "roll back in"):
        clean(base)
        entries = versions.list_entries(base)
        target, live, manifest = choose_restorable(
            base, to, versions.live_of(entries), catalog.manifests(entries), catalog.list_versions(base)
        )
        version = versions.next_version(now(), versions.highest_ever(base))
        tflite = _tflite_file(base, target)
        candidate = restoring(entries[target], tflite, target, live, manifest, version, register())
        with undone_on_failure(base):
            path = put(base, version, candidate, now())
        warnings = finish(base)
    return Restored(version, path, target, live, warnings)


def choose_restorable(
    base: atomic.StrPath,
    to: int | None,
    live: int | None,
    manifests: Mapping[int, Manifest],
    records: Sequence[VersionRecord],
) -> tuple[int, int, Manifest]:
    """Finds what a rollback goes back to, or says why it cannot.

    Args:
      base: the base path, for the words.
      to: the version that was asked for; None for the one before the live model.
      live: the live version.
      manifests: of the complete versions that Evergreen published, by version.
      records: everything that the base path holds.

    Returns:
      The version to restore, the live one, and the manifest of the first.

    Raises:
      ConfigError: there is none, or `to` cannot be restored.
    """
    if live is None:
        raise nothing_live(base)
    target = choose(manifests, live) if to is None else to
    if target is None:
        raise ConfigError(
            "there is no earlier version to go back to",
            f"live is version {live}, and {base} holds no complete version of another model before it",
            "A version that does not serve is taken out of sight by hand: docs/operations.md says how.",
        )
    record = next((record for record in records if record.version == target), None)
    why_not, step = _why_not(base, target, live, manifests, record, records)
    if why_not:
        raise ConfigError(f"version {target} cannot be restored", why_not, step)
    return target, live, manifests[target]


def choose(manifests: Mapping[int, Manifest], live: int) -> int | None:
    """Chooses the version before the model that is live.

    Where the live version is itself a rollback's, that is the one before the version that it restores: whoever goes
    back twice does not want what the first rollback went away from.

    Args:
      manifests: of the complete versions that Evergreen published, by version.
      live: the live version.

    Returns:
      The version; None where there is none.
    """
    origin = live
    while origin in manifests and manifests[origin].restores is not None:
        origin = manifests[origin].restores or 0
    now_live = manifests.get(live)
    earlier = [
        version
        for version, manifest in manifests.items()
        if version < origin and not (now_live and same_model(manifest, now_live))
    ]
    return max(earlier, default=None)


def same_model(one: Manifest, other: Manifest) -> bool:
    """Says whether two versions hold the same Model artifact."""
    return one.carries(other.model_artifact_id, other.model_uri, other.model_created)


def nothing_live(base: atomic.StrPath) -> ConfigError:
    """Returns the error of a base path that holds no version that a server can load."""
    return ConfigError(
        "there is nothing to roll back",
        f"{base} holds no version that a server can load",
        "`evergreen run` publishes the first one.",
    )


def _why_not(
    base: atomic.StrPath,
    target: int,
    live: int,
    manifests: Mapping[int, Manifest],
    record: VersionRecord | None,
    records: Sequence[VersionRecord],
) -> tuple[str, str]:
    """Says why a version cannot be restored, and what to do; empty where it can."""
    if target == live:
        return "it is live", _LIST_STEP
    if record is None:
        held = (str(known.version) for known in reversed(records) if known.withdrawn is None)
        return f"{base} holds {', '.join(held)}", _LIST_STEP
    if record.withdrawn is not None:
        since = f" at {record.withdrawn_since}" if record.withdrawn_since else ""
        return f"it was withdrawn{since}: {record.withdrawn}", _LIST_STEP
    if record.problem == catalog.FOREIGN:
        step = "To serve it again, copy its directory to a higher number by hand: under another name first, then mv."
        return f"it was {catalog.FOREIGN}: nothing is known of its model", step
    if record.problem is not None:
        return f"{record.path}: {record.problem}", _LIST_STEP
    expected = manifests[target].bytes
    if record.bytes < expected:
        return (
            f"{record.path} has {record.bytes:,} bytes, its manifest says {expected:,}: files are missing",
            _LIST_STEP,
        )
    if live in manifests and same_model(manifests[target], manifests[live]):
        return f"the live version {live} holds the same model", _LIST_STEP
    return "", ""


def _tflite_file(base: Path, version: int) -> Path | None:
    """Finds a version's TFLite model, under another name where a later version had it withdrawn."""
    lite = versions.lite_path(base)
    places = (lite / str(version), lite / f"{withdrawal.PREFIX}{version}")
    return next((place / versions.TFLITE_FILE for place in places if (place / versions.TFLITE_FILE).is_file()), None)


def restoring(
    saved_model: Path, tflite: Path | None, target: int, live: int, manifest: Manifest, version: int, pushed_by: str
) -> Candidate:
    """Describes a version's files as the Trainer's model was described when it was published.

    Where it has no TFLite model, those of the other versions go, so that a phone and the server agree.

    Args:
      saved_model: the version's files.
      tflite: its TFLite model; None where it has none.
      target: its number.
      live: the version that is live now.
      manifest: its manifest.
      version: the number under which it is published again.
      pushed_by: id of the rollback's execution.

    Returns:
      What to publish.
    """
    described = manifest.tflite or {}
    return Candidate(
        saved_model=saved_model,
        model_artifact_id=manifest.model_artifact_id,
        model_uri=manifest.model_uri,
        name=manifest.name,
        run=manifest.run,
        span=manifest.span,
        span_version=manifest.span_version,
        model_created=manifest.model_created,
        pushed_by=pushed_by,
        metrics=manifest.metrics,
        champion_on_span=manifest.champion_on_span,
        tflite=tflite,
        tflite_variant=str(described.get("variant", "")),
        tflite_metrics=described.get("metrics") or {},
        withdraw_tflite=tflite is None,
        restores=target,
        hold_reason=f"A rollback from version {live}: version {version} restores version {target}.",
    )
