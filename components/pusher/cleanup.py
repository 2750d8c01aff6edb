"""Puts a base path right after processes that were killed in it; the caller holds its lock.

A kill between the two renames of a push leaves a TFLite version without its SavedModel. Nobody was told of it, so it is
removed; the same rule finishes a deletion that was killed half-way, since retention deletes the SavedModel first. A
withdrawal that was recorded is carried out, a hold that was prepared is kept or taken back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from evergreen.components import atomic
from evergreen.components.errors import EvergreenError
from evergreen.components.pusher import hold, versions, withdrawal
from evergreen.components.pusher.manifest import MANIFEST_FILE


def clean(base: Path) -> list[str]:
    """Removes or completes what processes that were killed have left.

    Args:
      base: the base path of the SavedModels.

    Returns:
      One sentence for each thing that was put right.

    Raises:
      OSError: the file system refused.
      EvergreenError: the file that remembers the highest version cannot be read.
    """
    lite = versions.lite_path(base)
    leftovers = [parent / name for parent in (base, lite) for name in atomic.sweep(parent)]
    done = [f"Removed {path}, left by a push that was killed." for path in leftovers]
    if versions.read_highest(base) is None:
        # Nothing was ever published here: the base path is new, or its disk is not mounted. The TFLite versions that
        # lie beside it are then not ours to remove.
        return done
    done += hold.settle(base)
    done += withdrawal.complete(base)
    entries = versions.list_entries(lite)
    for version in versions.lone_lite_versions(base):
        if (entries[version] / MANIFEST_FILE).is_file():
            atomic.remove(entries[version])
            done.append(f"Removed {entries[version]}, which has no SavedModel of the same version.")
    return done


@contextmanager
def undone_on_failure(base: Path) -> Iterator[None]:
    """Cleans up where what is done in the block fails: nothing was committed, so recovery's rules undo it.

    Args:
      base: the base path of the SavedModels.
    """
    try:
        yield
    except BaseException:
        with suppress(OSError, EvergreenError):  # the error that is on its way says more
            clean(base)
        raise


def finish(base: Path) -> tuple[str, ...]:
    """Carries out what was announced before a commit; a failure here undoes no push, the next one tries again.

    Args:
      base: the base path of the SavedModels.

    Returns:
      In words what was withdrawn, and what went wrong.
    """
    try:
        return (*hold.settle(base), *withdrawal.complete(base))
    except OSError as error:
        return (f"What the version had announced could not be finished, the next push tries again: {error}",)
