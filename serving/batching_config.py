"""BatchingParameters: the text proto behind `--batching_parameters_file`, read and checked.

The wheel of TensorFlow Serving's API does not hold the message, so it is described here, field for field under the
numbers of session_bundle_config.proto; text of it reads alike.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import descriptor_pb2, wrappers_pb2

from evergreen.serving import errors, text_messages

_FIELDS = (
    ("max_batch_size", 1, "Int64Value"),
    ("batch_timeout_micros", 2, "Int64Value"),
    ("max_enqueued_batches", 3, "Int64Value"),
    ("num_batch_threads", 4, "Int64Value"),
    ("thread_pool_name", 5, "StringValue"),
)


def _file() -> descriptor_pb2.FileDescriptorProto:
    kinds = descriptor_pb2.FieldDescriptorProto
    file = text_messages.new_file("evergreen/serving/batching_parameters.proto", wrappers_pb2.DESCRIPTOR.name)
    message = file.message_type.add(name="BatchingParameters")
    for name, number, wrapper in _FIELDS:
        message.field.add(
            name=name,
            number=number,
            type=kinds.TYPE_MESSAGE,
            label=kinds.LABEL_OPTIONAL,
            type_name=f".google.protobuf.{wrapper}",
        )
    message.field.add(name="allowed_batch_sizes", number=6, type=kinds.TYPE_INT64, label=kinds.LABEL_REPEATED)
    message.field.add(name="pad_variable_length_inputs", number=7, type=kinds.TYPE_BOOL, label=kinds.LABEL_OPTIONAL)
    return file


@dataclass(frozen=True)
class BatchingParameters:
    """How requests that arrive together become one batch; the defaults are TensorFlow Serving's.

    Attributes:
      max_batch_size: rows of a batch at most; a request with more is refused.
      batch_timeout_micros: how long a request waits for company, microseconds.
      max_enqueued_batches: batches that may wait; beyond, requests are UNAVAILABLE at once.
      num_batch_threads: batches that run at the same time.
      allowed_batch_sizes: sizes to which batches are padded, ascending; () for any size.
      pad_variable_length_inputs: whether rows of different shapes are padded to a common one.
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = 1
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False


def read(file: Path | str | None) -> BatchingParameters:
    """Reads the parameters; without a file they are all defaults, with one thread for each CPU.

    Raises:
      ServingError: NOT_FOUND for a file that cannot be read, INVALID_ARGUMENT for a wrong one.
    """
    text = "" if file is None else text_messages.read_text(file)
    return parse(text, str(file))


def parse(text: str, source: str) -> BatchingParameters:
    """Parses and checks the text of BatchingParameters; `source` says in messages where it stands.

    Raises:
      ServingError: INVALID_ARGUMENT.
    """
    message = text_messages.parse(text, text_messages.message_class(_file(), "BatchingParameters")(), source)
    given = {name: getattr(message, name).value for name, *_ in _FIELDS if message.HasField(name)}
    given.pop("thread_pool_name", None)  # names the threads in traces of tensorflow_model_server
    parameters = BatchingParameters(
        **{"num_batch_threads": os.cpu_count() or 1, **given},
        allowed_batch_sizes=tuple(message.allowed_batch_sizes),
        pad_variable_length_inputs=message.pad_variable_length_inputs,
    )
    _check(parameters, source)
    return parameters


def _check(parameters: BatchingParameters, source: str) -> None:
    for name in ("max_batch_size", "max_enqueued_batches", "num_batch_threads"):
        value = getattr(parameters, name)
        if value < 1:
            raise errors.invalid(f"{source}: {name} must be at least 1, got {value}.")
    if parameters.batch_timeout_micros < 0:
        raise errors.invalid(
            f"{source}: batch_timeout_micros must not be negative, got {parameters.batch_timeout_micros}."
        )
    sizes = parameters.allowed_batch_sizes
    if sizes and (sizes[0] < 1 or any(one >= other for one, other in itertools.pairwise(sizes))):
        raise errors.invalid(f"{source}: allowed_batch_sizes must be positive and ascending, got {list(sizes)}.")
    if sizes and sizes[-1] != parameters.max_batch_size:
        raise errors.invalid(
            f"{source}: the last of allowed_batch_sizes must equal max_batch_size ({parameters.max_batch_size}), "
            f"got {sizes[-1]}."
        )
