"""Turns what pydantic and the checks found into one `ConfigError` that names every mistake of a file at once.

Each mistake has the key's path, the line, the value received and what was expected; an unknown key also the nearest
known one.
"""

from __future__ import annotations

import difflib
import json
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pydantic
from pydantic import BaseModel

from evergreen.components.errors import ConfigError
from evergreen.pipeline.yaml_file import Document, KeyPath

_RECEIVED_WIDTH = 60
_PASSWORD = re.compile(r"(://[^:/@\s]*):[^@\s]*@")
_TYPES = {
    "string_type": "text (in quotes where it looks like a number)",
    "string_too_short": "text that is not empty",
    "string_too_long": "a single character",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "`true` or `false`",
    "list_type": "a list, such as `[a, b]`",
    "dict_type": "a map, such as `{key: value}`",
    "model_type": "a map, such as `{key: value}`",
    "too_short": "at least one entry",
}
_BOUNDS = {
    "greater_than_equal": ("ge", "{} or more"),
    "greater_than": ("gt", "more than {}"),
    "less_than_equal": ("le", "{} or less"),
    "less_than": ("lt", "less than {}"),
}


@dataclass(frozen=True)
class Problem:
    """One mistake.

    Attributes:
      path: the key's path.
      text: what is wrong, with what was received and expected.
    """

    path: KeyPath
    text: str


def mismatch(path: KeyPath, received: Any, expected: str) -> Problem:
    """Returns the problem of a value that is not what it should be.

    Args:
      path: the key's path.
      received: its value.
      expected: what was expected, to follow that word.
    """
    return Problem(path, f"received {show(received)}, expected {expected}")


def show(value: Any) -> str:
    """Prints a value of a configuration on one line, cut to a readable length, passwords in URLs masked."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    text = _PASSWORD.sub(r"\1:***@", text)
    return text if len(text) <= _RECEIVED_WIDTH else text[: _RECEIVED_WIDTH - 3] + "..."


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns "did you mean `x`?" for the nearest known word, or nothing where none is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean `{near[0]}`?" if near else ""


def from_validation(error: pydantic.ValidationError, model: type[BaseModel], prefix: KeyPath = ()) -> list[Problem]:
    """Turns pydantic's findings into problems.

    Args:
      error: what pydantic raised.
      model: the model of the whole file, in which unknown keys are looked up.
      prefix: the path of the section that was validated.
    """
    return [_problem(one, model, (*prefix, *one["loc"])) for one in error.errors(include_url=False)]


def _problem(error: Mapping[str, Any], model: type[BaseModel], path: KeyPath) -> Problem:
    kind, received, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return Problem(path, _unknown_key(str(path[-1]), path[:-1], model))
    if kind == "missing":
        return Problem(path, f"is missing: {_meaning(path, model)}")
    if kind == "expected":
        return mismatch(path, received, context["expected"])
    if kind == "literal_error":
        guess = did_you_mean(str(received), _quoted(context["expected"]))
        return mismatch(
            path,
            received,
            "one of " + context["expected"].replace("'", "`").replace(" or ", ", ") + (f"; {guess}" if guess else ""),
        )
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return mismatch(path, received, "a number, " + words.format(f"{context[name]:g}"))
    if kind in _TYPES:
        return mismatch(path, received, _TYPES[kind])
    return mismatch(path, received, error["msg"][0].lower() + error["msg"][1:])


def _quoted(text: str) -> list[str]:
    return re.findall(r"'([^']*)'", text)


def _unknown_key(key: str, above: KeyPath, model: type[BaseModel]) -> str:
    keys = list(fields_below(above, model))
    guess = did_you_mean(key, keys)
    if not guess:
        homes = [f"{section}.{key}" for section, inner in _sections(model) if key in names(inner)]
        guess = f"did you mean `{homes[0]}`?" if homes else ""
    known = "known here: " + ", ".join(keys)
    return f"unknown key; {guess} ({known})" if guess else f"unknown key; {known}"


def names(model: type[BaseModel]) -> dict[str, Any]:
    """Returns a model's fields by the names that stand in the file."""
    return {info.alias or name: info for name, info in model.model_fields.items()}


def inner_model(annotation: Any) -> type[BaseModel] | None:
    """Returns the model inside of an annotation such as `Section | None` or `list[Section]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (list, typing.Union, types.UnionType, typing.Annotated):
        for part in typing.get_args(annotation):
            found = inner_model(part)
            if found is not None:
                return found
    return None


def _sections(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    for name, info in names(model).items():
        inner = inner_model(info.annotation)
        if inner is not None:
            yield name, inner


def fields_below(path: KeyPath, model: type[BaseModel]) -> dict[str, Any]:
    """Returns the fields of the section at a path, empty where that is no section."""
    current: type[BaseModel] | None = model
    for part in path:
        if isinstance(part, str) and current is not None:
            info = names(current).get(part)
            current = inner_model(info.annotation) if info is not None else None
    return names(current) if current is not None else {}


def _meaning(path: KeyPath, model: type[BaseModel]) -> str:
    info = fields_below(path[:-1], model).get(str(path[-1]))
    description = info.description if info is not None and info.description else "it is required"
    return description[0].lower() + description[1:].rstrip(".")


def config_error(
    problems: Sequence[Problem], name: str, document: Document, overridden: Iterable[KeyPath]
) -> ConfigError:
    """Returns the error that names all mistakes.

    Args:
      problems: the mistakes.
      name: the file's name.
      document: what was read from it, for the lines.
      overridden: paths that `--set` has set.
    """
    overridden = list(overridden)
    lines = []
    for problem in sorted(problems, key=lambda one: (_order(one, document), str(one.path))):
        key = ".".join(str(part) for part in problem.path) or "the file"
        from_option = any(problem.path[: len(path)] == path for path in overridden)
        line = document.line(problem.path)
        place = " (--set)" if from_option else f" (line {line})" if line else ""
        lines.append(f"{key}{place}: {problem.text}")
    count = "a mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
    next_step = "Correct the file; docs/configuration.md explains every key."
    return ConfigError(f"{name} has {count}", "\n".join(lines), next_step)


def _order(problem: Problem, document: Document) -> int:
    return document.line(problem.path) or 0
