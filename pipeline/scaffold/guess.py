"""Which column is the label, which the time, which are features: guesses, each with its reason.

Pure: works on a profile. What the user names is taken as it is, or refused with the reason.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from evergreen.components.errors import ConfigError
from evergreen.components.span_example_gen.columns import BYTES, INT
from evergreen.pipeline.scaffold import times
from evergreen.pipeline.scaffold.profile import MANY, ColumnProfile, Profile
from evergreen.pipeline.scaffold.times import TimeFormat

# In the order of trust; compared without case, blanks and underscores.
_LABELS = """
label target outcome response class y churn churned fraud isfraud default defaulted late delayed converted clicked click
survived cancelled price saleprice sales revenue demand income amount total cnt count score rating duration
"""
_TIMES = "timestamp datetime date time day timehour month ts created createdat updatedat eventtime orderdate"
LABELS, TIMES = tuple(_LABELS.split()), tuple(_TIMES.split())
_SAMPLE = 1_000


@dataclass(frozen=True)
class Guess:
    """What the columns are for.

    Attributes:
      label: the column to predict.
      label_why: why that one.
      binary: whether the label is yes or no.
      time: the column that orders the rows, None where there is none.
      time_why: why that one, or why none.
      time_format: how its times are written.
      clock: whether they name a time of day.
      numeric: columns that are features as numbers.
      categorical: columns that are features as categories.
      left_out: the other columns, each with the reason.
    """

    label: str
    label_why: str
    binary: bool
    time: str | None
    time_why: str
    time_format: TimeFormat | None
    clock: bool
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    left_out: dict[str, str]


def guess(profile: Profile, label: str | None = None, time: str | None = None) -> Guess:
    """Guesses what each column is for.

    Args:
      profile: what the file holds.
      label: the column that the user names as the label.
      time: the column that the user names as the time.

    Returns:
      The guess.

    Raises:
      ConfigError: a named column is not there or cannot be that, or no column can be the label.
    """
    timed = {column.name: way for column in profile.columns if (way := _time_format(column)) is not None}
    time_name, time_why = _time(profile, timed, time, label)
    label_name, label_why = _label(profile, set(timed), label, time_name)
    target = profile.column(label_name)
    binary = set(target.counts or ()) <= {"0", "1", "0.0", "1.0", "true", "false", "True", "False", "TRUE", "FALSE"}
    if len(target.counts or (1, 2)) < 2:
        raise ConfigError(
            f"the label `{label_name}` is the same in every row",
            f"received {target.example} {profile.rows:,} times, expected values that differ",
            "Name another column with --label, or give more data.",
        )
    way = timed.get(time_name) if time_name else None
    numeric, categorical, left_out = _features(profile, label_name, set(timed))
    return Guess(
        label=label_name,
        label_why=label_why,
        binary=binary,
        time=time_name,
        time_why=time_why,
        time_format=way,
        clock=way is not None and time_name is not None and times.has_clock(_texts(profile.column(time_name)), way),
        numeric=tuple(numeric),
        categorical=tuple(categorical),
        left_out=left_out,
    )


def plain(name: str) -> str:
    """Returns a name without what people vary: case, blanks, punctuation."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def key(column: str) -> str:
    """Returns the name under which a column's feature is given to the model: TensorFlow's names hold no blanks."""
    return re.sub(r"\W", "_", column, flags=re.ASCII)


def _texts(column: ColumnProfile) -> list[str]:
    if column.counts is None:
        return [column.example]
    return list(column.counts)[:_SAMPLE]


def _time_format(column: ColumnProfile) -> TimeFormat | None:
    """Returns how a column writes times, None where it holds none."""
    if column.several or (column.kind not in (BYTES, INT)):
        return None
    if column.timestamp:
        return times.TIMESTAMP
    way = times.recognise(_texts(column))
    # Whole numbers may look like times by chance.
    return way if way is None or column.kind == BYTES or plain(column.name) in TIMES else None


