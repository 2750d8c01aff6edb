"""Reads a schema.pbtxt where TFX's own reader, which imports TensorFlow, would take seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def read(path: Path) -> Any:
    """Reads a schema in protobuf's text format.

    Args:
      path: a local file.

    Returns:
      The `schema_pb2.Schema`.

    Raises:
      OSError: the file cannot be read.
      UnicodeDecodeError: it is no text.
      google.protobuf.text_format.ParseError: it is no schema.
    """
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    return text_format.Parse(path.read_text(encoding="utf-8"), schema_pb2.Schema())
