"""Protocol messages that are described at run time, because no wheel holds them; and the text files they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from evergreen.serving import errors

PACKAGE = "evergreen.serving.text"


def new_file(name: str, *imports: str) -> descriptor_pb2.FileDescriptorProto:
    """Starts a proto3 file in a package of ours, where nothing that TensorFlow Serving registers can be in the way."""
    return descriptor_pb2.FileDescriptorProto(name=name, package=PACKAGE, syntax="proto3", dependency=list(imports))


def message_class(file: descriptor_pb2.FileDescriptorProto, name: str) -> Any:
    """Returns the class of a message of the file; the same file may be given any number of times."""
    pool = descriptor_pool.Default()
    pool.Add(file) if hasattr(pool, "Add") else pool.AddSerializedFile(file.SerializeToString())
    descriptor = pool.FindMessageTypeByName(f"{PACKAGE}.{name}")
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)
    return message_factory.MessageFactory(pool).GetPrototype(descriptor)  # protobuf 3


def parse(text: str, message: Any, source: str) -> Any:
    """Parses text into a message, which it returns; `source` says in errors where the text stands.

    Raises:
      ServingError: INVALID_ARGUMENT, with the line, in the words that tensorflow_model_server exits with.
    """
    try:
        return text_format.Parse(text, message)
    except text_format.ParseError as error:
        name = message.DESCRIPTOR.name
        raise errors.invalid(f"Error parsing text-format tensorflow.serving.{name}: {source}: {error}") from error


def read_text(file: Path | str) -> str:
    """Reads a text file.

    Raises:
      ServingError: NOT_FOUND or INVALID_ARGUMENT for a file that cannot be read.
    """
    try:
        return Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise errors.not_found(f"{file} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise errors.invalid(f"{file} is not text: {error}") from error
