"""A client of TensorFlow Serving's gRPC API: versions and their state, predictions, signatures, a new configuration.

Talks to tensorflow_model_server and to the built-in server alike. It imports no TensorFlow, so a command that asks a
server answers in tenths of a second.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import numpy as np

from evergreen.components.errors import EvergreenError
from evergreen.components.model_server import messages, signatures, tensors
from evergreen.components.model_server.addresses import is_loopback
from evergreen.components.model_server.signatures import Signature

START, LOADING, AVAILABLE, UNLOADING, END = "START", "LOADING", "AVAILABLE", "UNLOADING", "END"
_STATES = {10: START, 20: LOADING, 30: AVAILABLE, 40: UNLOADING, 50: END}
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_PREDICTION, _MODEL = "/tensorflow.serving.PredictionService/", "/tensorflow.serving.ModelService/"
_POLL_S = 0.05
# TensorFlow Serving bounds a message only by what fits into one; the client leaves that to the server.
_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Two clients of one process share no connection, and so no back-off.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
]


class ServerError(EvergreenError):
    """A server refused a request, or is not there.

    Args:
      headline: as of every error.
      reason: the same, with the server's words in it.
      next_step: as of every error.
      code: the status that the server gave.
      details: the server's own words.
    """

    def __init__(
        self,
        headline: str,
        reason: str = "",
        next_step: str = "",
        code: grpc.StatusCode = grpc.StatusCode.UNKNOWN,
        details: str = "",
    ):
        super().__init__(headline, reason, next_step)
        self.code = code
        self.details = details or reason

    def __reduce__(self) -> Any:
        return type(self), (self.headline, self.reason, self.next_step, self.code, self.details)


@dataclasses.dataclass(frozen=True)
class Status:
    """What a server says of one version.

    Attributes:
      version: its number.
      state: START, LOADING, AVAILABLE, UNLOADING or END.
      code: OK, or what went wrong.
      message: the server's words where something went wrong.
    """

    version: int
    state: str
    code: grpc.StatusCode = grpc.StatusCode.OK
    message: str = ""


@dataclasses.dataclass(frozen=True)
class Answer:
    """A model's answer.

    Attributes:
      outputs: by name, [rows, ...]; strings as object arrays of bytes.
      version: the version that answered.
      signature: the signature that answered.
    """

    outputs: dict[str, np.ndarray]
    version: int
    signature: str


class Client:
    """A connection to one server. Threads may share it.

    Args:
      address: `host:port` of its gRPC port.
      timeout_s: the longest that one request may take, in seconds.
    """

    def __init__(self, address: str, timeout_s: float = 10.0):
        self.address = address
        self.timeout_s = timeout_s
        # gRPC would ask http_proxy's host for this machine's own server.
        direct = [("grpc.enable_http_proxy", 0)] if is_loopback(address) else []
        self._channel = grpc.insecure_channel(address, options=[*_OPTIONS, *direct])

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection."""
        self._channel.close()

    def status(self, model: str, version: int | None = None, wait_s: float | None = None) -> list[Status]:
        """Asks for a model's versions.

        Args:
          model: its name.
          version: only this one.
          wait_s: for how many seconds to wait for a server that is not there yet; by default not at all.

        Returns:
          Every version that the server knows, in its order: newest first.

        Raises:
          ServerError: there is no server, or it knows no version of the model (`code` is NOT_FOUND).
        """
        request = messages.GetModelStatusRequest(model_spec=_spec(model, version))
        answer = self._call(_MODEL + "GetModelStatus", request, messages.GetModelStatusResponse, wait_s)
        return [
            Status(
                found.version,
                _STATES.get(found.state, f"state {found.state}"),
                _CODES.get(found.status.error_code, grpc.StatusCode.UNKNOWN),
                found.status.error_message,
            )
            for found in answer.model_version_status
        ]

    def wait_available(self, model: str, version: int, seconds: float) -> Status:
        """Waits until a version answers requests.

        A server that is not there yet, or does not know the version yet, is asked again.

        Args:
          model: its name.
          version: the version.
          seconds: how long to wait.

        Returns:
          Its status, AVAILABLE.

        Raises:
          ServerError: the version failed to load or was unloaded, in the server's own words; or it is not AVAILABLE in
            time (`code` is DEADLINE_EXCEEDED), with what was seen last.
        """
        end = time.monotonic() + seconds
        last = "nobody answers"
        while True:
            try:
                (status,) = self.status(model, version, max(0.1, end - time.monotonic()))
            except ServerError as error:
                if error.code not in (
                    grpc.StatusCode.NOT_FOUND,
                    grpc.StatusCode.UNAVAILABLE,
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                ):
                    raise
                if error.code is not grpc.StatusCode.DEADLINE_EXCEEDED:
                    last = error.details
            else:
                if status.state == AVAILABLE:
                    return status
                last = f"it is {status.state}" + (f" ({status.message})" if status.message else "")
                if status.state == END or status.code is not grpc.StatusCode.OK:
                    raise ServerError(
                        f"the server cannot serve version {version} of `{model}`",
                        status.message or last,
                        "the server's log says more",
                        status.code,
                    )
            if time.monotonic() >= end:
                raise ServerError(
                    f"version {version} of `{model}` did not become available within {seconds:g} s",
                    f"the server at {self.address}: {last}",
                    "look at the server's log, or allow more time",
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                    last,
                )
            time.sleep(_POLL_S)

    def predict(
        self,
        model: str,
        inputs: Mapping[str, np.ndarray],
        version: int | None = None,
        label: str | None = None,
        signature: str | None = None,
    ) -> dict[str, np.ndarray]:
        """Asks for a prediction.

        Args:
          model: its name.
          inputs: the signature's inputs by name, [rows, ...].
          version: which version; by default the newest that is available.
          label: the same by its label; not together with `version`.
          signature: which signature; by default `serving_default`.

        Returns:
          The signature's outputs by name; strings as object arrays of bytes.

        Raises:
          ServerError: there is no server, or it refused.
          ValueError: an input cannot be sent as a tensor.
        """
        return self.ask(model, inputs, version, label, signature).outputs

    def ask(
        self,
        model: str,
        inputs: Mapping[str, np.ndarray],
        version: int | None = None,
        label: str | None = None,
        signature: str | None = None,
    ) -> Answer:
        """Does what `predict` does, and says which version answered."""
        request = messages.PredictRequest(model_spec=_spec(model, version, label, signature))
        for name, array in inputs.items():
            request.inputs[name].CopyFrom(tensors.to_proto(array))
        answer = self._call(_PREDICTION + "Predict", request, messages.PredictResponse)
        return Answer(
            {name: tensors.to_array(tensor) for name, tensor in answer.outputs.items()},
            answer.model_spec.version.value,
            answer.model_spec.signature_name,
        )

    def examples(
        self,
        model: str,
        serialized: Sequence[bytes],
        version: int | None = None,
        label: str | None = None,
        signature: str | None = None,
        input_name: str = "examples",
    ) -> dict[str, np.ndarray]:
        """Asks for a prediction of rows that are serialized tf.Example messages.

        Args:
          model: its name.
          serialized: the rows.
          version: see `predict`.
          label: see `predict`.
          signature: see `predict`.
          input_name: the signature's one input.

        Returns:
          See `predict`.

        Raises:
          ServerError: see `predict`.
        """
        rows = np.empty(len(serialized), object)
        rows[:] = serialized
        return self.predict(model, {input_name: rows}, version, label, signature)

    def metadata(self, model: str, version: int | None = None, label: str | None = None) -> dict[str, Signature]:
        """Asks for a model's signatures.

        Args:
          model: its name.
          version: which version; by default the newest that is available.
          label: the same by its label.

        Returns:
          The signatures by name. An input of a type that NumPy does not have is left out.

        Raises:
          ServerError: there is no server, or it does not know the model.
        """
        request = messages.GetModelMetadataRequest(
            model_spec=_spec(model, version, label), metadata_field=["signature_def"]
        )
        answer = self._call(_PREDICTION + "GetModelMetadata", request, messages.GetModelMetadataResponse)
        found = messages.SignatureDefMap.FromString(answer.metadata["signature_def"].value)
        return signatures.of_protos(found.signature_def)

    def reload(self, config: Any) -> None:
        """Gives the server another configuration, which replaces the whole of the earlier one.

        Args:
          config: a `tensorflow_serving.config.model_server_config_pb2.ModelServerConfig`.

        Raises:
          ServerError: there is no server, or it refused the configuration and keeps the earlier one.
        """
        request = messages.ReloadConfigRequest(config=config.SerializeToString())
        answer = self._call(_MODEL + "HandleReloadConfigRequest", request, messages.ReloadConfigResponse)
        if answer.status.error_code:
            code = _CODES.get(answer.status.error_code, grpc.StatusCode.UNKNOWN)
            raise self._refused("HandleReloadConfigRequest", code, answer.status.error_message)

    def _call(self, method: str, request: Any, response: Any, wait_s: float | None = None) -> Any:
        call = self._channel.unary_unary(
            method,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )
        try:
            # Without a waiting call nobody drives the connection: gRPC tries again after five seconds only.
            timeout_s = self.timeout_s if wait_s is None else min(wait_s, self.timeout_s)
            return call(request, timeout=timeout_s, wait_for_ready=wait_s is not None)
        except grpc.RpcError as error:
            raise self._refused(method.rsplit("/", 1)[-1], error.code(), error.details() or "") from None

    def _refused(self, method: str, code: grpc.StatusCode, details: str) -> ServerError:
        if code is grpc.StatusCode.UNAVAILABLE and "connect" in details.lower():
            return ServerError(
                f"no model server answers at {self.address}",
                details,
                "start one with `evergreen serve`, or name the address of another",
                code,
                details,
            )
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            details = details or "no answer in time"
            headline = f"the model server at {self.address} did not answer within {self.timeout_s:g} s"
            return ServerError(headline, f"{method}: {details}", "look at the server's log", code, details)
        headline = f"the model server at {self.address} refused the request"
        return ServerError(headline, f"{code.name}: {details}", "", code, details)


def _spec(model: str, version: int | None = None, label: str | None = None, signature: str | None = None) -> Any:
    spec = messages.ModelSpec(name=model)
    if version is not None:
        spec.version.value = version
    if label is not None:
        spec.version_label = label
    if signature is not None:
        spec.signature_name = signature
    return spec
