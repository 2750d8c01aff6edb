"""Lays values out as HTML: one file with everything inside, or a page of the local server. Escapes everything."""

from __future__ import annotations

import base64
import hashlib
import math
from functools import cache
from pathlib import Path
from typing import Any

from evergreen.pipeline import console

STATIC = Path(__file__).parent / "static"
_TEMPLATES = Path(__file__).parent / "templates"
STYLES = ("uplot/uPlot.min.css", "style.css")
SCRIPTS = ("uplot/uPlot.iife.min.js", "dagre/dagre.min.js", "plots.js", "network.js")
ABSENT = "–"


@cache
def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        number=number,
        size=console.size,
        duration=lambda value: ABSENT if value is None else console.duration(value),
        clock=console.clock,
        ago=ago,
        signed=signed,
        percent=lambda value: ABSENT if value is None else f"{value:.1%}",
        count=lambda value: ABSENT if value is None else f"{value:,}",
    )
    return environment


def page(template: str, **values: Any) -> str:
    """Lays out a page of the local server.

    Args:
      template: its name without `.html`.
      values: what the template shows.
    """
    return str(_environment().get_template(f"{template}.html").render(inline=None, **values))


def report(template: str, **values: Any) -> str:
    """Lays out one self-contained file, whose own policy forbids it to load anything.

    Args:
      template: its name without `.html`.
      values: what the template shows.
    """
    styles = [_static(name) for name in STYLES]
    scripts = [_static(name) for name in SCRIPTS]
    hashes = " ".join(f"'sha256-{_digest(text)}'" for text in scripts)
    policy = f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; form-action 'none'"
    inline = {"styles": styles, "scripts": scripts, "policy": policy}
    return str(_environment().get_template(f"{template}.html").render(inline=inline, **values))


def _static(name: str) -> Any:
    import markupsafe

    # Our own files; none of them holds a closing tag, which tests check.
    return markupsafe.Markup((STATIC / name).read_text(encoding="utf-8"))


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def number(value: Any) -> str:
    """Writes whatever was measured: numbers with four digits that matter, a dash for nothing."""
    if value is None or value == "":
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return console.number(value) if math.isfinite(value) else ABSENT
    return str(value)


def signed(value: float | None) -> str:
    """Writes a difference with its sign, four decimals."""
    return ABSENT if value is None else f"{value:+.4f}"


def ago(value: str | float | None) -> str:
    """Writes how long ago a moment was."""
    moment = console.moment(value)
    return ABSENT if moment is None else console.age(moment)
