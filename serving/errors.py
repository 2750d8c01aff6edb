"""The error that a client sees: a gRPC status code and a message, the same over gRPC and REST.

Everything that the server refuses on purpose raises one; anything else is a defect and becomes INTERNAL at the fronts.
"""

from __future__ import annotations

import grpc


class ServingError(Exception):
    """A request, a model or a configuration that cannot be served.

    Args:
      code: the status that the client gets.
      message: what is wrong, in TensorFlow Serving's words where it has any.
    """

    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(message)
        self.code = code
        self.message = message


def invalid(message: str) -> ServingError:
    """Makes an INVALID_ARGUMENT: the request is wrong, whatever the server's state."""
    return ServingError(grpc.StatusCode.INVALID_ARGUMENT, message)


def not_found(message: str) -> ServingError:
    """Makes a NOT_FOUND: no such model, version or file."""
    return ServingError(grpc.StatusCode.NOT_FOUND, message)


def failed_precondition(message: str) -> ServingError:
    """Makes a FAILED_PRECONDITION: the server's or the model's state does not allow it."""
    return ServingError(grpc.StatusCode.FAILED_PRECONDITION, message)


def unavailable(message: str) -> ServingError:
    """Makes an UNAVAILABLE: too much to do now; the same request may succeed later."""
    return ServingError(grpc.StatusCode.UNAVAILABLE, message)


def unimplemented(message: str) -> ServingError:
    """Makes an UNIMPLEMENTED: TensorFlow or a client may know it, this server does not."""
    return ServingError(grpc.StatusCode.UNIMPLEMENTED, message)


def data_loss(message: str) -> ServingError:
    """Makes a DATA_LOSS: a model's files are there, and not whole."""
    return ServingError(grpc.StatusCode.DATA_LOSS, message)


def internal(message: str) -> ServingError:
    """Makes an INTERNAL: a defect, here or in TensorFlow."""
    return ServingError(grpc.StatusCode.INTERNAL, message)


def code_of(number: int) -> grpc.StatusCode:
    """Returns gRPC's status code of a TensorFlow error's number: the two count alike."""
    return next((code for code in grpc.StatusCode if code.value[0] == number), grpc.StatusCode.UNKNOWN)
