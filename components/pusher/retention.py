"""Deletes what a base path no longer keeps; the caller holds its lock."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from evergreen.components import atomic
from evergreen.components.pusher import catalog, versions, withdrawal


def staying(complete: Collection[int], lite: Collection[int], protected: Collection[int]) -> set[int]:
    """Says which versions stay whatever their age.

    The live version does, and the one before it, to which a rollback goes; and the newest TFLite version with its
    SavedModel: a base path that a server finds empty unloads the model.

    Args:
      complete: the versions that a server can load.
      lite: the TFLite versions.
      protected: others, such as those that a label points to.
    """
    return {*protected, *sorted(complete)[-2:], *sorted(lite)[-1:]}


def retain(base: Path, keep: int, protected: Collection[int] = ()) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Deletes what is older than the newest `keep`; a failure here undoes no push, the next one tries again.

    Versions that Evergreen did not publish are left alone, and see `staying`.

    Args:
      base: the base path of the SavedModels.
      keep: how many of the newest versions stay.
      protected: versions that stay whatever their age, such as those that a label points to.

    Returns:
      The versions that were deleted, and in words what went wrong.
    """
    entries = versions.list_entries(base)
    lite = versions.list_entries(versions.lite_path(base))
    complete = [version for version, path in entries.items() if versions.is_complete(path)]
    removed = []
    try:
        for version in versions.expired(catalog.manifests(entries), keep, staying(complete, lite, protected)):
            atomic.remove(entries[version])
            if version in lite:
                atomic.remove(lite[version])
            removed.append(version)
        withdrawal.forget(base, versions.list_entries(base), keep)
    except OSError as error:
        return tuple(removed), (f"An old version could not be deleted, the next push tries again: {error}",)
    return tuple(removed), ()
