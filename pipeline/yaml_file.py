"""Reads a YAML file into plain values, and remembers the line of every key.

Scalars are read as YAML 1.2 has them, because 1.1, which PyYAML follows, surprises: `no` stays text and is not False
(it may be a country), `1e-3` is a number, `08` is 8, `12:30` and dates stay text. A key that stands twice in one map is
refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from evergreen.components.errors import ConfigError

KeyPath = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}

    def construct_int(self, node: yaml.ScalarNode) -> int:
        return int(self.construct_scalar(node).replace("_", ""))


_DIGITS = list("-+0123456789")
for tag, pattern, first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9][0-9_]*", _DIGITS),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        [*_DIGITS, "."],
    ),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(rf"^(?:{pattern})$"), first)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_int)


@dataclass(frozen=True)
class Document:
    """A YAML file's content.

    Attributes:
      values: the top map.
      lines: the line of each key and list entry, counted from 1, by its path, such as `("trainer", "steps")`.
    """

    values: dict[str, Any]
    lines: Mapping[KeyPath, int] = field(default_factory=dict)

    def line(self, path: KeyPath) -> int | None:
        """Returns the line of a key, or of the nearest key above it that is in the file."""
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path[:-1]
        return None


def read(path: Path) -> Document:
    """Reads a file that holds one map.

    Args:
      path: the file.

    Returns:
      Its values and the lines of its keys.

    Raises:
      ConfigError: the file cannot be read, is no YAML, repeats a key, or holds something else than a map.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error.strerror)
        raise ConfigError(f"{path} cannot be read", reason, "Name another file with -c, or mend this one.") from error
    return parse(text, path.name)


def parse(text: str, name: str) -> Document:
    """Parses the text of a file that holds one map; see `read`.

    Args:
      text: YAML.
      name: what messages call the file.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        lines: dict[KeyPath, int] = {}
        if node is not None:
            _walk(node, (), lines, name, frozenset())
        values = loader.construct_document(node) if node is not None else {}
    except yaml.YAMLError as error:
        raise _syntax_error(error, name) from error
    if not isinstance(values, dict):
        raise ConfigError(
            f"{name} does not hold keys and values",
            f"received {type(values).__name__}, expected a map that begins with `name:`",
            "`evergreen init` writes one to start from.",
        )
    return Document(values, lines)


def parse_value(text: str, name: str) -> Any:
    """Parses one value as YAML does: `3` is a number, `[a, b]` a list, `none` text.

    Args:
      text: the value.
      name: what messages call it.

    Raises:
      ConfigError: the text is no YAML.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise _syntax_error(error, name) from error


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers

    def ignore_aliases(self, data: Any) -> bool:
        return True


def dump_value(value: Any) -> str:
    """Writes one value on one line, so that `parse_value` reads the same.

    Args:
      value: plain values.
    """
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, sort_keys=False, width=100_000, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _walk(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], name: str, above: frozenset[int]) -> None:
    """Records the lines below a node and refuses repeated keys."""
    if id(node) in above:
        raise ConfigError(
            f"{name} contains itself",
            f"line {node.start_mark.line + 1}: an alias names a map or list that it is part of",
            "Write the value out.",
        )
    above = above | {id(node)}
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            below: KeyPath = (*path, index)
            lines[below] = child.start_mark.line + 1
            _walk(child, below, lines, name, above)
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, child in node.value:
            line, text = key.start_mark.line + 1, str(key.value)
            if text in seen and not key.tag.endswith(":merge"):
                raise ConfigError(
                    f"{name} has the key `{'.'.join(map(str, [*path, text]))}` twice",
                    f"lines {seen[text]} and {line}: only one of them could count",
                    "Remove one of the two.",
                )
            seen[text] = line
            below = (*path, text)
            lines[below] = line
            _walk(child, below, lines, name, above)


def _syntax_error(error: yaml.YAMLError, name: str) -> ConfigError:
    mark = getattr(error, "problem_mark", None)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    snippet = mark.get_snippet(indent=2, max_length=100) if mark and mark.buffer else ""
    reason = f"{place}{problem}" + (f"\n{snippet}" if snippet else "")
    return ConfigError(
        f"{name} is not valid YAML", reason, "Correct that place; often a colon, a quote or the indentation."
    )