def _time(
    profile: Profile, timed: dict[str, TimeFormat], named: str | None, label: str | None
) -> tuple[str | None, str]:
    if named is not None:
        _require(profile, named, "--time")
        if named not in timed:
            ways = ", ".join(way.name for way in times.FORMATS)
            raise ConfigError(
                f"the column `{named}` holds no times",
                f"received such as {profile.column(named).example!r}, expected one of: {ways}",
                "Name another column with --time, or leave it away.",
            )
        return named, "you named it"
    candidates = [name for name in timed if name != label and profile.column(name).present > 0.9]
    by_name = sorted((name for name in candidates if plain(name) in TIMES), key=lambda name: TIMES.index(plain(name)))
    if by_name:
        return by_name[0], "it holds times, and its name says so"
    if candidates:
        return candidates[0], "it is the first column that holds times"
    return None, "no column holds times"


def _label(profile: Profile, timed: set[str], named: str | None, time: str | None) -> tuple[str, str]:
    if named is not None:
        _require(profile, named, "--label")
        column = profile.column(named)
        if not column.is_number or column.several:
            values = ", ".join(repr(text) for text in _texts(column)[:5])
            raise ConfigError(
                f"the label `{named}` is not a number",
                f"received such as {values}, expected numbers, or 0 and 1 for no and yes",
                "Add a column with the numbers to the data, and name that one.",
            )
        return named, "you named it"
    possible = [
        column.name
        for column in profile.columns
        if column.is_number and not column.several and column.name not in timed and not _is_id(column)
        and len(column.counts or (1, 2)) > 1
        and column.present >= 0.5
    ]  # fmt: skip
    if not possible:
        raise ConfigError(
            "no column can be the label",
            f"received {', '.join(profile.names)}; expected a column of numbers that differ",
            "Name it with --label, or add it to the data.",
        )
    known = [(LABELS.index(plain(name)), name) for name in possible if plain(name) in LABELS]
    if known:
        return min(known)[1], "its name is one that labels often have"
    last = possible[-1]
    return last, "it is the last column" if last == profile.names[-1] else "it is the last column that can be one"


def _require(profile: Profile, name: str, option: str) -> None:
    if name not in profile.names:
        near = difflib.get_close_matches(name, profile.names, n=1)
        raise ConfigError(
            f"there is no column `{name}`",
            (f"did you mean `{near[0]}`? " if near else "") + f"the file has {', '.join(profile.names)}",
            f"Correct {option}.",
        )


def _is_id(column: ColumnProfile) -> bool:
    """Whether a column of whole numbers counts or names the rows."""
    if column.kind != INT:
        return False
    distinct = len(column.counts) if column.counts is not None else column.rows
    named = bool(re.search(r"(^|[^a-z])(id|index|key|uuid|unnamed|rowid|rownum)($|[^a-z])", column.name.lower()))
    consecutive = column.maximum - column.minimum + 1 == column.rows
    return distinct >= 0.95 * column.rows and column.rows > 20 and (named or consecutive)


def _features(profile: Profile, label: str, timed: set[str]) -> tuple[list[str], list[str], dict[str, str]]:
    numeric: list[str] = []
    categorical: list[str] = []
    left_out: dict[str, str] = {}
    taken = {label}
    for column in profile.columns:
        if column.name == label:
            continue
        reason = _why_no_feature(column, timed)
        if not reason and key(column.name) in taken:
            reason = f"its name becomes {key(column.name)}, which is taken"
        if reason:
            left_out[column.name] = reason
            continue
        taken.add(key(column.name))
        (numeric if column.is_number else categorical).append(column.name)
    if not numeric and not categorical:
        raise ConfigError(
            "no column can be a feature",
            "; ".join(f"{name}: {reason}" for name, reason in left_out.items()) or "there is no column but the label",
            "Add columns to the data from which the label can be predicted.",
        )
    return numeric, categorical, left_out


def _why_no_feature(column: ColumnProfile, timed: Iterable[str]) -> str:
    """Returns why a column is not made a feature; empty where it is."""
    if column.missing == column.rows:
        return "it has no values"
    if column.several:
        return "a row holds a list"
    if column.name in timed:
        return "it holds times"
    if column.counts is not None and len(column.counts) < 2 and not column.missing:
        return "it is the same in every row"
    if _is_id(column):
        return "it numbers the rows"
    if column.kind == BYTES:
        if column.counts is None:
            return f"it has more than {MANY:,} different texts"
        distinct = len(column.counts)
        if distinct > 50 and distinct > 0.5 * column.rows:
            return "its texts hardly repeat"
    return ""
