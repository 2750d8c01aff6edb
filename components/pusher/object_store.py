"""Publishing into an object store: as `publish` and its neighbours do on a file system, with less to promise.

A server that looks while a version is written finds it without `saved_model.pb`, fails to load it and tries again; it
answers from the earlier one meanwhile. Nothing keeps two processes apart but the workspace's run lock, so one workspace
publishes into one base path. A version is made in a temporary folder first, which needs the space of one model.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from evergreen.components.errors import ConfigError, EvergreenError
from evergreen.components.pusher import catalog, checks, placing, versions, withdrawal
from evergreen.components.pusher.catalog import VersionRecord
from evergreen.components.pusher.manifest import MANIFEST_FILE, Manifest, utc_time
from evergreen.components.pusher.objects import ObjectStore, readable_errors
from evergreen.components.pusher.placing import Candidate
from evergreen.components.pusher.publish import Outcome
from evergreen.components.pusher.retention import staying
from evergreen.components.pusher.rollback import Restored, choose_restorable, restoring
from evergreen.components.pusher.versions import Hold
from evergreen.components.pusher.withdrawal import PREFIX, Withdrawn


def publish(
    uri: str,
    candidate: Candidate,
    *,
    keep: int,
    protected: Collection[int],
    champion_model_uri: str | None,
    examined_at: float | None,
    now: Callable[[], float],
) -> Outcome:
    """Publishes a model; see `publish.publish`."""
    store = ObjectStore(uri)
    with readable_errors(uri, "publish into"):
        _clean(store)
        live, known = store.live(), _manifests(store)
        found = checks.find_published(known, candidate)
        if found is not None:
            message, path = checks.published_already(found, live), store.entries(store.base)[found]
            return Outcome(found, path, False, found == live, message, _retain(store, keep, protected))
        for withdrawn in _withdrawn(store).values():
            checks.refuse_withdrawn(store.manifest(withdrawn.path), withdrawn, candidate)
        checks.refuse_held(uri, read_hold(uri))
        if champion_model_uri is not None:
            checks.refuse_overtaken(live, known.get(live or 0), champion_model_uri, examined_at)
        version = versions.next_version(now(), store.highest_ever())
        _put(store, version, candidate, now())
        _remove_lite_before(store, version, candidate)
        message, path = f"Published as version {version}.", f"{store.base}/{version}"
        return Outcome(version, path, True, True, message, _retain(store, keep, protected))


def roll_back(uri: str, to: int | None, *, register: Callable[[], str], now: Callable[[], float]) -> Restored:
    """Makes an earlier version's model live again and holds publishing; see `rollback.roll_back`."""
    store = ObjectStore(uri)
    with readable_errors(uri, "roll back in"), tempfile.TemporaryDirectory() as folder:
        _clean(store)
        target, live, manifest = choose_restorable(uri, to, store.live(), _manifests(store), list_versions(uri))
        version = versions.next_version(now(), store.highest_ever())
        model, tflite = Path(folder) / "model", Path(folder) / "lite" / versions.TFLITE_FILE
        store.download(store.entries(store.base)[target], model)
        lite = store.entries(store.lite).get(target)
        if lite is not None:
            store.download(lite, tflite.parent)
        found = tflite if tflite.is_file() else None
        candidate = restoring(model, found, target, live, manifest, version, register())
        if read_hold(uri) is None:  # an earlier one holds as well
            held = {"reason": candidate.hold_reason, "since": utc_time(now()), "pending": version}
            store.write(f"{store.base}/{versions.HOLD_FILE}", json.dumps(held).encode())
        _put(store, version, dataclasses.replace(candidate, hold_reason=""), now())
        _remove_lite_before(store, version, candidate)
    return Restored(version, f"{store.base}/{version}", target, live)


def withdraw(uri: str, version: int, reason: str, now: Callable[[], float]) -> str:
    """Takes a version out of a server's sight; see `publish.withdraw`.

    Returns:
      The URI below which its files are kept.
    """
    store = ObjectStore(uri)
    with readable_errors(uri, "withdraw a version from"):
        _clean(store)
        if version not in _withdrawn(store):
            if version not in store.entries(store.base):
                held = ", ".join(map(str, store.entries(store.base))) or "no version"
                raise ConfigError(
                    f"there is no version {version} to withdraw",
                    f"{uri} holds {held}",
                    "`evergreen versions` lists them.",
                )
            store.write_highest(max(version, store.highest_ever()))
            record = withdrawal.record_text(version, reason, utc_time(now()))
            store.write(f"{store.base}/{withdrawal.record_name(version)}", record.encode())
            _clean(store)
        return f"{store.base}/{PREFIX}{version}"


def recover(uri: str) -> list[str]:
    """Cleans up after processes that were killed; see `publish.recover`."""
    with readable_errors(uri, "clean up"):
        return _clean(ObjectStore(uri))


def live_manifest(uri: str) -> Manifest | None:
    """Reads the manifest of the live version; see `catalog.live_manifest`."""
    store = ObjectStore(uri)
    with readable_errors(uri, "read"):
        live = store.live()
        return None if live is None else store.manifest(store.entries(store.base)[live])


def version_manifest(version_uri: str) -> Manifest | None:
    """Reads the manifest of one version."""
    with readable_errors(version_uri, "read"):
        return ObjectStore(version_uri).manifest(version_uri.rstrip("/"))


def read_hold(uri: str) -> Hold | None:
    """Reads whether publishing is held; see `versions.read_hold`."""
    store = ObjectStore(uri)
    path = f"{store.base}/{versions.HOLD_FILE}"
    with readable_errors(uri, "read"):
        marker = store.json(path)
    return None if marker is None else Hold(str(marker.get("reason", "")), str(marker.get("since", "")), path)


