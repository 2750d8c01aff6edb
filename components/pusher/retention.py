"""Deletes what a base path no longer keeps; the caller holds its lock."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from evergreen.components import atomic
from evergreen.components.pusher import catalog, versions, withdrawal


def retain(base: Path, keep: int, protected: Collection[int] = ()) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Deletes what is older than the newest `keep`; a failure here undoes no push, the next one tries again.

    Versions that Evergreen did not publish are left alone. The live version stays, and the one before it, to which a
    rollback goes. The newest TFLite version stays with its SavedModel: a base path that a server finds empty unloads
    the model.

    Args:
      base: the base path of the SavedModels.
      keep: how many of the newest versions stay.
      protected: versions that stay whatever their age, such as those that a label points to.

    Returns:
      The versions that were deleted, and in words what went wrong.
    """
    entries = versions.list_entries(base)
    lite = versions.list_entries(versions.lite_path(base))
    complete = sorted(version for version, path in entries.items() if versions.is_complete(path))
    stay = {*protected, *complete[-2:], *([max(lite)] if lite else [])}
    removed = []
    try:
        for version in versions.expired(catalog.manifests(entries), keep, stay):
            atomic.remove(entries[version])
            if version in lite:
                atomic.remove(lite[version])
            removed.append(version)
        withdrawal.forget(base, versions.list_entries(base), keep)
    except OSError as error:
        return tuple(removed), (f"An old version could not be deleted, the next push tries again: {error}",)
    return tuple(removed), ()
