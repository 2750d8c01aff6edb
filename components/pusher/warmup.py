"""Warm-up requests: what a server runs through a version before it answers anybody, so that no first request is slow.

The file `assets.extra/tf_serving_warmup_requests` is a TFRecord of PredictionLog; a server reads it inside of the load.
A record that fails, fails the load. So each one is run through the SavedModel here first, and one that fails is left
out with a warning. A model that brings a file of its own keeps it.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evergreen.components import loaded, model_layout, schema_file
from evergreen.components.model_server.signatures import INIT_OP
from evergreen.components.pusher import versions, warmup_rows
from evergreen.components.pusher.warmup_rows import Row

ROWS = 8
MAX_RECORDS = 1000  # a server reads no more
_CLASSIFY, _REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


@dataclass(frozen=True)
class WarmUp:
    """Warm-up requests that a SavedModel has answered.

    Attributes:
      content: the file; empty where there is no record.
      records: how many records it has.
      warnings: what was left out and why.
    """

    content: bytes = b""
    records: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Request:
    """One request: its log record, and the tensors that the signature gets."""

    log: Any
    inputs: dict[str, Any]


def make(saved_model: Path, rows: Sequence[Row], model_name: str) -> WarmUp:
    """Makes warm-up requests for every signature of a SavedModel, with one row and with all of them.

    Args:
      saved_model: its directory.
      rows: what is asked, at least one; features that a signature asks for and no row has are zeros.
      model_name: the name under which it is served.

    Returns:
      The requests that the model answered.
    """
    if (saved_model / versions.WARMUP_FILE).is_file():
        return WarmUp()
    import tensorflow as tf

    try:
        signatures, tags = _signatures(saved_model)
        model = loaded.saved_model(saved_model, tags)
    except Exception as error:
        return WarmUp(warnings=(f"No warm-up requests: the model cannot be loaded here: {_first_line(error)}",))
    logs: list[bytes] = []
    warnings: list[str] = []
    for name, signature in sorted(signatures.items()):
        for batch in _batches(signature, rows):
            try:
                request = _request(name, signature, batch, model_name)
                model.signatures[name](**{key: tf.constant(value) for key, value in request.inputs.items()})
            except Exception as error:
                what = f"No warm-up request of {len(batch)} for the signature {name}"
                warnings.append(f"{what}: the model does not answer it: {_first_line(error)}")
            else:
                logs.append(request.log.SerializeToString(deterministic=True))
    return WarmUp(_records(logs[:MAX_RECORDS]), min(len(logs), MAX_RECORDS), tuple(warnings))


def rows_for(kind: str, schemas: Sequence[str], examples: Sequence[str]) -> list[Row]:
    """Gathers the rows that the configuration asks for.

    Args:
      kind: `schema`, `real` or `none`.
      schemas: URIs of the Schema artifacts, at most one.
      examples: URIs of the Examples artifacts; the last one's `exam` split is read.

    Returns:
      The rows; empty where none are wanted or there is nothing to make them of.
    """
    if kind == "real" and examples:
        return warmup_rows.from_split(examples[-1], "exam", ROWS)
    if kind == "schema" and schemas:
        return warmup_rows.from_schema(_read_schema(schemas[0]), ROWS)
    return []


def _read_schema(schema_uri: str) -> Any:
    """Reads the schema of a Schema artifact, a folder with one `.pbtxt`."""
    (file,) = sorted(Path(schema_uri).glob("*.pbtxt"))
    return schema_file.read(file)


def _first_line(error: Exception) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text[:300]}"


def _signatures(saved_model: Path) -> tuple[dict[str, Any], list[str] | None]:
    """Reads the SignatureDefs of the graph that is served, and by which tags it is loaded: none where it is alone."""
    from google.protobuf import text_format
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel()
    binary = saved_model / "saved_model.pb"
    if binary.is_file():
        proto.ParseFromString(binary.read_bytes())
    else:
        text_format.Parse((saved_model / "saved_model.pbtxt").read_text(encoding="utf-8"), proto)
    served = next(graph for graph in proto.meta_graphs if "serve" in graph.meta_info_def.tags)
    signatures = {name: one for name, one in served.signature_def.items() if name != INIT_OP}
    return signatures, None if len(proto.meta_graphs) == 1 else ["serve"]


def _batches(signature: Any, rows: Sequence[Row]) -> list[list[Row]]:
    """Returns one row and all rows, or as many as the signature insists on."""
    shapes = [info.tensor_shape for info in signature.inputs.values() if not info.tensor_shape.unknown_rank]
    fixed = max((shape.dim[0].size for shape in shapes if shape.dim), default=-1)
    sizes = [fixed] if fixed > 0 else sorted({1, len(rows)})
    return [[rows[i % len(rows)] for i in range(size)] for size in sizes]


def _request(name: str, signature: Any, batch: Sequence[Row], model_name: str) -> _Request:
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    log = prediction_log_pb2.PredictionLog()
    inputs: dict[str, Any] = {}
    if signature.method_name in (_CLASSIFY, _REGRESS):
        request = (log.classify_log if signature.method_name == _CLASSIFY else log.regress_log).request
        serialized = [warmup_rows.to_example(row) for row in batch]
        for example in serialized:
            request.input.example_list.examples.add().ParseFromString(example)
        inputs[next(iter(signature.inputs))] = _strings(serialized)
    else:
        request = log.predict_log.request
        for key, info in signature.inputs.items():
            inputs[key] = _tensor(key, info, batch, len(signature.inputs) == 1)
            request.inputs[key].CopyFrom(tf.make_tensor_proto(inputs[key]))
    request.model_spec.name = model_name
    request.model_spec.signature_name = name
    return _Request(log, inputs)


def _tensor(key: str, info: Any, batch: Sequence[Row], alone: bool) -> Any:
    """Makes the tensor of one input: serialized tf.Examples, a feature's values, or zeros of the shape."""
    import numpy as np
    import tensorflow as tf

    dtype = tf.dtypes.as_dtype(info.dtype)
    known = any(key in row for row in batch)
    if dtype == tf.string and alone and not known:
        return _strings([warmup_rows.to_example(row) for row in batch])
    sizes = [] if info.tensor_shape.unknown_rank else [dim.size for dim in info.tensor_shape.dim]
    if not sizes and not info.tensor_shape.unknown_rank:
        return np.zeros((), dtype.as_numpy_dtype) if dtype != tf.string else np.array(b"", object)
    length = max((len(row.get(key, [])) for row in batch), default=1) or 1
    inner = [size if size > 0 else (length if i == 0 else 1) for i, size in enumerate(sizes[1:])]
    count = int(np.prod(inner)) if inner else 1
    values = [_padded(row.get(key), count, dtype, known) for row in batch]
    flat = list(itertools.chain.from_iterable(values))
    return (
        _strings(flat, (len(batch), *inner))
        if dtype == tf.string
        else np.array(flat, dtype.as_numpy_dtype).reshape(len(batch), *inner)
    )


def _padded(values: list[Any] | None, count: int, dtype: Any, known: bool) -> list[Any]:
    """Fills a row's values up; where other rows have the feature, with what says that it is absent."""
    if dtype.name == "string":
        filler: Any = model_layout.MISSING_STRING
    elif known and dtype.is_floating:
        filler = model_layout.MISSING_FLOAT
    elif known and dtype.name == "int64":
        filler = model_layout.MISSING_INT
    else:
        filler = 0
    return ([*(values or [])] + [filler] * count)[:count]


def _strings(values: Sequence[bytes], shape: tuple[int, ...] | None = None) -> Any:
    import numpy as np

    array = np.empty(len(values), object)
    array[:] = values
    return array if shape is None else array.reshape(shape)


def _records(logs: Sequence[bytes]) -> bytes:
    """Frames records as a TFRecord file does."""
    if not logs:
        return b""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "records")
        with tf.io.TFRecordWriter(path) as writer:
            for log in logs:
                writer.write(log)
        return Path(path).read_bytes()