def release(uri: str) -> Hold | None:
    """Lets publishing go on; see `hold.release`."""
    held = read_hold(uri)
    if held is not None:
        with readable_errors(uri, "release"):
            ObjectStore(uri).remove(str(held.path))
    return held


def list_versions(uri: str) -> list[VersionRecord]:
    """Lists what the base path holds; see `catalog.list_versions`."""
    store = ObjectStore(uri)
    with readable_errors(uri, "read"):
        live, lite, withdrawn = store.live(), store.entries(store.lite), _withdrawn(store)
        found = {
            number: _record(store, number, path, number == live, lite.get(number))
            for number, path in store.entries(store.base).items()
        }
        for number, gone in withdrawn.items():
            known = found.get(number) or _record(store, number, gone.path, False, None)
            found[number] = dataclasses.replace(
                known, live=False, withdrawn=gone.reason, withdrawn_since=gone.since, problem=None
            )
        return [found[number] for number in sorted(found, reverse=True)]


def _record(store: ObjectStore, version: int, path: str, live: bool, lite: str | None) -> VersionRecord:
    manifest, problem = None, None
    try:
        manifest = store.manifest(path)
        problem = None if manifest else catalog.FOREIGN
    except EvergreenError as error:
        problem = error.reason
    if not store.is_complete(path):
        problem = catalog.INCOMPLETE
    size = sum(count for name, count in store.files(path).items() if name != MANIFEST_FILE)
    tflite_bytes = store.files(lite).get(versions.TFLITE_FILE) if lite else None
    return catalog.to_record(version, path, live, size, tflite_bytes, manifest, problem)


def _manifests(store: ObjectStore) -> dict[int, Manifest]:
    found = {}
    for version, path in store.entries(store.base).items():
        with suppress(EvergreenError):
            manifest = store.manifest(path)
            if manifest is not None and store.is_complete(path):
                found[version] = manifest
    return found


def _withdrawn(store: ObjectStore) -> dict[int, Withdrawn[str]]:
    found = {}
    for name in store.names(store.base):
        version = withdrawal.recorded_version(name)
        if version is not None:
            record, path = f"{store.base}/{name}", f"{store.base}/{PREFIX}{version}"
            found[version] = withdrawal.as_recorded(version, store.json(record), path, record)
    return found


def _put(store: ObjectStore, version: int, candidate: Candidate, now: float) -> None:
    """Makes the version in a temporary folder, then writes every object of it, `saved_model.pb` last."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "model"
        base.mkdir()
        made = placing.put(base, version, candidate, now)
        graph = next(name for name in versions.SAVED_MODEL_FILES if (made / name).is_file())
        store.write_highest(version)
        if candidate.tflite is not None:
            made_lite = versions.lite_path(base) / str(version)
            store.upload(made_lite, f"{store.lite}/{version}", versions.TFLITE_FILE)
        store.upload(made, f"{store.base}/{version}", graph)


def _remove_lite_before(store: ObjectStore, version: int, candidate: Candidate) -> None:
    """Deletes the earlier TFLite versions where the new one has none: a phone and the server agree on what is live."""
    if candidate.tflite is None and candidate.withdraw_tflite:
        for number, path in store.entries(store.lite).items():
            if number < version:
                store.remove_version(path)


def _clean(store: ObjectStore) -> list[str]:
    """Carries out recorded withdrawals, and deletes our versions that somebody was writing or deleting."""
    done = []
    for version, withdrawn in _withdrawn(store).items():
        path = store.entries(store.base).get(version)
        if path is not None:
            if store.is_complete(path):
                store.copy(path, withdrawn.path)
            store.remove_version(path)
            done.append(f"Withdrew {path}: {withdrawn.reason or 'its record says so'}.")
    for path in store.entries(store.base).values():
        if not store.is_complete(path) and _is_ours(store, path):
            store.remove_version(path)
            done.append(f"Removed {path}, left by a push that was killed.")
    complete = [version for version, path in store.entries(store.base).items() if store.is_complete(path)]
    for version, path in store.entries(store.lite).items():
        if version not in complete and _is_ours(store, path):
            store.remove_version(path)
            done.append(f"Removed {path}, which has no SavedModel of the same version.")
    hold = f"{store.base}/{versions.HOLD_FILE}"
    pending = (store.json(hold) or {}).get("pending")
    if isinstance(pending, int) and pending not in complete and pending not in _withdrawn(store):
        store.remove(hold)
        done.append(f"Took the hold of a rollback back: its version {pending} never came.")
    return done


def _is_ours(store: ObjectStore, version_uri: str) -> bool:
    """Whether Evergreen was writing or deleting a version: the manifest comes first and goes last."""
    return store.read(f"{version_uri}/{MANIFEST_FILE}") is not None or not store.files(version_uri)


def _retain(store: ObjectStore, keep: int, protected: Collection[int]) -> tuple[int, ...]:
    entries, lite = store.entries(store.base), store.entries(store.lite)
    complete = [version for version, path in entries.items() if store.is_complete(path)]
    expired = versions.expired(_manifests(store), keep, staying(complete, lite, protected))
    for version in expired:
        store.remove_version(entries[version])
        if version in lite:
            store.remove_version(lite[version])
    withdrawn = _withdrawn(store)
    oldest = min(store.entries(store.base), default=0)
    beyond = versions.expired(withdrawn, keep)
    for version in withdrawn:
        if version in beyond or version < oldest:
            store.remove_version(withdrawn[version].path)
            store.remove(withdrawn[version].record)
    return tuple(expired)
