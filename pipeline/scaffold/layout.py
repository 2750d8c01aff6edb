"""Whether a stranger's files lie in spans already: dates or numbers in folders' names, dates in files' names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from evergreen.components.errors import ConfigError, EvergreenError
from evergreen.pipeline import spans
from evergreen.pipeline.scaffold.profile import format_of
from evergreen.pipeline.settings import DataSettings

MARKER = "_SUCCESS"
NEWEST = 3  # spans that are looked into
_DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)([-_.]?)(0[1-9]|1[0-2])(?:\2(0[1-9]|[12]\d|3[01]))?(?!\d)")
_NUMBER = re.compile(r"((?:span[-_=]?)?)\d+")
_YEAR = re.compile(r"((?:year=)?)(?:19|20)\d\d")
_MONTH = re.compile(r"((?:month=)?)(?:0[1-9]|1[0-2])")
_DAY = re.compile(r"((?:day=)?)(?:0[1-9]|[12]\d|3[01])")


@dataclass(frozen=True)
class Layout:
    """Files that lie in spans.

    Attributes:
      root: the folder for `data.path`.
      pattern: `data.pattern`.
      marker: the marker that every span's folder has, None where one has not.
      files: the newest spans' files.
      spans: how many spans there are.
      newest: label of the newest.
    """

    root: Path
    pattern: str
    marker: str | None
    files: tuple[Path, ...]
    spans: int
    newest: str


def find(source: Path) -> Layout | None:
    """Looks whether a file, or the files in a folder, lie in spans.

    Args:
      source: a CSV or Parquet file, or a folder.

    Returns:
      The layout; None for a file that stands for itself.

    Raises:
      ConfigError: the source is not there, or is a folder that does not hold spans of such files.
    """
    if source.is_dir():
        return _in_folder(source)
    if not source.is_file():
        raise ConfigError(
            f"{source} does not exist", "expected a CSV or Parquet file, or a folder of spans", "Correct the path."
        )
    if format_of(source) is None:
        raise ConfigError(
            f"{source.name} is neither CSV nor Parquet",
            "expected a name that ends in .csv, .csv.gz, .tsv, .txt, .parquet or .pq",
            "Rename it, or convert it.",
        )
    parents = source.parents
    for depth in (0, 1, 2, 3):
        if depth < len(parents):
            # A name with a date may be a lone export of everything: only several of them are spans.
            found = _layout(parents[depth], source, least=2)
            if found is not None:
                return found
    return None


def _in_folder(folder: Path) -> Layout:
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and format_of(path) and not _hidden(path, folder)
    )
    for file in files:
        found = _layout(folder, file, least=1)
        if found is not None:
            return found
    what = f"{len(files)} files, such as {files[0].relative_to(folder)}" if files else "no CSV or Parquet file"
    raise ConfigError(
        f"{folder} does not hold spans",
        f"received {what}; expected folders or files with dates or numbers in their names, such as 2024-05/sales.csv",
        "Give one file of it: it is copied into spans.",
    )


def _hidden(path: Path, folder: Path) -> bool:
    return any(part[0] in "_." for part in path.relative_to(folder).parts)


def _layout(root: Path, sample: Path, least: int) -> Layout | None:
    """Tries to see the sample's path below the root as one span of a pattern that at least so many spans follow."""
    pattern = _pattern(sample.relative_to(root).parts)
    if pattern is None:
        return None
    settings = DataSettings.model_validate({"path": str(root), "pattern": pattern})
    try:
        found = spans.discover(settings)
        marked = spans.discover(settings.model_copy(update={"success_marker": MARKER}))
    except EvergreenError:
        return None
    complete = [span for span in found if span.complete]
    if len(complete) < least:
        return None
    in_folders = "/" in pattern
    return Layout(
        root=root,
        pattern=pattern,
        marker=MARKER if in_folders and all(span.complete for span in marked) else None,
        files=tuple(root / name for span in complete[-NEWEST:] for name in span.files),
        spans=len(complete),
        newest=complete[-1].label,
    )


def _pattern(parts: tuple[str, ...]) -> str | None:
    """Returns the pattern of a relative path in which something stands for a span, None where nothing does."""
    *folders, name = parts
    if any(char in "".join(parts) for char in "*?[]{}"):
        return None
    suffix = "".join(Path(name).suffixes[-2:]) if name.endswith(".gz") else Path(name).suffix
    patterns = list(folders)
    for index, folder in enumerate(folders):
        date, number = _DATE.search(folder), _NUMBER.fullmatch(folder)
        nested = _nested(folders[index : index + 3])
        if date is not None:
            patterns[index] = _dated(folder, date)
        elif nested:
            patterns[index : index + len(nested)] = nested
        elif number is not None and index == len(folders) - 1:
            patterns[index] = number.group(1) + "{SPAN}"
        else:
            continue
        below = patterns[index + (len(nested) if date is None and nested else 1) :]
        return "/".join([*patterns[: len(patterns) - len(below)], *("*" for _ in below), f"*{suffix}"])
    date = _DATE.search(name)
    return None if date is None or folders else _dated(name, date)


def _dated(text: str, date: re.Match[str]) -> str:
    separator = date.group(2)
    specs = ["{YYYY}", "{MM}"] + (["{DD}"] if date.group(4) else [])
    return text[: date.start()] + separator.join(specs) + text[date.end() :]


def _nested(folders: list[str]) -> list[str]:
    """Returns patterns for `2024/05`, `2024/05/17`, `year=2024/month=05`, as far as they go; none where they do not."""
    matched = []
    for folder, expression, spec in zip(folders, (_YEAR, _MONTH, _DAY), ("{YYYY}", "{MM}", "{DD}"), strict=False):
        found = expression.fullmatch(folder)
        if found is None:
            break
        matched.append(found.group(1) + spec)
    return matched if len(matched) >= 2 else []
