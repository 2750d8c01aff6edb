"""Divides a span's files into the pieces that Beam spreads over workers. Pure, but for what the readers look up."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from evergreen.components.errors import DataRejected
from evergreen.components.span_example_gen import columns, csv_source, csv_values, parquet_source, tfrecord_source
from evergreen.components.span_example_gen.batches import FileSurvey, Part
from evergreen.components.span_example_gen.settings import Settings

PIECE_BYTES = 64 << 20


@dataclass(frozen=True)
class Piece:
    """Work for one worker, which makes at most one file of each split.

    Attributes:
      index: its place in the span, from 0; rows keep this order.
      parts: what to read, in order.
    """

    index: int
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Job:
    """What every worker needs to know.

    Attributes:
      format: "parquet", "csv" or "tfrecord".
      settings: how rows are split.
      kinds: what each column becomes; empty for TFRecord.
      pieces: how many pieces there are.
      uri: where the splits go.
    """

    format: str
    settings: Settings
    kinds: dict[str, str] = field(default_factory=dict)
    pieces: int = 1
    uri: str = ""


def survey(path: str, format: str, settings: Settings, types: dict[str, str] | None) -> FileSurvey:
    """Looks at one file; see the readers.

    Args:
      path: the file.
      format: its format.
      settings: how rows are split.
      types: kind of each column by the schema; None where there is no schema.
    """
    if format == "parquet":
        return parquet_source.survey(path, settings.key_columns)
    if format == "csv":
        return csv_source.survey(path, settings.key_columns, settings.delimiter, types)
    return tfrecord_source.survey(path)


def common_kinds(surveys: Iterable[FileSurvey], format: str, types: dict[str, str] | None) -> dict[str, str]:
    """Finds what each column of the span becomes, so that it is the same in all files.

    Args:
      surveys: the files.
      format: their format; columns of CSV were inferred where there is no schema, and text holds everything then.
      types: kind of each column by the schema.

    Raises:
      DataRejected: a column is a number in one file and a string in another.
    """
    kinds: dict[str, str] = {}
    first: dict[str, str] = {}
    for file in surveys:
        for name, kind in file.kinds.items():
            before = kinds.get(name, columns.MISSING)
            common = csv_values.wider(before, kind) if format == "csv" else columns.common_kind(before, kind)
            if common is None:
                raise DataRejected(
                    f"column `{name}` is {before} in one file of the span and {kind} in another",
                    f"{before}: {first[name]}; {kind}: {file.path}",
                    "write it with one type in all files",
                )
            kinds[name] = common
            if kind:
                first.setdefault(name, file.path)
    return {name: columns.target_kind(kind, (types or {}).get(name)) for name, kind in kinds.items()}


def divide(surveys: Iterable[FileSurvey], piece_bytes: int = PIECE_BYTES) -> list[Piece]:
    """Packs row groups and small files into pieces of about equal size, in order.

    Args:
      surveys: the files, in the order of the span.
      piece_bytes: a piece is closed when it has reached this size.

    Returns:
      The pieces; none where no file has rows.
    """
    pieces: list[Piece] = []
    parts: list[Part] = []
    size = 0

    def close() -> None:
        nonlocal parts, size
        if parts:
            pieces.append(Piece(len(pieces), tuple(parts)))
        parts, size = [], 0

    for file in surveys:
        for group, bytes_of_group in enumerate(file.sizes):
            if parts and parts[-1].path == file.path:
                parts[-1] = Part(file.path, parts[-1].first, group + 1)
            else:
                parts.append(Part(file.path, group, group + 1))
            size += bytes_of_group
            if size >= piece_bytes:
                close()
    close()
    return pieces


def paths(input_base: str, files: list[str]) -> list[str]:
    """Returns the span's files in a fixed order, so that the same files give the same rows in the same order."""
    return [os.path.join(input_base, file) for file in sorted(files)]
