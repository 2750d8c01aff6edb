"""Publishes one model as a new version, whole or not at all, and cleans up after pushes that were killed.

Under the lock of the base path: sweep leftovers, look whether this very model is published already, check the champion
once more, stage both copies beside the versions, remember the number, rename the TFLite version, rename the SavedModel,
delete what retention no longer keeps. The SavedModel's rename is the commit: before it nothing has happened, after it
the version is published whatever comes next.

A kill between the two renames leaves a TFLite version without its SavedModel. Nobody was told of it, so recovery
removes it; the same rule finishes a deletion that was killed half-way, since retention deletes the SavedModel first.
"""

from __future__ import annotations

import dataclasses
import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from evergreen.components import atomic
from evergreen.components.errors import ConfigError, EvergreenError, LockHeld, ModelRejected
from evergreen.components.pusher import versions, withdrawal
from evergreen.components.pusher.catalog import saved_model_bytes
from evergreen.components.pusher.manifest import MANIFEST_FILE, Manifest, read_manifest, utc_time

LOCK_SECONDS = 600.0
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True)
class Candidate:
    """A model that passed its gates, and what its manifest will say.

    Attributes:
      saved_model: directory of the SavedModel.
      model_artifact_id: id of the Model artifact in ML Metadata.
      model_uri: its URI.
      name: the pipeline's name.
      run: id of the pipeline run.
      span: newest span of the training window.
      span_version: that span's version; None where unknown.
      model_created: the artifact's creation, milliseconds since 1970; 0 where unknown.
      pushed_by: id of the Pusher's execution.
      metrics: metrics on the exam, by name.
      champion_on_span: the earlier champion's metrics on the whole span; None without a champion.
      tflite: the chosen TFLite model's file; None to publish none.
      tflite_variant: how it was quantized.
      tflite_metrics: its metrics on the exam, by name.
      withdraw_tflite: without a TFLite model, whether the earlier versions' are to go.
    """

    saved_model: Path
    model_artifact_id: int
    model_uri: str
    name: str
    run: str
    span: int
    span_version: int | None = None
    model_created: int = 0
    pushed_by: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)
    champion_on_span: dict[str, Any] | None = None
    tflite: Path | None = None
    tflite_variant: str = ""
    tflite_metrics: dict[str, Any] = field(default_factory=dict)
    withdraw_tflite: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a push did.

    Attributes:
      version: the version that holds the model.
      path: its directory.
      published: False where an earlier push had published the same model.
      live: whether it is the live version.
      message: one sentence for the user.
      removed: versions that retention deleted.
      warnings: what went wrong after the commit and is left to the next push.
    """

    version: int
    path: Path
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
    base = versions.local_path(base_path)
    versions.expired((), keep)  # refuses a wrong `keep` before anything is written
    _check_source(candidate)
    with _readable_errors(base), _locked(base, lock_seconds):
        _recover(base)
        found = _already_published(base, candidate)
        if found:
            removed, warnings = _retain(base, keep)  # the push that published it may have been killed before this
            return dataclasses.replace(found, removed=removed, warnings=warnings)
        _check_hold(base)
        if champion_model_uri is not None:
            _check_champion(base, champion_model_uri, examined_at)
        version = versions.next_version(now(), versions.highest_ever(base))
        try:
            path = _put(base, version, candidate, now())
        except BaseException:
            # Nothing was committed, so recovery's rules undo it; the error that is on its way says more than theirs.
            with suppress(OSError, EvergreenError):
                _recover(base)
            raise
        withdrawn = _withdraw(base)
        removed, warnings = _retain(base, keep)
    message = f"Published as version {version}."
    return Outcome(version, path, True, True, message, removed, (*withdrawn, *warnings))


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
    base = versions.local_path(base_path)
    if not base.is_dir():
        return []
    with _readable_errors(base), _locked(base, lock_seconds):
        return _recover(base)


@contextmanager
def _locked(base: Path, seconds: float) -> Iterator[None]:
    """Holds the base path's lock, which the kernel gives back when the process dies."""
    atomic.make_directory(base)
    try:
        with FileLock(str(base / versions.LOCK_FILE), timeout=seconds):
            yield
    except Timeout as error:
        raise LockHeld(
            f"another push into {base} is going on",
            f"its lock {base / versions.LOCK_FILE} was not released within {seconds:.0f} s",
            "Try again when it has ended.",
        ) from error


