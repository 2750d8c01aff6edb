"""What changed between two versions; only what differs. Pure, but for reading two schema files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evergreen.components import schema_file
from evergreen.pipeline.console import number, size
from evergreen.pipeline.lineage.records import Provenance
from evergreen.pipeline.lineage.tree import is_number, packages_of


@dataclass(frozen=True)
class Change:
    """One thing that differs.

    Attributes:
      section: `spans`, `rows`, `schema`, `code`, `hyperparameters`, `training`, `packages`, `metrics`, `slices`,
        `files` or `latency`.
      name: what differs.
      before: on the older side; None where it is not there.
      after: on the newer side; None where it is not there.
    """

    section: str
    name: str
    before: Any
    after: Any

    @property
    def difference(self) -> float | None:
        """By how much a number changed; None where it is no number on both sides."""
        if not (is_number(self.before) and is_number(self.after)):
            return None
        return self.after - self.before


def compare(before: Provenance, after: Provenance, least_rows: int = 0) -> list[Change]:
    """Compares two versions.

    Args:
      before: one version.
      after: the other.
      least_rows: rows that a slice must have on both sides to be compared.

    Returns:
      What differs, by section.
    """
    sides = before, after
    changes: list[Change] = []
    for section, values in (
        ("spans", [_spans(side) for side in sides]),
        ("rows", [_rows(side) for side in sides]),
        ("schema", [_schema(side) for side in sides]),
        ("code", [_code(side) for side in sides]),
        ("hyperparameters", [_hyperparameters(side) for side in sides]),
        ("training", [_training(side) for side in sides]),
        ("packages", [_packages(side) for side in sides]),
        ("metrics", [side.metrics for side in sides]),
        ("slices", [_slices(side, least_rows) for side in sides]),
        ("files", [_files(side) for side in sides]),
        ("latency", [_latency(side) for side in sides]),
    ):
        changes += differences(section, *values)
    return changes


def differences(section: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Compares two mappings.

    Args:
      section: what to call them.
      before: one side.
      after: the other.

    Returns:
      A change for each key whose values differ, in the order of the keys.
    """
    keys = [*before, *(key for key in after if key not in before)]
    return [Change(section, key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)]


def words(change: Change) -> tuple[str, str, str]:
    """Writes a change for people: before, after, and by how much where that is a number."""
    sized = change.section == "files"

    def one(value: Any) -> str:
        if value is None:
            return "-"
        if is_number(value):
            return size(value) if sized else number(value)
        return value if isinstance(value, str) else json.dumps(value, default=str)

    by = change.difference
    text = "" if by is None else f"{'+' if by > 0 else '-'}{size(abs(by)) if sized else number(abs(by))}"
    return one(change.before), one(change.after), text


def _spans(side: Provenance) -> dict[str, str]:
    return {f"span {use.span}": f"delivery {use.version}, digest {use.digest[:12]}" for use in side.window}


def _rows(side: Provenance) -> dict[str, int]:
    rows: dict[str, int] = {}
    for use in side.window:
        for split, count in (use.trained or use.rows_by_split).items():
            rows[split] = rows.get(split, 0) + count
    return rows


def _schema(side: Provenance) -> dict[str, str]:
    """A schema field by field; its digest alone where the file is gone."""
    features = schema_fields(Path(str(side.schema.get("uri", "")), "schema.pbtxt")) if side.schema else {}
    return features or ({"digest": str(side.schema.get("digest"))} if side.schema else {})


def schema_fields(path: Path) -> dict[str, str]:
    """Reads a schema's features.

    Args:
      path: a schema.pbtxt.

    Returns:
      What is said of each feature, of string domains and of the data set, as one line of text each; empty where the
      file is gone or no schema.
    """
    from google.protobuf import text_format

    try:
        schema = schema_file.read(path)
    except (OSError, text_format.ParseError):
        return {}
    fields = {}
    for feature in schema.feature:
        name = feature.name
        feature.ClearField("name")
        fields[name] = text_format.MessageToString(feature, as_one_line=True)
    for domain in schema.string_domain:
        fields[f"domain {domain.name}"] = ", ".join(domain.value)
    schema.ClearField("feature")
    schema.ClearField("string_domain")
    rest = text_format.MessageToString(schema, as_one_line=True)
    return {**fields, **({"data set": rest} if rest else {})}


def _code(side: Provenance) -> dict[str, str]:
    found = {"git": str(side.run_properties.get("code_version", "")) or "unknown"}
    if side.training:
        found["functions"] = side.training.fingerprint
        found["preprocessing_fn"] = str(side.transform.get("preprocessing_fn", ""))
    return found


def _packages(side: Provenance) -> dict[str, str]:
    digest = side.run_properties.get("packages_digest")
    return {**packages_of(side), **({"hash of all": str(digest)} if digest else {})}


def _hyperparameters(side: Provenance) -> dict[str, Any]:
    if side.training is None:
        return {}
    return dict(side.training.report.get("hyperparameters", side.training.settings.get("hyperparameters", {})))


def _training(side: Provenance) -> dict[str, Any]:
    if side.training is None:
        return {}
    settings = {key: value for key, value in side.training.settings.items() if key != "hyperparameters"}
    report = side.training.report
    return {
        **settings,
        "strategy used": report.get("strategy"),
        "parameters": report.get("parameters"),
        "warm start": "warm" if side.training.warm else "from scratch",
        "steps done": report.get("steps"),
    }


def _slices(side: Provenance, least_rows: int) -> dict[str, Any]:
    gate = next((gate for gate in side.gates if gate.gate == 2), None)
    slices = gate.numbers.get("slices", {}) if gate else {}
    return {
        f"{name} {metric}": value
        for name, values in slices.items()
        if (values.get("rows") or 0) >= least_rows
        for metric, value in values.items()
        if metric != "rows"
    }


def _files(side: Provenance) -> dict[str, Any]:
    variants = side.quantization.get("variants", {})
    return {
        "SavedModel": side.bytes or None,
        "chosen variant": side.quantization.get("chosen"),
        **{name: row.get("bytes") for name, row in variants.items()},
    }


def _latency(side: Provenance) -> dict[str, Any]:
    """What was measured of each variant, and milliseconds of a row through gate 4's server."""
    found = {}
    for name, row in side.quantization.get("variants", {}).items():
        for key, value in row.items():
            if key.startswith("latency") and is_number(value):
                found[f"{name} {key}"] = value
    for gate in side.gates:
        for key, value in gate.numbers.get("serving", {}).items():
            if key.endswith("p50_ms"):
                found[f"server {key}"] = value
    return found
