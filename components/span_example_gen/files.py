"""Opens a span's files, wherever they lie, and says clearly what is wrong with one."""

from __future__ import annotations

import io
import os
from typing import Any, TextIO

import pyarrow as pa

from evergreen.components.errors import DataRejected, SpanError

NEXT_STEP = "deliver the span again as a new version, or mend the file"
_GZIP_MAGIC = b"\x1f\x8b"


def is_local(path: str) -> bool:
    """Whether the path needs no file system of TensorFlow's or Beam's."""
    return "://" not in path


def open_arrow(path: str) -> Any:
    """Opens a file for pyarrow; random access, as Parquet needs.

    Raises:
      SpanError: there is no such file, or it cannot be opened.
    """
    try:
        if is_local(path):
            return pa.OSFile(path)
        from tfx.dsl.io import fileio

        if not fileio.exists(path):
            raise FileNotFoundError(path)
        return pa.PythonFile(_RemoteFile(fileio.open(path, "rb")), mode="r")
    except (FileNotFoundError, IsADirectoryError) as error:
        reason = f"{path}: {error}"
        raise SpanError("a file of the span is gone", reason, "run again when the span is complete") from error
    except OSError as error:
        raise SpanError("a file of the span cannot be opened", f"{path}: {error}", "run again when it can") from error


class _RemoteFile(io.RawIOBase):
    """Gives a file of TFX's file systems what Python's files have and pyarrow asks for."""

    def __init__(self, file: Any):
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._file.seek(offset, whence)
        return self._file.tell()

    def tell(self) -> int:
        return self._file.tell()


def size(path: str) -> int:
    """Returns the file's size in bytes.

    Raises:
      SpanError: there is no such file.
      DataRejected: it is empty.
    """
    if is_local(path) and os.path.isfile(path):
        found = os.path.getsize(path)
    else:
        with open_arrow(path) as file:
            found = file.size()
    if not found:
        raise rejected(path, "is empty", "the file has 0 bytes")
    return found


def open_stream(path: str) -> Any:
    """Opens a file to be read once from the start, unpacking gzip whatever the file's name."""
    file = open_arrow(path)
    magic = file.read(2)
    file.seek(0)
    return pa.CompressedInputStream(file, "gzip") if magic == _GZIP_MAGIC else file


def open_text(path: str) -> TextIO:
    """Opens a text file for Python's csv module; a byte that is no UTF-8 becomes a replacement character."""
    return io.TextIOWrapper(open_stream(path), encoding="utf-8-sig", errors="replace", newline="")


def damaged(path: str, what: str, error: Exception) -> Exception:
    """Returns the refusal of a file that its reader cannot make sense of.

    Args:
      path: the file.
      what: the headline's end, after the file's name.
      error: what the reader raised. An error of the operating system says nothing about the file (the disk, the
        network) and is returned as it is, so that the span is not rejected for it.
    """
    if isinstance(error, OSError) and error.errno:
        return error
    return rejected(path, what, one_line(error))


def rejected(path: str, what: str, reason: str, next_step: str = NEXT_STEP) -> DataRejected:
    """Builds the refusal of a file.

    Args:
      path: the file.
      what: the headline's end, after the file's name.
      reason: why.
      next_step: what to do.
    """
    return DataRejected(f"{os.path.basename(path)} {what}", f"{reason} ({path})", next_step)


def one_line(error: Exception) -> str:
    """Returns the first line of an error of Arrow's or TensorFlow's, which may be long."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
