"""What a base path holds, for people and for resolvers. Reads only, takes no lock, imports no TensorFlow."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evergreen.components.atomic import StrPath
from evergreen.components.errors import EvergreenError
from evergreen.components.pusher import versions, withdrawal
from evergreen.components.pusher.manifest import MANIFEST_FILE, Manifest, read_manifest

FOREIGN = "not published by Evergreen"
INCOMPLETE = "no saved_model.pb: a server cannot load it"


@dataclass(frozen=True)
class VersionRecord:
    """One version in a base path.

    Attributes:
      version: the version number.
      path: its directory.
      live: whether it is the one that answers requests, the highest complete version.
      bytes: size of the SavedModel's files, the manifest not counted.
      tflite_bytes: size of the paired TFLite model; None without one.
      tflite_variant: how it was quantized.
      tflite_metrics: its metrics on the exam.
      name: the pipeline's name, like what follows from the manifest; None, or empty, without one.
      run: id of the pipeline run.
      span: newest span of its window.
      span_version: that span's version.
      published: ISO-8601 time of the push, UTC.
      metrics: metrics on the exam.
      champion_on_span: the earlier champion's metrics on the new span before any training.
      model_artifact_id: id of the Model artifact.
      pushed_by: id of the execution that published it; empty where unknown.
      restores: the version that it restores.
      withdrawn: why it was taken out of a server's sight; None where it was not. Its files are kept for a while.
      withdrawn_since: when, ISO-8601 in UTC.
      problem: what is wrong with it, in words; None if nothing is.
    """

    version: int
    path: str
    live: bool
    bytes: int
    tflite_bytes: int | None = None
    tflite_variant: str | None = None
    tflite_metrics: dict[str, Any] = field(default_factory=dict)
    name: str | None = None
    run: str | None = None
    span: int | None = None
    span_version: int | None = None
    published: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    champion_on_span: dict[str, Any] | None = None
    model_artifact_id: int | None = None
    pushed_by: str = ""
    restores: int | None = None
    withdrawn: str | None = None
    withdrawn_since: str | None = None
    problem: str | None = None


def saved_model_bytes(path: StrPath) -> int:
    """Adds up the sizes of a SavedModel's files, without our manifest.

    Args:
      path: the directory; files that go while we look count nothing.

    Returns:
      Bytes.
    """
    manifest = os.path.join(path, MANIFEST_FILE)
    total = 0
    for directory, _, names in os.walk(path, followlinks=True):
        for name in names:
            file = os.path.join(directory, name)
            if file != manifest:
                total += _file_bytes(file) or 0
    return total


def _file_bytes(path: StrPath) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:
        return None


def _record(version: int, path: Path, live: bool, lite: Path | None) -> VersionRecord:
    found: Manifest | None = None
    problem = None
    try:
        found = read_manifest(path)
        if found is None:
            problem = FOREIGN
    except EvergreenError as error:
        problem = error.reason
    if not versions.is_complete(path):
        problem = INCOMPLETE
    tflite_bytes = _file_bytes(lite / versions.TFLITE_FILE) if lite else None
    return to_record(version, str(path), live, saved_model_bytes(path), tflite_bytes, found, problem)


def to_record(
    version: int,
    path: str,
    live: bool,
    size: int,
    tflite_bytes: int | None,
    manifest: Manifest | None,
    problem: str | None,
) -> VersionRecord:
    """Makes a version's record from what its manifest says; see `VersionRecord` for the arguments."""
    if manifest is None:
        return VersionRecord(version, path, live, size, tflite_bytes, problem=problem)
    tflite = manifest.tflite or {}
    return VersionRecord(
        version=version,
        path=path,
        live=live,
        bytes=size,
        tflite_bytes=tflite_bytes,
        tflite_variant=tflite.get("variant") if tflite_bytes is not None else None,
        tflite_metrics=tflite.get("metrics", {}) if tflite_bytes is not None else {},
        name=manifest.name,
        run=manifest.run,
        span=manifest.span,
        span_version=manifest.span_version,
        published=manifest.published,
        metrics=manifest.metrics,
        champion_on_span=manifest.champion_on_span,
        model_artifact_id=manifest.model_artifact_id,
        pushed_by=manifest.pushed_by,
        restores=manifest.restores,
        problem=problem,
    )


def list_versions(base_path: StrPath) -> list[VersionRecord]:
    """Lists what a base path holds.

    Args:
      base_path: the base path; a missing one holds nothing.

    Returns:
      One record for each version that TensorFlow Serving sees, newest first; versions that Evergreen did not publish,
      or that cannot be loaded, are among them and say so. So are those that were withdrawn, while their files are kept.
    """
    if versions.is_uri(base_path):
        from evergreen.components.pusher import object_store

        return object_store.list_versions(os.fspath(base_path))
    base = versions.local_path(base_path)
    lite_base = versions.lite_path(base)
    entries = versions.list_entries(base)
    live = versions.live_of(entries)
    lite = versions.list_entries(lite_base)
    found = {number: _record(number, path, number == live, lite.get(number)) for number, path in entries.items()}
    for number, gone in withdrawal.list_withdrawn(base).items():
        if number in entries:
            known = dataclasses.replace(found[number], live=False)  # it goes as soon as somebody holds the lock
        else:
            known = _record(number, gone.path, False, lite_base / gone.path.name)
        found[number] = dataclasses.replace(known, withdrawn=gone.reason, withdrawn_since=gone.since, problem=None)
    return [found[number] for number in sorted(found, reverse=True)]


def manifests(entries: Mapping[int, Path]) -> dict[int, Manifest]:
    """Reads the manifests of the complete versions that Evergreen published.

    Args:
      entries: what `versions.list_entries` returned.

    Returns:
      `{version: manifest}`; without foreign versions and those whose manifest is broken.
    """
    found = {}
    for version, path in entries.items():
        with suppress(EvergreenError):
            manifest = read_manifest(path)
            if manifest is not None and versions.is_complete(path):
                found[version] = manifest
    return found


def live_manifest(base_path: StrPath) -> Manifest | None:
    """Reads the manifest of the live version: whose model is the champion.

    Args:
      base_path: the base path.

    Returns:
      The manifest; None where nothing is live, or where somebody else published what is.

    Raises:
      EvergreenError: the live version's manifest is broken.
    """
    if versions.is_uri(base_path):
        from evergreen.components.pusher import object_store

        return object_store.live_manifest(os.fspath(base_path))
    entries = versions.list_entries(versions.local_path(base_path))
    live = versions.live_of(entries)
    return None if live is None else read_manifest(entries[live])


def version_manifest(version_path: StrPath) -> Manifest | None:
    """Reads the manifest of a version, on a file system or an object store; None where there is none.

    Raises:
      EvergreenError: it is broken.
    """
    if versions.is_uri(version_path):
        from evergreen.components.pusher import object_store

        return object_store.version_manifest(os.fspath(version_path))
    return read_manifest(Path(version_path))
