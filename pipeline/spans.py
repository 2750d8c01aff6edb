"""Spans on disk: which there are, whether they are complete, and what they hold, by file names alone.

A pattern such as `{SPAN}/*.parquet` or `{YYYY}-{MM}-{DD}/part-*.csv` is matched folder by folder below `data.path`,
which must be a local or mounted file system; each folder is listed once. Names that begin with `_` or `.` are never
data. What was decided about a span is not known here: that is ML Metadata's, read by `plan`.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from evergreen.components.errors import ConfigError, SpanError
from evergreen.pipeline.settings import DataSettings, is_uri
from evergreen.pipeline.span_pattern import Pattern

_SHOWN = 8
_CHUNK = 1 << 20


@dataclass(frozen=True)
class SpanVersion:
    """One delivery of one span, as it lies on disk.

    Attributes:
      span: its number; for dates, days since 1970-01-01 (a month counts from its first day).
      version: the number in the place of `{VERSION}`; None where the pattern has none.
      label: the span as people write it: the number, or the date.
      files: its data files relative to `data.path`, sorted, with `/` between folders.
      complete: whether it may be read.
      reason: why it is not complete; empty where it is.
      quick_digest: hash of the files' names, sizes and times of modification; it tells whether to look again.
      bytes: the files' sizes added up.
    """

    span: int
    version: int | None
    label: str
    files: tuple[str, ...]
    complete: bool
    reason: str
    quick_digest: str
    bytes: int

    @property
    def name(self) -> str:
        """The label, with the version where there is one."""
        return self.label if self.version is None else f"{self.label} version {self.version}"


@dataclass
class _Delivery:
    """One span version while its folders are being read."""

    texts: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)
    files: list[tuple[str, int, int]] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def discover(data: DataSettings) -> list[SpanVersion]:
    """Lists the spans of a data directory.

    Args:
      data: the section `data` of the configuration.

    Returns:
      Every span version, complete or not, by number and version.

    Raises:
      ConfigError: the path or the pattern is wrong.
      SpanError: nothing there matches the pattern, a folder's name is no date, or two names give one span.
    """
    root = _root(data)
    pattern = Pattern(data.pattern)
    deliveries: dict[tuple[int, int | None], _Delivery] = {}
    for groups, folder, file in _walk(root, pattern):
        try:
            number = pattern.number(groups)
        except ValueError:
            text = "-".join(groups[kind] for kind in ("YYYY", "MM", "DD") if kind in groups)
            raise SpanError(
                f"{folder or file} names a date that does not exist: {text}",
                f"found in {root} by the pattern {data.pattern}",
                "Rename it; names that begin with `_` are left alone.",
            ) from None
        version = int(groups["VERSION"]) if "VERSION" in groups else None
        delivery = deliveries.setdefault((number, version), _Delivery())
        delivery.texts.add("/".join(groups.values()))
        if folder is not None:
            delivery.folders.add(folder)
        if file is not None:
            try:
                status = os.stat(f"{root}/{file}")
                delivery.files.append((file, status.st_size, status.st_mtime_ns))
            except OSError as error:
                delivery.unreadable.append(f"{file}: {error.strerror}")
    if not deliveries:
        raise SpanError(
            "no span found",
            f"nothing in {root} matches `{data.pattern}`; it holds {_seen(root)}",
            "Correct `data.path` or `data.pattern`, or deliver a span.",
        )
    ordered = sorted(deliveries.items(), key=lambda item: (item[0][0], -1 if item[0][1] is None else item[0][1]))
    return [_span_version(root, pattern, key, delivery, data) for key, delivery in ordered]


def _root(data: DataSettings) -> Path:
    if is_uri(data.path):
        raise ConfigError(
            f"spans cannot be found in {data.path}",
            "`data.path` is a URI, expected a folder of a local or mounted file system",
            "Mount it, or copy the spans to a folder.",
        )
    root = Path(data.path)
    if root.is_dir():
        return root
    if root.exists():
        raise ConfigError(
            f"data.path is not a folder: {root}", "received a file", "Name the folder that holds the spans."
        )
    above = next(parent for parent in root.parents if parent.is_dir())
    wanted = root.relative_to(above).parts[0]
    near = difflib.get_close_matches(wanted, _names(above), n=1)
    guess = f"did you mean `{above / near[0]}`?" if near else f"{above} holds {_seen(above)}"
    raise ConfigError(f"data.path does not exist: {root}", guess, "Correct `data.path`, or put the spans there.")


def _walk(root: Path, pattern: Pattern) -> Iterator[tuple[dict[str, str], str | None, str | None]]:
    """Yields (matched texts, span folder, file) for each file, with None as the file for a span folder itself."""

    def visit(depth: int, relative: str, groups: dict[str, str], folder: str | None) -> Iterator:
        level, last = pattern.levels[depth], depth == len(pattern.levels) - 1
        for name, is_dir in _entries(f"{root}/{relative}", level):
            matched = level.fullmatch(name) if isinstance(level, re.Pattern) else None
            if isinstance(level, re.Pattern) and matched is None:
                continue
            inner = {**groups, **matched.groupdict()} if matched else groups
            path = f"{relative}/{name}" if relative else name
            if last and not is_dir:
                yield inner, folder, path
            elif not last and is_dir:
                own = path if depth + 1 == pattern.folder_depth else folder
                if own is not None and own != folder:
                    yield inner, own, None
                yield from visit(depth + 1, path, inner, own)

    yield from visit(0, "", {}, None)


def _entries(folder: str, level: str | re.Pattern[str]) -> Iterator[tuple[str, bool]]:
    """Yields a folder's names with whether each is a folder; of a plain level only that name."""
    if isinstance(level, str):
        path = os.path.join(folder, level)
        if os.path.exists(path):
            yield level, os.path.isdir(path)
        return
    try:
        with os.scandir(folder) as entries:
            listed = [(entry.name, entry.is_dir()) for entry in entries]
    except OSError as error:
        raise SpanError(
            f"{folder} cannot be listed",
            str(error.strerror),
            "Mend the folder's permissions, or rename it to begin with `_`.",
        ) from error
    yield from listed


