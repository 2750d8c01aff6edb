"""Rows as JSON to what a model's signature takes: serialized tf.Example messages by the schema, or dense tensors.

Values become what SpanExampleGen makes of a span's columns, by the same code, so that a row is the same to a served
model as it was in training. Imports no TensorFlow.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from evergreen.components import schema_file
from evergreen.components.errors import ConfigError
from evergreen.components.model_server import rows as server_rows
from evergreen.components.model_server.signatures import Signature, Tensor
from evergreen.components.span_example_gen import columns, tf_example
from evergreen.pipeline.config_errors import did_you_mean

Row = Mapping[str, Any]

_WORDS = {columns.INT: "a whole number", columns.FLOAT: "a number", columns.BYTES: "text"}
_KINDS = {"i": columns.INT, "u": columns.INT, "b": columns.INT, "f": columns.FLOAT, "O": columns.BYTES}


def parse(lines: Iterable[str], where: str) -> list[dict[str, Any]]:
    """Reads rows: a JSON object on each line, or one JSON list of objects.

    Args:
      lines: the text; empty lines are passed over.
      where: what to call the text in an error.

    Returns:
      The rows.

    Raises:
      ConfigError: a line is no JSON object, or there is none.
    """
    text = list(lines)
    if next((line.lstrip()[:1] for line in text if line.strip()), "") == "[":
        try:
            found = list(enumerate(json.loads("".join(text)), start=1))
        except ValueError as error:
            raise _bad_line(where, str(error)) from None
    else:
        found = []
        for number, line in enumerate(text, start=1):
            if line.strip():
                try:
                    found.append((number, json.loads(line)))
                except ValueError as error:
                    raise _bad_line(f"{where}, line {number}", str(error)) from None
    for number, row in found:
        if not isinstance(row, dict):
            raise _bad_line(f"{where}, row {number}", f"received {json.dumps(row)[:80]}")
    if not found:
        raise ConfigError(
            f"{where} holds no rows", "it is empty", 'Write a JSON object a line: {"feature": value, ...}.'
        )
    return [row for _, row in found]


def inputs(
    rows: Sequence[Row], signature: Signature, name: str, schema: Mapping[str, str] | None
) -> dict[str, np.ndarray]:
    """Makes a signature's inputs of rows.

    Args:
      rows: raw features by name; null, or none at all, for what is missing.
      signature: the signature.
      name: its name.
      schema: kinds of the features by name (INT, FLOAT, BYTES); None where there is no project.

    Returns:
      By input, [rows, ...].

    Raises:
      ConfigError: a row has an unknown feature or a value of another kind, or tf.Examples are wanted without a schema.
    """
    known = {name: _KINDS[tensor.dtype.kind] for name, tensor in signature.inputs.items()}
    single = next(iter(signature.inputs)) if len(signature.inputs) == 1 else None
    # Messages in strings, or a text feature of that very name.
    by_example = single is not None and _takes_examples(signature.inputs[single]) and single not in rows[0]
    if by_example and schema is None:
        raise ConfigError(
            f"the signature `{name}` takes serialized tf.Example messages",
            "and without a project there is no schema that says what the features are",
            "Run this in the project's folder or with -c FILE, or name a signature over raw features by --signature.",
        )
    # A row may hold columns that this signature does not read, such as the label.
    kinds = {**known, **(schema or {})} if not by_example else dict(schema or {})
    _check(rows, kinds)
    serialized = _serialize(rows, kinds)
    if by_example and single is not None:
        return {single: server_rows.strings(serialized)}
    tensors, whole = server_rows.dense(serialized, signature.inputs)
    if not whole.all():
        row = int(np.argmin(whole))
        raise ConfigError(
            f"row {row + 1} has a list of more values than `{name}` takes",
            json.dumps(rows[row])[:200],
            "Ask the signature `serving_default`.",
        )
    return tensors


def predictions(outputs: Mapping[str, np.ndarray], count: int) -> list[dict[str, Any]]:
    """Turns outputs into a JSON object for each row.

    Args:
      outputs: by name, [rows, ...].
      count: how many rows were asked about.

    Returns:
      Values by output; bytes as text. An output of another number of rows stands whole in each.
    """
    found: list[dict[str, Any]] = [{} for _ in range(count)]
    for name, array in sorted(outputs.items()):
        by_row = array.ndim > 0 and len(array) == count
        if array.dtype == np.float32:
            array = array.astype(str).astype(np.float64)  # the shortest digits that mean the same float32
        for index, row in enumerate(found):
            value = _plain((array[index] if by_row else array).tolist())
            row[name] = value[0] if isinstance(value, list) and len(value) == 1 else value
    return found


def schema_kinds(path: str) -> dict[str, str]:
    """Returns the kinds of the features that a schema names.

    Args:
      path: of the schema.pbtxt.
    """
    from tensorflow_metadata.proto.v0 import schema_pb2

    features = schema_file.read(Path(path)).feature
    return {feature.name: schema_pb2.FeatureType.Name(feature.type) for feature in features}


def _takes_examples(tensor: Tensor) -> bool:
    return tensor.dtype.kind == "O" and (tensor.shape is None or len(tensor.shape) == 1)


def _check(rows: Sequence[Row], kinds: Mapping[str, str]) -> None:
    for number, row in enumerate(rows, start=1):
        for name, value in row.items():
            if name not in kinds:
                guess = did_you_mean(name, kinds)
                raise ConfigError(
                    f"row {number} has a feature `{name}` that the model does not know",
                    f"it knows {', '.join(f'`{one}`' for one in sorted(kinds))}",
                    f"{guess[:1].upper()}{guess[1:]}" if guess else "Correct the name, or leave the feature away.",
                )
            for one in value if isinstance(value, list) else [value]:
                if one is not None and not _fits(one, kinds[name]):
                    raise ConfigError(
                        f"row {number} has a wrong value for `{name}`",
                        f"received {json.dumps(value)[:80]}, expected {_WORDS.get(kinds[name], kinds[name])}",
                        "Correct the value; null, or no key at all, says that it is missing.",
                    )


def _fits(value: Any, kind: str) -> bool:
    if kind == columns.BYTES:
        return isinstance(value, str)
    if not isinstance(value, (int, float)):
        return False
    return kind == columns.FLOAT or (value == int(value) and -(2**63) <= value < 2**63)


def _serialize(rows: Sequence[Row], kinds: Mapping[str, str]) -> list[bytes]:
    made = {}
    for name in {name for row in rows for name in row}:
        values = [row.get(name) for row in rows]
        if any(isinstance(value, list) for value in values):
            values = [value if isinstance(value, list) or value is None else [value] for value in values]
        made[name] = columns.narrow(columns.convert(_array(values, kinds[name]), kinds[name]))
    if not made:
        return [b""] * len(rows)
    return tf_example.serialize(made).to_pylist()


def _array(values: list[Any], kind: str) -> pa.Array:
    plain = {columns.INT: pa.int64(), columns.FLOAT: pa.float64(), columns.BYTES: pa.string()}[kind]
    change = {columns.INT: int, columns.FLOAT: float, columns.BYTES: str}[kind]

    def of(value: Any) -> Any:
        if isinstance(value, list):
            return [of(one) for one in value]
        return None if value is None else change(value)

    nested = any(isinstance(value, list) for value in values)
    return pa.array([of(value) for value in values], pa.large_list(plain) if nested else plain)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _bad_line(where: str, reason: str) -> ConfigError:
    return ConfigError(f"{where} is no JSON object", reason, 'Write a row a line: {"feature": value, ...}.')
