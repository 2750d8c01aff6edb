"""A base path on an object store (gs://, s3://, ...), through TensorFlow's file systems: names, manifests, whole trees.

There is no rename and no lock there, and a directory exists as soon as one object below it does. What is promised
nevertheless rests on the order: a version's manifest is written first and its `saved_model.pb` last, so that a version
without it is one that somebody was writing or deleting. No object is ever overwritten: stores limit how often an object
may be, and readers may see an old one for a while.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from evergreen.components.errors import ConfigError, EvergreenError
from evergreen.components.pusher import versions
from evergreen.components.pusher.manifest import MANIFEST_FILE, Manifest, parse_manifest

_HIGHEST_FOLDER = ".highest"


class ObjectStore:
    """One base path on an object store, with the one of the TFLite models beside it.

    Args:
      uri: the base path's URI.

    Attributes:
      base: the URI without a trailing slash.
      lite: the URI of the TFLite models.

    Raises:
      ConfigError: TensorFlow has no file system for the scheme.
    """

    def __init__(self, uri: str):
        import tensorflow as tf

        scheme = uri.partition("://")[0]
        if scheme not in tf.io.gfile.get_registered_schemes():
            raise ConfigError(
                f"TensorFlow cannot read {uri}",
                f"it has no file system for {scheme}://",
                "It brings gs:// along; for others install tensorflow-io and import it in the features module.",
            )
        self.base = uri.rstrip("/")
        self.lite = self.base + "_lite"
        self._gfile = tf.io.gfile

    def names(self, uri: str) -> list[str]:
        """Lists what lies directly below a URI; nothing where there is nothing."""
        try:
            return sorted({name.rstrip("/") for name in self._gfile.listdir(uri)})
        except _not_found():
            return []

    def entries(self, parent: str) -> dict[int, str]:
        """Lists what TensorFlow Serving takes for versions: `{version: URI}` in ascending order."""
        found = {}
        for name in self.names(parent):
            version = versions.parse_version(name)
            if version is not None:
                found[version] = f"{parent}/{name}"
        return dict(sorted(found.items()))

    def is_complete(self, version_uri: str) -> bool:
        """Says whether a version has the graph file, which is written last and deleted first."""
        return any(self._gfile.exists(f"{version_uri}/{name}") for name in versions.SAVED_MODEL_FILES)

    def live(self) -> int | None:
        """Returns the highest complete version, or None."""
        return max((v for v, uri in self.entries(self.base).items() if self.is_complete(uri)), default=None)

    def read(self, uri: str) -> bytes | None:
        """Reads an object; None where there is none."""
        try:
            with self._gfile.GFile(uri, "rb") as file:
                return bytes(file.read())
        except _not_found():
            return None

    def manifest(self, version_uri: str) -> Manifest | None:
        """Reads a version's manifest; None where there is none.

        Raises:
          EvergreenError: it is broken.
        """
        content = self.read(f"{version_uri}/{MANIFEST_FILE}")
        return None if content is None else parse_manifest(content.decode("utf-8", "replace"), version_uri)

    def json(self, uri: str) -> dict[str, Any] | None:
        """Reads a JSON object; None where there is none, empty where it cannot be read."""
        content = self.read(uri)
        if content is None:
            return None
        try:
            values = json.loads(content)
        except ValueError:
            return {}
        return values if isinstance(values, dict) else {}

    def write(self, uri: str, content: bytes) -> None:
        """Writes an object that is not there yet."""
        self._gfile.makedirs(uri.rpartition("/")[0])
        with self._gfile.GFile(uri, "wb") as file:
            file.write(content)

    def files(self, uri: str) -> dict[str, int]:
        """Lists every object below a URI: `{name relative to it: bytes}`."""
        found = {}
        for folder, _, names in self._gfile.walk(uri):
            for name in names:
                path = f"{folder.rstrip('/')}/{name}"
                with suppress(_not_found()):  # gone meanwhile
                    found[path[len(uri) + 1 :]] = int(self._gfile.stat(path).length)
        return found

    def upload(self, folder: Path, uri: str, last: str) -> None:
        """Copies a local directory: the manifest first, one file last.

        Args:
          folder: the directory.
          uri: where to; nothing is there yet.
          last: the file, relative to the directory, without which a reader takes what is there for incomplete.
        """
        names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        for name in sorted(names, key=lambda name: (name == last, name != MANIFEST_FILE)):
            target = f"{uri}/{name}"
            self._gfile.makedirs(target.rpartition("/")[0])
            self._gfile.copy(str(folder / name), target)

    def copy(self, source: str, target: str) -> None:
        """Copies what lies below a URI below another one; what a copy that was killed has left there is done anew."""
        for name in self.files(source):
            self.remove(f"{target}/{name}")
            self._gfile.makedirs(f"{target}/{name}".rpartition("/")[0])
            self._gfile.copy(f"{source}/{name}", f"{target}/{name}")

    def download(self, uri: str, folder: Path) -> None:
        """Copies what lies below a URI into a local directory that does not exist yet."""
        for name in self.files(uri):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            self._gfile.copy(f"{uri}/{name}", os.fspath(folder / name))

    def remove(self, uri: str) -> None:
        """Deletes one object, if it is there."""
        if self._gfile.exists(uri):
            self._gfile.remove(uri)

    def remove_version(self, version_uri: str) -> None:
        """Deletes a version: the graph or the TFLite model first, the manifest last."""
        first = (*versions.SAVED_MODEL_FILES, versions.TFLITE_FILE)
        names = sorted(self.files(version_uri), key=lambda name: (name not in first, name == MANIFEST_FILE))
        for name in names:
            self.remove(f"{version_uri}/{name}")
        # What is left are directories, where the store has such a thing; deeper ones come first in this order.
        for folder in sorted((folder for folder, _, _ in self._gfile.walk(version_uri)), reverse=True):
            with suppress(_not_found()):
                self._gfile.rmtree(folder)

    def highest_ever(self) -> int:
        """Returns the highest version number that was used or lies there now; 0 where none was."""
        used = [versions.parse_version(name) or 0 for name in self.names(f"{self.base}/{_HIGHEST_FOLDER}")]
        return max([0, *used, *self.entries(self.base), *self.entries(self.lite)])

    def write_highest(self, version: int) -> None:
        """Remembers a number as used, in an object's name; those below it are not needed any more."""
        folder = f"{self.base}/{_HIGHEST_FOLDER}"
        if str(version) not in self.names(folder):
            self.write(f"{folder}/{version}", b"")
        for name in self.names(folder):
            if (versions.parse_version(name) or 0) < version:
                self.remove(f"{folder}/{name}")


def _not_found() -> type[Exception]:
    import tensorflow as tf

    error: type[Exception] = tf.errors.NotFoundError
    return error


@contextmanager
def readable_errors(uri: str, action: str) -> Iterator[None]:
    """Turns what an object store refuses into one error that a user can act on.

    Args:
      uri: the base path.
      action: what is done to it.

    Raises:
      EvergreenError: the store refused.
    """
    import tensorflow as tf

    try:
        yield
    except EvergreenError:
        raise
    except (tf.errors.OpError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        step = "Check publish.base_path, the credentials and the network, and run again; what was trained is kept."
        raise EvergreenError(f"cannot {action} {uri}", reason, step) from error
