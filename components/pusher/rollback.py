"""Publishes an earlier version's model again, under a new, higher number, and holds publishing.

A server answers from the highest version, so going back means going forward: the files of the earlier version are
copied as they lie on disk, into a version whose manifest says which one it restores. The hold is written with it, or
tonight's run would undo the rollback.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from evergreen.components import atomic
from evergreen.components.errors import ConfigError, EvergreenError
from evergreen.components.pusher import catalog, versions, withdrawal
from evergreen.components.pusher.cleanup import clean, finish
from evergreen.components.pusher.locking import LOCK_SECONDS, locked
from evergreen.components.pusher.manifest import Manifest, read_manifest
from evergreen.components.pusher.placing import Candidate, put

_LIST_STEP = "`evergreen versions` lists them; name another one by --to."


@dataclass(frozen=True)
class Restored:
    """What a rollback did.

    Attributes:
      version: the new version, which is live now.
      path: its directory.
      restores: the version whose model it holds.
      was_live: the version that was live before.
      manifest: the new version's manifest.
      warnings: what went wrong after the commit and is left to the next push.
    """

    version: int
    path: Path
    restores: int
    was_live: int
    manifest: Manifest
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
    base = versions.local_path(base_path)
    if not base.is_dir():
        raise _nothing_live(base)
    with locked(base, lock_seconds, "roll back in"):
        clean(base)
        entries = versions.list_entries(base)
        live = versions.live_of(entries)
        if live is None:
            raise _nothing_live(base)
        manifests = catalog.manifests(entries)
        target = choose(manifests, live) if to is None else to
        if target is None:
            raise ConfigError(
                "there is no earlier version to go back to",
                f"live is version {live}, and {base} holds no complete version of another model before it",
                "A version that does not serve is taken out of sight by hand: docs/operations.md says how.",
            )
        manifest = _restorable(base, entries, target, live, manifests.get(live))
        version = versions.next_version(now(), versions.highest_ever(base))
        candidate = _candidate(base, entries[target], target, live, manifest, version, register())
        try:
            path = put(base, version, candidate, now())
        except BaseException:
            with suppress(OSError, EvergreenError):
                clean(base)
            raise
        warnings = finish(base)
        restored = read_manifest(path)
    assert restored is not None
    return Restored(version, path, target, live, restored, warnings)


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


def _nothing_live(base: Path) -> ConfigError:
    return ConfigError(
        "there is nothing to roll back",
        f"{base} holds no version that a server can load",
        "`evergreen run` publishes the first one.",
    )


def _restorable(
    base: Path, entries: Mapping[int, Path], target: int, live: int, live_manifest: Manifest | None
) -> Manifest:
    """Returns the manifest of the version to restore, or says why it cannot be."""
    headline = f"version {target} cannot be restored"
    if target == live:
        raise ConfigError(headline, "it is live", _LIST_STEP)
    withdrawn = withdrawal.list_withdrawn(base).get(target)
    if withdrawn:
        reason = f"it was withdrawn{f' at {withdrawn.since}' if withdrawn.since else ''}: {withdrawn.reason}"
        raise ConfigError(headline, reason, _LIST_STEP)
    if target not in entries:
        raise ConfigError(headline, f"{base} holds {', '.join(map(str, entries))}", _LIST_STEP)
    manifest = read_manifest(entries[target])
    if not versions.is_complete(entries[target]):
        raise ConfigError(headline, f"{entries[target]}: {catalog.INCOMPLETE}", _LIST_STEP)
    if manifest is None:
        step = "To serve it again, copy its directory to a higher number by hand: under another name first, then mv."
        raise ConfigError(headline, f"it was {catalog.FOREIGN}: nothing is known of its model", step)
    size = catalog.saved_model_bytes(entries[target])
    if size < manifest.bytes:
        reason = f"{entries[target]} has {size:,} bytes, its manifest says {manifest.bytes:,}: files are missing"
        raise ConfigError(headline, reason, _LIST_STEP)
    if live_manifest and same_model(manifest, live_manifest):
        raise ConfigError(headline, f"the live version {live} holds the same model", _LIST_STEP)
    return manifest


def _candidate(
    base: Path, path: Path, target: int, live: int, manifest: Manifest, version: int, pushed_by: str
) -> Candidate:
    """Describes the version on disk as the Trainer's model was described when it was published.

    Its TFLite model comes along, from under another name where a later version had it withdrawn. Where it has none,
    those of the other versions go, so that a phone and the server agree.
    """
    lite = versions.lite_path(base)
    places = (lite / str(target), lite / f"{withdrawal.PREFIX}{target}")
    files = [place / versions.TFLITE_FILE for place in places if (place / versions.TFLITE_FILE).is_file()]
    described = manifest.tflite or {}
    return Candidate(
        saved_model=path,
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
        tflite=files[0] if files else None,
        tflite_variant=str(described.get("variant", "")),
        tflite_metrics=described.get("metrics") or {},
        withdraw_tflite=not files,
        restores=target,
        hold_reason=f"A rollback from version {live}: version {version} restores version {target}.",
    )
