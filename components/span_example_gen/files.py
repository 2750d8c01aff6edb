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
      SpanError: there is no such file.
    """
    try:
        if is_local(path):
            return pa.OSFile(path)
        from tfx.dsl.io import fileio

        return pa.PythonFile(fileio.open(path, "rb"), mode="r")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise SpanError(
            "a file of the span is gone", f"{path}: {error}", "run again when the span is complete"
        ) from error


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
