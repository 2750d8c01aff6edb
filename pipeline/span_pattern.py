"""Patterns of span files, such as `{SPAN}/*.parquet`: their meaning, and spans as people write them.

Pure text; `spans` matches patterns with a data directory.
"""

from __future__ import annotations

import datetime
import re

from evergreen.components.errors import ConfigError, SpanError

EPOCH = datetime.date(1970, 1, 1)
_SPEC = re.compile(r"\{([^{}]*)\}")
_DATE_DIGITS = {"YYYY": 4, "MM": 2, "DD": 2}


class Pattern:
    """A pattern of span files, understood.

    Args:
      text: the pattern, with `/` between folders.

    Attributes:
      text: the same.
      levels: one compiled expression for each folder level, the file's level last; a level without any place holder is
        its plain name.
      has_folder: whether a folder's name, and not only the file's, stands for the span or its version.

    Raises:
      ConfigError: the pattern names no span, or says it in a way that has no meaning.
    """

    def __init__(self, text: str):
        self.text = text
        found = _SPEC.findall(text)
        kinds = [spec.partition(":")[0] for spec in found]
        self._check(found, kinds)
        self.by_date = "YYYY" in kinds
        self.monthly = self.by_date and "DD" not in kinds
        parts = text.split("/")
        self.levels: list[str | re.Pattern[str]] = [_level(part) for part in parts]
        self._marked = max((i for i, part in enumerate(parts[:-1]) if _SPEC.search(part)), default=-1)
        self.has_folder = self._marked >= 0

    @property
    def folder_depth(self) -> int:
        """How many levels below `data.path` a span version's own folder lies; 0 where it has none."""
        return self._marked + 1

    def _check(self, found: list[str], kinds: list[str]) -> None:
        text = self.text
        if text.startswith("/") or any(part in ("", ".", "..", "**") for part in text.split("/")):
            raise _pattern_error(text, "a path below `data.path` with single names between `/`, without `**`")
        for spec, kind in zip(found, kinds, strict=True):
            width = spec.partition(":")[2]
            if kind not in ("SPAN", "VERSION", *_DATE_DIGITS) or (
                ":" in spec and (kind in _DATE_DIGITS or not re.fullmatch(r"[1-9]\d?", width))
            ):
                raise _pattern_error(
                    text, f"`{{SPAN}}`, `{{SPAN:2}}`, `{{YYYY}}`, `{{MM}}`, `{{DD}}` or `{{VERSION}}`, not `{{{spec}}}`"
                )
            if kinds.count(kind) > 1:
                raise _pattern_error(text, f"`{{{kind}}}` once")
        dates = set(kinds) & set(_DATE_DIGITS)
        if "SPAN" in kinds and dates:
            raise _pattern_error(text, "either `{SPAN}` or a date")
        if dates and not {"YYYY", "MM"} <= dates:
            raise _pattern_error(text, "a date with `{YYYY}` and `{MM}`, and `{DD}` for days")
        if "SPAN" not in kinds and not dates:
            raise _pattern_error(text, "`{SPAN}` or a date such as `{YYYY}-{MM}-{DD}` in the place of the span")

    def number(self, groups: dict[str, str]) -> int:
        """Returns the span's number from the matched texts.

        Raises:
          ValueError: there is no such date.
        """
        if not self.by_date:
            return int(groups["SPAN"])
        date = datetime.date(int(groups["YYYY"]), int(groups["MM"]), int(groups.get("DD", 1)))
        return (date - EPOCH).days

    def label(self, span: int) -> str:
        """Writes a span's number as people do: `7`, `2013-04` or `2013-04-30`."""
        if not self.by_date:
            return str(span)
        date = EPOCH + datetime.timedelta(days=span)
        return f"{date:%Y-%m}" if self.monthly else date.isoformat()

    def parse(self, text: str) -> int:
        """Reads a span as people write it, its label or its number.

        Args:
          text: `7`, `2013-04`, `2013-04-30`; of date spans also the number of days.

        Returns:
          The number.

        Raises:
          SpanError: the text is neither.
        """
        text = text.strip()
        if re.fullmatch(r"-?\d+", text):
            return int(text)
        if self.by_date:
            try:
                return (datetime.date.fromisoformat(f"{text}-01" if self.monthly else text) - EPOCH).days
            except ValueError:
                pass
        example = self.label(0 if self.by_date else 7)
        raise SpanError(
            f"{text!r} is not a span",
            f"received {text!r}, expected one such as {example}",
            "`evergreen plan` lists the spans.",
        )


def _pattern_error(text: str, wanted: str) -> ConfigError:
    return ConfigError(f"the pattern `{text}` has no meaning", wanted, "Correct `data.pattern`.")


def _level(part: str) -> str | re.Pattern[str]:
    """Compiles one folder level."""
    if not re.search(r"[*?\[{]", part):
        return part
    pieces = _SPEC.split(part)
    expression = ""
    for index, piece in enumerate(pieces):
        if index % 2 == 0:
            expression += _glob(piece)
            continue
        kind, _, width = piece.partition(":")
        digits = str(_DATE_DIGITS[kind]) if kind in _DATE_DIGITS else width
        expression += rf"(?P<{kind}>[0-9]{{{digits}}})" if digits else rf"(?P<{kind}>[0-9]+)"
    # A leading `_` or `.` must be asked for, as in a shell.
    hidden = "" if part[0] in "_." else "(?![_.])"
    return re.compile(hidden + expression)


def _glob(text: str) -> str:
    """Turns `*`, `?` and `[ab]`, `[!ab]` into a regular expression."""
    out, index = "", 0
    while index < len(text):
        char = text[index]
        end = text.find("]", index + 2) if char == "[" else -1
        if char == "*":
            out += "[^/]*"
        elif char == "?":
            out += "[^/]"
        elif end > 0:
            inner = text[index + 1 : end].replace("\\", "\\\\")
            out += f"[^{inner[1:]}]" if inner[0] in "!^" else f"[{inner}]"
            index = end
        else:
            out += re.escape(char)
        index += 1
    return out
