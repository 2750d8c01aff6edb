"""Serializes Arrow columns as tf.Example messages, vectorised and reproducible.

The bytes are what `tf.train.Example.SerializeToString(deterministic=True)` gives: features sorted by name, so that the
same row is the same bytes in every run, on every platform. (The encoder of tfx_bsl writes the features of a message in
the random order of a protobuf map, and is slower.) The module imports neither TensorFlow nor protobuf.

A tf.Example is nested length-prefixed fields; written out for one int64 feature:

    0A <length> { 0A <length> { 0A <length> name  12 <length> { 1A <length> { 0A <length> varints } } } ... }
    Features      map entry     key               Feature       Int64List

Columns are turned into one binary *payload* a row (the varints above); everything before it depends only on the name
and the payload's length, so it is made once for each distinct length; one pyarrow kernel joins all the pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_LENGTH_DELIMITED = 2
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = (field << 3 | _LENGTH_DELIMITED for field in (1, 2, 3))
_FIRST_FIELD, _SECOND_FIELD = 0x0A, 0x12
_VARINT_BYTES = 10  # the longest varint: 64 bits in groups of 7


def serialize(columns: dict[str, pa.Array]) -> pa.Array:
    """Serializes rows of columns as tf.Example messages.

    Args:
      columns: feature name to an array of n rows, each of type int64, float32, large_binary or a large_list of these;
        a null row, and an empty list, is a feature that the message does not have.

    Returns:
      A large_binary array of n serialized tf.Example messages.
    """
    if not columns:
        raise ValueError("Invalid value for argument `columns`. Expected at least one column. Received: {}")
    pieces: list[pa.Array] = []
    for name in sorted(columns, key=lambda text: text.encode()):
        array = columns[name]
        kind, payload = _payload(array)
        pieces += [_headers(name.encode(), kind, payload), payload]
    features = _join(pieces)
    return _join([_take_by_length(features, lambda length: _field(_FIRST_FIELD, length)), features])


def varints(values: np.ndarray) -> pa.Array:
    """Encodes integers as protobuf varints.

    Args:
      values: [n] int64; negative ones take ten bytes, as in protobuf.

    Returns:
      A large_binary array of n varints.
    """
    unsigned = values.astype(np.int64, copy=False).view(np.uint64)
    limits = np.uint64(1) << (np.arange(1, _VARINT_BYTES, dtype=np.uint64) * np.uint64(7))
    lengths = np.searchsorted(limits, unsigned, side="right") + 1
    width = int(lengths.max(initial=1))
    groups = np.arange(width, dtype=np.uint64)
    octets = (unsigned[:, None] >> (groups * np.uint64(7)) & np.uint64(0x7F)).astype(np.uint8)
    octets |= np.where(groups.astype(np.int64) < lengths[:, None] - 1, 0x80, 0).astype(np.uint8)
    data = octets[groups.astype(np.int64) < lengths[:, None]]
    return _binary(_offsets(lengths), pa.py_buffer(data.tobytes()))


def _payload(array: pa.Array) -> tuple[int, pa.Array]:
    """The field tag of the value list and, for each row, what stands inside it (empty for a missing feature)."""
    if pa.types.is_large_list(array.type):
        values, lengths = array.flatten(), pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    else:
        values, lengths = array.drop_null(), array.is_valid().to_numpy(zero_copy_only=False).astype(np.int64)
    offsets = _offsets(lengths)
    if pa.types.is_float32(values.type):
        data = np.ascontiguousarray(values.to_numpy(zero_copy_only=False), dtype="<f4")
        return _FLOAT_LIST, _binary(offsets * 4, pa.py_buffer(data.tobytes()))
    if pa.types.is_int64(values.type):
        return _INT64_LIST, _regroup(varints(values.to_numpy(zero_copy_only=False)), offsets)
    if pa.types.is_large_binary(values.type):
        headers = _take_by_length(values, lambda length: _field(_FIRST_FIELD, length))
        return _BYTES_LIST, _regroup(_join([headers, values]), offsets)
    raise ValueError(f"Invalid type for a feature. Expected int64, float32 or large_binary. Received: {array.type}")


def _headers(name: bytes, kind: int, payload: pa.Array) -> pa.Array:
    """What stands before each row's payload; empty where the feature is missing."""

    def header(length: int) -> bytes:
        if not length:
            return b""
        # A bytes list is repeated fields, complete in the payload; numbers are packed into one field.
        packed = b"" if kind == _BYTES_LIST else _field(_FIRST_FIELD, length)
        value_list = _field(kind, len(packed) + length) + packed
        feature = _field(_SECOND_FIELD, len(value_list) + length) + value_list
        entry = _field(_FIRST_FIELD, len(name)) + name + feature
        return _field(_FIRST_FIELD, len(entry) + length) + entry

    return _take_by_length(payload, header)


def _take_by_length(array: pa.Array, make: Callable[[int], bytes]) -> pa.Array:
    """For each element the bytes that `make` gives for its length, made once for each distinct length."""
    lengths = pc.binary_length(array).dictionary_encode()
    made = pa.array([make(length) for length in lengths.dictionary.to_pylist()], pa.large_binary())
    return made.take(lengths.indices)


def _field(tag: int, length: int) -> bytes:
    octets = [tag]
    while length > 0x7F:
        octets.append(length & 0x7F | 0x80)
        length >>= 7
    octets.append(length)
    return bytes(octets)


def _join(pieces: Sequence[pa.Array]) -> pa.Array:
    return pc.binary_join_element_wise(*pieces, pa.scalar(b"", pa.large_binary()))


def _regroup(elements: pa.Array, offsets: np.ndarray) -> pa.Array:
    """Concatenates runs of elements: row i is elements[offsets[i]:offsets[i + 1]] (their bytes are contiguous)."""
    _, element_offsets, data = elements.buffers()
    starts = np.frombuffer(element_offsets, dtype=np.int64)[elements.offset : elements.offset + len(elements) + 1]
    return _binary(starts[offsets] if len(elements) else offsets, data)


def _offsets(lengths: np.ndarray) -> np.ndarray:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _binary(offsets: np.ndarray, data: pa.Buffer | None) -> pa.Array:
    buffers = [None, pa.py_buffer(np.ascontiguousarray(offsets, dtype=np.int64)), data or pa.py_buffer(b"")]
    return pa.Array.from_buffers(pa.large_binary(), len(offsets) - 1, buffers)
