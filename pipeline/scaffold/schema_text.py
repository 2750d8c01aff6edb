"""The data contract that `init` starts from: a schema.pbtxt with a comment on each feature.

Types are what was found. The rest leaves room, because the next span is not the one that was looked at: a value may be
missing now and then, a category may be new, and a number may lie far outside of what was seen, though not absurdly far.
"""

from __future__ import annotations

import math

from evergreen.components.span_example_gen.columns import BYTES, INT
from evergreen.pipeline.scaffold.guess import Guess
from evergreen.pipeline.scaffold.profile import ColumnProfile, Profile

FEW_VALUES = 50
_ROOM = 10  # times the observed spread, on both sides
_LARGEST = 2**62

HEADER = """\
# What the data must look like: gate 1 rejects a span that does not. A start, found by `evergreen init` in
# {rows:,} rows: curate it. Missing columns, other types, too many missing values or unknown categories reject a span.
#
#   presence.min_fraction       the least share of rows with a value
#   min_domain_mass             the least share of values that are in the list of known ones
#   int_domain, float_domain    the range; here {room} times as wide as what was seen
#   drift_comparator            add `drift_comparator {{ infinity_norm {{ threshold: 0.1 }} }}` to a feature with known
#                               values, or `{{ jensen_shannon_divergence {{ threshold: 0.1 }} }}` to one of numbers, to
#                               reject a span whose distribution differs too much from the span before

default_environment: "TRAINING"
default_environment: "SERVING"
"""


def schema_text(profile: Profile, guess: Guess) -> str:
    """Writes the schema.

    Args:
      profile: what the columns hold.
      guess: what they are for.

    Returns:
      The text of a schema.pbtxt.
    """
    parts = [HEADER.format(rows=profile.rows, room=_ROOM)]
    for column in profile.columns:
        if column.kind:
            parts.append(_feature(column, guess))
    return "\n".join(parts)


def _feature(column: ColumnProfile, guess: Guess) -> str:
    label = column.name == guess.label
    lines = ["feature {", f"  name: {_quoted(column.name)}", f"  type: {column.kind}"]
    if label:
        lines.append('  not_in_environment: "SERVING"')
    if column.several:
        lines.append("  value_count { min: 0 }")
    else:
        lines.append("  value_count { min: 1 max: 1 }")
    # What no model reads may be missing and may hold anything.
    if column.name not in guess.left_out:
        lines.append(f"  presence {{ min_fraction: {_fraction(column, label)} min_count: 1 }}")
        lines += _domain(column, label and guess.binary)
    elif column.name == guess.time:
        lines.append("  presence { min_fraction: 0.99 min_count: 1 }")
    return "\n".join([*(f"# {text}" for text in _comments(column, guess)), *lines, "}\n"])


def _comments(column: ColumnProfile, guess: Guess) -> list[str]:
    role = "the label" if column.name == guess.label else "not a feature: " + guess.left_out.get(column.name, "")
    said = [role] if column.name == guess.label or column.name in guess.left_out else []
    if column.missing:
        said.append(f"{column.missing / column.rows:.1%} missing")
    if column.is_number and math.isfinite(column.minimum) and not column.timestamp:
        said.append(f"seen {column.minimum:g} to {column.maximum:g}")
    return ["; ".join(said)] if said else []


def _fraction(column: ColumnProfile, label: bool) -> str:
    if label:
        return "1.0"  # rows without it are left out of a span before this is checked
    return "0.99" if not column.missing else f"{math.floor(column.present * 80) / 100:g}"


def _domain(column: ColumnProfile, binary: bool) -> list[str]:
    if column.kind == BYTES:
        values = column.counts
        if values is None or len(values) > FEW_VALUES or column.rows < 4 * len(values) or column.several:
            return []
        listed = [f"    value: {_quoted(value)}" for value in sorted(values)]
        return ["  distribution_constraints { min_domain_mass: 0.95 }", "  string_domain {", *listed, "  }"]
    if not math.isfinite(column.minimum):
        return []
    spread = max(column.maximum - column.minimum, abs(column.maximum), 1.0) * _ROOM
    low, high = (0.0, 1.0) if binary else (column.minimum - spread, column.maximum + spread)
    if column.kind == INT:
        low, high = max(math.floor(low), -_LARGEST), min(math.ceil(high), _LARGEST)
        return [f"  int_domain {{ min: {low} max: {high} }}"]
    return [f"  float_domain {{ min: {low:.6g} max: {high:.6g} }}"]


def _quoted(text: str) -> str:
    """Writes a string as protobuf's text format does."""
    for char, escape in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        text = text.replace(char, escape)
    return f'"{text}"'
