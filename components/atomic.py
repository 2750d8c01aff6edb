"""Writes files and directories so that a reader, and a crash, see all of the new or none of it.

Everything that others read while we write goes through here. A file is written aside, synced and put in place by
`os.replace`; a directory is filled in a staging directory beside its target, every file and directory in it is synced,
and one rename shows it. What is written aside has a name that begins with a dot, which TensorFlow Serving passes over:
it looks at numbers only.

Caveats:
  * The promise holds on one POSIX file system, which is why staging lies beside the target and never in /tmp. Object
    stores (gs://, s3://) have no rename; NFS renames atomically, but other clients may see it late.
  * Without the syncs a killed process harms nothing, but a power cut can leave a renamed directory with empty files.
    A disk that lies about syncing breaks that promise, and nobody can tell.
  * `os.rename` silently replaces an empty directory. `commit` looks first, which is no protection against a second
    writer: writers of one target hold a lock of their own.
  * A killed writer leaves its staging behind. `sweep` removes such leftovers; call it only where no other writer can be
    at work, that is under the same lock.
  * Deleting a tree takes many steps, so `remove` renames it out of sight first.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

StrPath = str | os.PathLike[str]

_STAGING = ".staging-"
_REMOVED = ".removed-"
_CHUNK_BYTES = 4 * 1024 * 1024


def _aside(parent: Path, prefix: str, name: str) -> Path:
    """Returns a fresh name in the same directory, with the writer's process id for whoever finds it."""
    return parent / f"{prefix}{name}-{os.getpid()}-{secrets.token_hex(4)}"


def sync_directory(path: StrPath) -> None:
    """Makes the names in one directory survive a power cut.

    Args:
      path: the directory whose entries were created, renamed or removed.

    Raises:
      OSError: the directory cannot be opened or synced.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(path: StrPath) -> None:
    """Syncs every file and directory below a directory that another library has filled, and the directory itself.

    Args:
      path: the directory.

    Raises:
      OSError: something in it cannot be opened or synced.
    """
    for directory, _, files in os.walk(path, topdown=False):
        for name in files:
            descriptor = os.open(os.path.join(directory, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_directory(directory)


def make_directory(path: StrPath) -> None:
    """Creates a directory and the missing ones above it, durably; one that is there already is fine.

    Args:
      path: the directory.

    Raises:
      OSError: it cannot be created, or a file has the name.
    """
    target = Path(path)
    if target.is_dir():
        return
    make_directory(target.parent)
    try:
        os.mkdir(target)
    except FileExistsError:
        if not target.is_dir():
            raise
    sync_directory(target.parent)


def _write_new(path: StrPath, chunks: Iterator[bytes]) -> None:
    """Creates a file that must not exist yet, with the rights that the umask leaves, and syncs its contents."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        for chunk in chunks:
            rest = memoryview(chunk)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: StrPath, data: str | bytes) -> None:
    """Replaces a file's contents in one step, durably.

    Args:
      path: the file; its directory exists.
      data: the whole contents; text is written as UTF-8.

    Raises:
      OSError: it cannot be written; the earlier contents are then as they were.
    """
    target = Path(path)
    aside = _aside(target.parent, _STAGING, target.name)
    try:
        _write_new(aside, iter([data.encode("utf-8") if isinstance(data, str) else data]))
        os.replace(aside, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(aside)
        raise
    sync_directory(target.parent)


def copy_file(source: StrPath, target: StrPath) -> None:
    """Copies a file's contents into a new file and syncs it; a link is followed, never copied.

    Times, owner and rights of the source are left behind: a server that runs as somebody else has to read the copy.

    Args:
      source: a regular file, or a link to one.
      target: the new file; it does not exist yet.

    Raises:
      OSError: the source is not a regular file, or one of the two cannot be opened, read or written.
    """
    if not stat.S_ISREG(os.stat(source).st_mode):
        raise OSError(f"not a regular file: {os.fspath(source)}")
    with open(source, "rb") as reader:
        _write_new(target, iter(lambda: reader.read(_CHUNK_BYTES), b""))


def copy_tree(source: StrPath, target: StrPath) -> None:
    """Copies what is in a directory into another one and syncs every file and directory of the copy.

    Args:
      source: the directory to copy; links in it are followed, so that the copy stands on its own.
      target: an existing directory, empty or without the names that are copied.

    Raises:
      OSError: something cannot be read or written.
    """
    for name in sorted(os.listdir(source)):
        child, copy = os.path.join(source, name), os.path.join(target, name)
        if os.path.isdir(child):
            os.mkdir(copy)
            copy_tree(child, copy)
        else:
            copy_file(child, copy)
    sync_directory(target)


def stage(target: StrPath) -> Path:
    """Creates an empty staging directory beside a directory that is to be published.

    Args:
      target: the name that `commit` will give it; its parent exists.

    Returns:
      The staging directory.

    Raises:
      OSError: it cannot be created.
    """
    final = Path(target)
    staging = _aside(final.parent, _STAGING, final.name)
    os.mkdir(staging)
    return staging


def commit(staging: StrPath, target: StrPath) -> None:
    """Shows a staged directory, whose contents are synced, under its final name.

    Args:
      staging: what `stage` returned.
      target: the final name; nothing has it yet.

    Raises:
      FileExistsError: something has the final name already.
      OSError: the rename or the sync failed.
    """
    final = Path(target)
    if os.path.lexists(final):
        raise FileExistsError(f"already there: {final}")
    os.rename(staging, final)
    sync_directory(final.parent)


@contextmanager
def new_directory(target: StrPath) -> Iterator[Path]:
    """Gives a staging directory to fill; leaving the block syncs and shows it, an exception throws it away.

    Args:
      target: the final name; its parent exists, nothing has the name yet.

    Yields:
      The staging directory.

    Raises:
      FileExistsError: something has the final name already.
      OSError: it cannot be created, synced or renamed.
    """
    staging = stage(target)
    try:
        yield staging
        sync_tree(staging)
        commit(staging, target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def remove(path: StrPath) -> None:
    """Takes a directory out of sight in one step, then deletes it.

    Args:
      path: the directory.

    Raises:
      OSError: it cannot be renamed or deleted; after the rename, `sweep` deletes the rest.
    """
    visible = Path(path)
    aside = _aside(visible.parent, _REMOVED, visible.name)
    os.rename(visible, aside)
    sync_directory(visible.parent)
    shutil.rmtree(aside)


def sweep(parent: StrPath, target: str = "") -> list[str]:
    """Deletes what killed writers have left in a directory. The caller holds the lock that all of these writers hold.

    Args:
      parent: the directory in which targets lie; a missing one has no leftovers.
      target: only what was to become a file or directory whose name begins so.

    Returns:
      The names that were deleted.

    Raises:
      OSError: a leftover cannot be deleted.
    """
    if not os.path.isdir(parent):
        return []
    leftovers = sorted(name for name in os.listdir(parent) if name.startswith((_STAGING + target, _REMOVED + target)))
    for name in leftovers:
        path = os.path.join(parent, name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    return leftovers
