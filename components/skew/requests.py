"""Rows out of a model server's request log, as tf.Example: whatever API they came by, whatever signature they asked.

The log is TFRecords of PredictionLog, as `logging_config` of a models.config asks for. A row that came as dense raw
features lacks those that hold `model_layout`'s values for "missing". TensorFlow is imported inside the functions.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from evergreen.components import model_layout


@dataclass(frozen=True)
class Requests:
    """What a log holds.

    Attributes:
      rows: serialized tf.Example messages, one for each row that was asked about.
      count: requests.
      unread: requests that hold no rows of raw features.
      truncated: files that end within a record: a server is still writing them, or was killed.
    """

    rows: list[bytes]
    count: int
    unread: int
    truncated: list[str]


def log_files(prefix: str) -> list[str]:
    """Lists the files of a log, the newest first.

    Args:
      prefix: `filename_prefix` of the configuration, or one file.
    """
    files = [path for path in glob.glob(glob.escape(prefix) + "*") if os.path.isfile(path)]
    return sorted(files, key=lambda path: (os.path.getmtime(path), path), reverse=True)


def read(files: list[str], model: str, most: int) -> Requests:
    """Reads rows, those of the newest file first.

    Args:
      files: of the log.
      model: the model's name; requests to others are passed over.
      most: how many rows are enough.

    Returns:
      The requests.
    """
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    rows: list[bytes] = []
    count, unread, truncated = 0, 0, []
    for path in files:
        records = iter(tf.data.TFRecordDataset(path).as_numpy_iterator())
        while len(rows) < most:
            try:
                record = next(records, None)
            except tf.errors.DataLossError:
                truncated.append(path)
                break
            if record is None:
                break
            log = prediction_log_pb2.PredictionLog.FromString(record)
            name, found = _rows(log)
            if name != model:
                continue
            count += 1
            unread += not found
            rows += found
    return Requests(rows[:most], count, unread, truncated)


def _rows(log: Any) -> tuple[str, list[bytes]]:
    """Returns the model that was asked, and the rows."""
    kind = log.WhichOneof("log_type")
    if kind == "predict_log":
        request = log.predict_log.request
        return request.model_spec.name, _predict_rows(request.inputs)
    if kind in ("classify_log", "regress_log", "multi_inference_log"):
        request = getattr(log, kind).request
        # Tasks are all of one model.
        asked = request.tasks if kind == "multi_inference_log" else [request]
        return next((one.model_spec.name for one in asked), ""), list(_input_rows(request.input))
    return log.log_metadata.model_spec.name, []


def _input_rows(given: Any) -> Iterator[bytes]:
    """Yields the rows of a Classify or Regress request; what is common to all of them joins each."""
    if given.WhichOneof("kind") == "example_list":
        for example in given.example_list.examples:
            yield example.SerializeToString()
    for example in given.example_list_with_context.examples:
        whole = type(example)()
        whole.CopyFrom(given.example_list_with_context.context)
        whole.MergeFrom(example)
        yield whole.SerializeToString()


def _predict_rows(inputs: Any) -> list[bytes]:
    import tensorflow as tf

    try:
        arrays = {name: tf.make_ndarray(tensor) for name, tensor in inputs.items()}
    except (TypeError, ValueError):
        return []
    if len(arrays) == 1:
        (array,) = arrays.values()
        serialized = _serialized(array)
        if serialized is not None:
            return serialized
    sizes = {len(array) for array in arrays.values() if array.ndim}
    if len(sizes) != 1 or not all(array.ndim for array in arrays.values()):
        return []
    examples = [tf.train.Example() for _ in range(sizes.pop())]
    for name, array in arrays.items():
        flat = array.reshape(len(examples), -1)
        for example, values in zip(examples, flat, strict=True):
            _put(example.features.feature[name], values)
    return [example.SerializeToString() for example in examples]


def _serialized(array: np.ndarray) -> list[bytes] | None:
    """Returns the strings of an array if they are tf.Example messages, else None."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    if array.dtype != object or array.ndim != 1:
        return None
    for content in array:
        try:
            # A short text may pass for a message with unknown fields; an example has features.
            if content and not tf.train.Example.FromString(content).features.feature:
                return None
        except DecodeError:
            return None
    return list(array)


def _put(feature: Any, values: np.ndarray) -> None:
    """Writes the values that are there."""
    if values.dtype.kind in "OS":
        feature.bytes_list.value.extend(v for v in values.tolist() if v != model_layout.MISSING_STRING)
    elif values.dtype.kind == "f":
        feature.float_list.value.extend(values[~np.isnan(values)].tolist())
    elif values.dtype.kind in "iub":
        whole = values.astype(np.int64)
        feature.int64_list.value.extend(whole[whole != model_layout.MISSING_INT].tolist())