def _span_version(
    root: Path, pattern: Pattern, key: tuple[int, int | None], delivery: _Delivery, data: DataSettings
) -> SpanVersion:
    number, version = key
    label = pattern.label(number)
    if len(delivery.texts) > 1:
        raise SpanError(
            f"span {label} is there under several names",
            f"{', '.join(sorted(delivery.texts))} in {root} all mean span {label}",
            "Keep one of them; names that begin with `_` are left alone.",
        )
    files = sorted(delivery.files)
    reason = ""
    if delivery.unreadable:
        reason = "; ".join(sorted(delivery.unreadable))
    elif not files:
        wanted = pattern.text.split("/", pattern.folder_depth)[-1]
        reason = f"{', '.join(sorted(delivery.folders))} holds no file `{wanted}`"
    elif data.success_marker is not None:
        bare = sorted(
            folder for folder in delivery.folders if not os.path.exists(f"{root}/{folder}/{data.success_marker}")
        )
        reason = f"{', '.join(bare)} has no {data.success_marker} yet" if bare else ""
    digest = hashlib.blake2b(digest_size=16)
    for name, size, modified in files:
        digest.update(f"{name}\0{size}\0{modified}\0".encode(errors="surrogateescape"))
    return SpanVersion(
        span=number,
        version=version,
        label=label,
        files=tuple(name for name, _, _ in files),
        complete=not reason,
        reason=reason,
        quick_digest=digest.hexdigest(),
        bytes=sum(size for _, size, _ in files),
    )


def content_digest(data: DataSettings, span: SpanVersion) -> str:
    """Hashes the names and contents of a span's files.

    Args:
      data: the section `data` of the configuration.
      span: the span version.

    Returns:
      A hexadecimal digest; equal deliveries give equal digests whatever their files' times are.

    Raises:
      SpanError: a file is gone or cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    root = Path(data.path)
    for name in span.files:
        try:
            with open(root / name, "rb") as file:
                digest.update(f"{name}\0{os.fstat(file.fileno()).st_size}\0".encode(errors="surrogateescape"))
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
        except OSError as error:
            raise SpanError(
                f"span {span.name} cannot be read",
                f"{root / name}: {error.strerror}",
                "Deliver the span again, or mend the file's permissions.",
            ) from error
    return digest.hexdigest()


def require(found: Iterable[SpanVersion], wanted: int, label: str) -> SpanVersion:
    """Picks the newest complete version of a named span.

    Args:
      found: what `discover` listed.
      wanted: the span's number.
      label: the span as the user wrote it.

    Returns:
      The span version.

    Raises:
      SpanError: it is not there, with the nearest that are, or it is not complete, with the reason.
    """
    found = list(found)
    versions = [span for span in found if span.span == wanted]
    complete = [span for span in versions if span.complete]
    if complete:
        return complete[-1]
    if versions:
        raise SpanError(
            f"span {label} is not complete",
            versions[-1].reason,
            "Deliver it whole, with its marker where one is required.",
        )
    near = sorted(sorted({span.span: span.label for span in found}.items(), key=lambda item: abs(item[0] - wanted))[:5])
    raise SpanError(
        f"span {label} does not exist",
        "the nearest that are there: " + (", ".join(text for _, text in near) or "none"),
        "Name one of these, or deliver the span.",
    )


def _names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def _seen(folder: Path) -> str:
    """Says what a folder holds, a few names of it."""
    names = [name + "/" if (folder / name).is_dir() else name for name in _names(folder)]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more if names else "nothing"
