"""Makes a project of a file: looks into it, guesses, writes the four files, divides the data into spans.

What is written is loaded and checked at once, and a project that would not load is not left behind. Nothing that exists
is overwritten.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evergreen.components.errors import ConfigError
from evergreen.components.span_example_gen.columns import BYTES, FLOAT, INT
from evergreen.pipeline.config import Config, check_files, load, with_overrides
from evergreen.pipeline.scaffold import deliver, layout, texts
from evergreen.pipeline.scaffold.deliver import Division, Source
from evergreen.pipeline.scaffold.guess import Guess, guess
from evergreen.pipeline.scaffold.layout import MARKER, Layout
from evergreen.pipeline.scaffold.profile import ColumnProfile, Profile, profile
from evergreen.pipeline.scaffold.schema_text import schema_text
from evergreen.pipeline.scaffold.texts import Placed

DATA_FOLDERS = ("data", "spans")
_NUMBERS = {"minimum": 0.0, "maximum": 1.0, "mean": 0.5, "deviation": 0.5}
_COLUMN: dict[str, Any] = {"rows": 1000, "missing": 0, "timestamp": False, "several": False, "example": "", **_NUMBERS}
# What a project without a file has in the place of columns.
EXAMPLE = Profile(
    format="csv",
    delimiter=",",
    rows=1000,
    complete=True,
    columns=(
        ColumnProfile(name="number", kind=FLOAT, counts=None, **_COLUMN),
        ColumnProfile(name="category", kind=BYTES, counts={"red": 500, "green": 500}, **_COLUMN),
        ColumnProfile(name="label", kind=INT, counts={"0": 500, "1": 500}, **_COLUMN),
    ),
)


@dataclass(frozen=True)
class Project:
    """A new project.

    Attributes:
      config: its configuration.
      files: what was written.
      guess: what the columns were taken for.
      profile: what they hold.
      division: how the file was divided into spans; None where it was not.
      layout: the spans that were there already; None where there were none.
    """

    config: Config
    files: tuple[Path, ...]
    guess: Guess
    profile: Profile
    division: Division | None
    layout: Layout | None


def create(
    source: Path | None,
    file: Path,
    name: str | None = None,
    label: str | None = None,
    time: str | None = None,
    overrides: Sequence[str] = (),
) -> Project:
    """Writes a project for a file or a folder of spans.

    Args:
      source: a CSV or Parquet file, or a folder of spans; None for a project whose columns are examples.
      file: the configuration file to write; the others go beside it.
      name: the project's name; by default the source's.
      label: the column to predict; guessed by default.
      time: the column with the times; guessed by default.
      overrides: `key.path=value` each, for the configuration that is written.

    Returns:
      The project.

    Raises:
      ConfigError: a file is there already, the source is not what is expected, or an override is wrong.
      DataRejected: the source cannot be read.
    """
    _check_free(file)
    found_layout = layout.find(source) if source is not None else None
    found = EXAMPLE if source is None else profile(found_layout.files if found_layout else [source])
    guessed = guess(found, label, time)
    to_divide, division = None, None
    if source is None:
        placed = Placed("data", "{YYYY}-{MM}-{DD}/*.csv", MARKER, spans=1, rows=found.rows)
    elif found_layout is not None:
        placed = _placed(found_layout, found.rows, file.parent)
    else:
        way = guessed.time_format if guessed.time else None
        to_divide = Source(source, found.format, found.delimiter, guessed.time, way)
        division = deliver.divide(to_divide, found.rows)
        placed = _to_be_placed(division, source, _free_folder(file.parent))
    values = texts.config_values(name or _plain_name(source or file.parent), placed, found, guessed)
    values = with_overrides(values, overrides)
    written = {
        file.name: texts.yaml_text(values, guessed.label),
        "features.py": texts.features_text(guessed),
        "model.py": texts.model_text(guessed.binary),
        "schema.pbtxt": schema_text(found, guessed),
    }
    with _written(file.parent, written):
        config = load(file)
        check_files(config)
        if to_divide is not None and division is not None:
            deliver.write(to_divide, division, file.parent / placed.path)
    return Project(config, tuple(file.parent / one for one in written), guessed, found, division, found_layout)


def _check_free(file: Path) -> None:
    names = (file.name, "features.py", "model.py", "schema.pbtxt")
    there = [name for name in names if (file.parent / name).exists()]
    if there:
        raise ConfigError(
            "there is a project here already" if file.name in there else "a project would overwrite what is here",
            f"{file.parent} has {', '.join(there)}",
            "Choose another folder with --dir, or move these files away.",
        )


def _placed(found: Layout, rows: int, folder: Path) -> Placed:
    inside = found.root.resolve().is_relative_to(folder.resolve())
    path = found.root.resolve().relative_to(folder.resolve()) if inside else found.root.resolve()
    read = min(found.spans, layout.NEWEST)
    return Placed(str(path), found.pattern, found.marker, spans=found.spans, rows=max(1, rows // read))


def _to_be_placed(division: Division, source: Path, folder: Path) -> Placed:
    suffix = "".join(source.suffixes[-2:]) if source.name.endswith(".gz") else source.suffix
    if division.unit != "all":  # written anew, and unpacked
        suffix = ".parquet" if suffix in (".parquet", ".pq") else ".csv"
    rows = sum(division.rows.values()) // len(division.rows)
    return Placed(folder.name, f"{division.pattern}/*{suffix}", MARKER, spans=len(division.rows), rows=rows)


def _free_folder(folder: Path) -> Path:
    free = [folder / name for name in DATA_FOLDERS if not (folder / name).exists()]
    if not free:
        raise ConfigError(
            "there is no free folder for the spans",
            f"{' and '.join(DATA_FOLDERS)} exist in {folder}",
            "Choose another folder for the project with --dir.",
        )
    return free[0]


def _plain_name(source: Path) -> str:
    """Makes a project's name of a file's or folder's."""
    stem = re.sub(r"[^A-Za-z0-9]+", "-", source.resolve().name.split(".")[0]).strip("-").lower()[:50]
    return stem if stem[:1].isalpha() else f"model-{stem}".strip("-")


@contextlib.contextmanager
def _written(folder: Path, written: Mapping[str, str]) -> Iterator[None]:
    """Writes files; takes them away again where the block fails."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for name, text in written.items():
            (folder / name).write_text(text, encoding="utf-8")
        yield
    except BaseException:
        for name in written:
            (folder / name).unlink(missing_ok=True)
        raise
