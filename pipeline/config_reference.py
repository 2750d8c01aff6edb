"""Writes docs/configuration.md, the reference of every key, from the models of the configuration.

python -m evergreen.pipeline.config_reference > docs/configuration.md
"""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from evergreen.components.evaluator import metrics
from evergreen.components.quantizer.settings import VARIANTS
from evergreen.pipeline import settings
from evergreen.pipeline.config import Config
from evergreen.pipeline.config_errors import inner_model, names
from evergreen.pipeline.yaml_file import dump_value

HEAD = """\
# Configuration: every key of evergreen.yaml

<!-- Written by `python -m evergreen.pipeline.config_reference > docs/configuration.md`: change the models instead. -->

`evergreen.yaml` is found in the current folder or the nearest above, or named by `-c FILE`. Relative paths begin at
the file's folder; `~` is the home folder. `--set key.path=value` sets a key for one command, its value read as YAML.
Unknown keys are refused, and all mistakes of a file are told at once. Values are read as YAML 1.2 has them: `no` is
text, `1e-3` a number, and dates are text.

"""
TAIL = """\
## Names

- Metrics: {metrics}.
- Variants: {variants}.
- Stages for `components`: {stages}.
"""
_WORDS: dict[Any, str] = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null"}
_PATH, _FUNCTION = "path", "`module:function`"


def markdown() -> str:
    """Returns the reference as Markdown: a table for each section."""
    parts = [HEAD, *_section(Config, "")]
    lists = {"metrics": metrics.names(), "variants": VARIANTS, "stages": settings.STAGES}
    parts.append(TAIL.format(**{key: ", ".join(f"`{name}`" for name in found) for key, found in lists.items()}))
    return "".join(parts)


def _section(model: type[BaseModel], prefix: str) -> Iterator[str]:
    yield "| key | type | default | meaning |\n|---|---|---|---|\n"
    inner: list[tuple[str, type[BaseModel]]] = []
    for name, info in names(model).items():
        section = inner_model(info.annotation)
        if section is not None:
            inner.append((f"{prefix}{name}", section))
        description = (info.description or "").replace("|", "\\|")
        yield f"| `{prefix}{name}` | {_type(info)} | {_default(info, section)} | {description} |\n"
    yield "\n"
    for path, section in inner:
        title = (section.__doc__ or "").strip().splitlines()[0]
        yield f"## `{path}`\n\n{title}\n\n"
        yield from _section(section, f"{path}.")


def _type(info: FieldInfo) -> str:
    bounds = []
    for constraint in info.metadata:
        for key, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
            value = getattr(constraint, key, None)
            if value is not None:
                bounds.append(f"{sign} {value:,}")
    return ", ".join([_annotation(info.annotation, info.metadata), *bounds])


def _annotation(annotation: Any, metadata: Any = ()) -> str:
    validators = {getattr(constraint, "func", None) for constraint in metadata}
    if settings._resolve in validators:
        return _PATH
    if settings._function in validators:
        return _FUNCTION
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _annotation(arguments[0], arguments[1:])
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_annotation(part) for part in arguments)
    if origin is list:
        return f"list of {_annotation(arguments[0])}"
    if origin is dict:
        return f"map from {_annotation(arguments[0])} to {_annotation(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    return _WORDS.get(annotation, "any value")


def _default(info: FieldInfo, section: type[BaseModel] | None) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel):
        return "see below"
    return f"`{dump_value(value)}`"


if __name__ == "__main__":
    sys.stdout.write(markdown())