@contextmanager
def _readable_errors(base: Path) -> Iterator[None]:
    """Turns what the file system refuses into one error that a user can act on."""
    try:
        yield
    except EvergreenError:
        raise
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        if error.errno in _FULL:
            step = "Free some space there and run again; what was trained is kept."
        elif error.errno in _FORBIDDEN:
            step = "Give the user who runs Evergreen the right to write there and run again; what was trained is kept."
        else:
            step = "Check publish.base_path and the disk it lies on, and run again; what was trained is kept."
        reason = f"{error.strerror or error}{where}; a server sees no half of a version"
        raise EvergreenError(f"cannot publish into {base}", reason, step) from error


def _check_source(candidate: Candidate) -> None:
    if not versions.is_complete(candidate.saved_model):
        raise ConfigError(
            "the model to publish is not a SavedModel",
            f"{candidate.saved_model} has no saved_model.pb",
            "Save the model with signatures by tf.saved_model.save (run_fn: into fn_args.serving_model_dir).",
        )
    if candidate.tflite is not None and not candidate.tflite.is_file():
        raise ConfigError(
            "the TFLite model to publish does not exist",
            f"{candidate.tflite} is not a file",
            "Run again, so that the Quantizer writes it anew.",
        )


def _manifests(entries: dict[int, Path]) -> dict[int, Manifest]:
    """Returns the manifests of the complete versions that Evergreen published; foreign and broken ones are left out."""
    found = {}
    for version, path in entries.items():
        with suppress(EvergreenError):
            manifest = read_manifest(path)
            if manifest is not None and versions.is_complete(path):
                found[version] = manifest
    return found


def _recover(base: Path) -> list[str]:
    lite = versions.lite_path(base)
    leftovers = [parent / name for parent in (base, lite) for name in atomic.sweep(parent)]
    done = [f"Removed {path}, left by a push that was killed." for path in leftovers]
    if versions.read_highest(base) is None:
        # Nothing was ever published here: the base path is new, or its disk is not mounted. The TFLite versions that
        # lie beside it are then not ours to remove.
        return done
    done += withdrawal.complete(base)
    entries = versions.list_entries(lite)
    for version in versions.lone_lite_versions(base):
        if (entries[version] / MANIFEST_FILE).is_file():
            atomic.remove(entries[version])
            done.append(f"Removed {entries[version]}, which has no SavedModel of the same version.")
    return done


def _already_published(base: Path, candidate: Candidate) -> Outcome | None:
    entries = versions.list_entries(base)
    live = versions.live_of(entries)
    for version, manifest in sorted(_manifests(entries).items(), reverse=True):
        if manifest.carries(candidate.model_artifact_id, candidate.model_uri, candidate.model_created):
            if version == live:
                message = f"This model is published already: it is the live version {version}."
            else:
                message = f"This model was published already as version {version}; version {live} is live now."
            return Outcome(version, entries[version], False, version == live, message)
    return None


def _check_hold(base: Path) -> None:
    hold = versions.read_hold(base)
    if hold is not None:
        since = f" since {hold.since}" if hold.since else ""
        raise ModelRejected(
            f"publishing into {base} is held{since}",
            hold.reason or "a rollback holds publishing until a person releases it",
            f"Release it by `evergreen release`, or remove {hold.path}, and run again.",
        )


def _check_champion(base: Path, expected: str, examined_at: float | None) -> None:
    entries = versions.list_entries(base)
    live = versions.live_of(entries)
    manifest = None if live is None else _manifests({live: entries[live]}).get(live)
    champion = manifest.model_uri if manifest else ""
    if expected:
        overtaken = champion != expected
    else:
        # What is live may come from another workspace, or from a lost one; then it was live before the exam. Both times
        # are whole seconds here, and within one second in doubt the push is refused.
        overtaken = manifest is not None and examined_at is not None and manifest.published >= utc_time(examined_at)
    if overtaken:
        live_words = "no version" if live is None else f"version {live} ({champion or 'of unknown origin'})"
        raise ModelRejected(
            "another model went live since this one was examined",
            f"it was compared with {expected or 'no model'}; live is {live_words}",
            "Run again: the model is examined against the new champion.",
        )


def _put(base: Path, version: int, candidate: Candidate, now: float) -> Path:
    """Stages both copies, then shows them: the TFLite version first, the SavedModel's rename is the commit."""
    target = base / str(version)
    tflite: dict[str, Any] | None = None
    content = b""
    if candidate.tflite is not None:
        content = _stamped(candidate.tflite, {"name": candidate.name, "version": version})
        tflite = {"variant": candidate.tflite_variant, "bytes": len(content)}
        if candidate.tflite_metrics:
            tflite["metrics"] = candidate.tflite_metrics
    manifest = Manifest(
        version=version,
        name=candidate.name,
        published=utc_time(now),
        run=candidate.run,
        span=candidate.span,
        span_version=candidate.span_version,
        model_artifact_id=candidate.model_artifact_id,
        model_uri=candidate.model_uri,
        model_created=candidate.model_created,
        pushed_by=candidate.pushed_by,
        metrics=candidate.metrics,
        champion_on_span=candidate.champion_on_span,
        tflite=tflite,
        bytes=saved_model_bytes(candidate.saved_model),
    )
    staged = atomic.stage(target)
    atomic.copy_tree(candidate.saved_model, staged)
    _write_manifest(staged, manifest)
    lite = None
    if candidate.tflite is not None:
        lite_target = versions.lite_path(base) / str(version)
        atomic.make_directory(lite_target.parent)
        lite = atomic.stage(lite_target)
        atomic.write_file(lite / versions.TFLITE_FILE, content)
        _write_manifest(lite, manifest)
    # A number that a server may have seen is never used again, even if this process dies between here and the commit.
    versions.write_highest(base, version)
    if lite is not None:
        atomic.commit(lite, lite_target)
    elif candidate.withdraw_tflite:
        withdrawal.announce(base, version)
    atomic.commit(staged, target)
    return target


def _stamped(path: Path, values: dict[str, Any]) -> bytes:
    """Returns a TFLite file with these values in its metadata; one that is not of our Quantizer stays as it is."""
    content = path.read_bytes()
    if content[4:8] != b"TFL3":
        return content
    from evergreen.components.quantizer import lite_file  # brings the schema along, which few pushes need

    return lite_file.stamp(content, values)


def _withdraw(base: Path) -> tuple[str, ...]:
    """Carries out an announced withdrawal; a failure here undoes no push, the next one tries again."""
    try:
        return tuple(withdrawal.complete(base))
    except OSError as error:
        return (f"The earlier TFLite versions could not be withdrawn, the next push tries again: {error}",)


def _write_manifest(staged: Path, manifest: Manifest) -> None:
    atomic.make_directory((staged / MANIFEST_FILE).parent)
    atomic.write_file(staged / MANIFEST_FILE, manifest.to_json())
    atomic.sync_directory(staged)


def _retain(base: Path, keep: int) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Deletes what is older than the newest `keep`; a failure here undoes no push, the next one tries again.

    Versions that Evergreen did not publish are left alone. The newest TFLite version stays with its SavedModel: a base
    path that a server finds empty unloads the model.
    """
    entries = versions.list_entries(base)
    lite = versions.list_entries(versions.lite_path(base))
    protected = {version for version in (versions.live_of(entries), max(lite, default=None)) if version is not None}
    removed = []
    try:
        for version in versions.expired(_manifests(entries), keep, protected):
            atomic.remove(entries[version])
            if version in lite:
                atomic.remove(lite[version])
            removed.append(version)
        withdrawal.forget(base, versions.list_entries(base))
    except OSError as error:
        return tuple(removed), (f"An old version could not be deleted, the next push tries again: {error}",)
    return tuple(removed), ()
