"""A client of TensorFlow Serving's REST API, of the same shape as the gRPC one. It imports no TensorFlow."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Mapping
from typing import Any

import grpc
import numpy as np

from evergreen.components.model_server import signatures
from evergreen.components.model_server.client import Answer, ServerError
from evergreen.components.model_server.signatures import Signature, Tensor

DEFAULT_SIGNATURE = "serving_default"
# How the server says a status in HTTP; what is not here is UNKNOWN.
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


class RestClient:
    """A connection that is kept open. One thread uses it.

    Args:
      address: `host:port` of the server's REST port.
      timeout_s: the longest that one request may take, in seconds.
    """

    def __init__(self, address: str, timeout_s: float = 10.0):
        self.address = address
        self._connection = http.client.HTTPConnection(address, timeout=timeout_s)
        self._signatures: dict[tuple[str, int | None, str | None], dict[str, Signature]] = {}

    def __enter__(self) -> RestClient:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

    def metadata(self, model: str, version: int | None = None, label: str | None = None) -> dict[str, Signature]:
        """Asks for a model's signatures, as `Client.metadata` does."""
        answer = self._request("GET", f"{_path(model, version, label)}/metadata")
        return signatures.of_json(answer["metadata"]["signature_def"]["signature_def"])

    def ask(
        self,
        model: str,
        inputs: Mapping[str, np.ndarray],
        version: int | None = None,
        label: str | None = None,
        signature: str | None = None,
    ) -> Answer:
        """Asks for a prediction, as `Client.ask` does. REST does not say which version answered: it is 0.

        Raises:
          ServerError: there is no server, it refused, or it does not know the signature.
        """
        wanted = signature or DEFAULT_SIGNATURE
        known = self._signature(model, version, label, wanted)
        body = {
            "signature_name": wanted,
            "inputs": {name: _to_json(np.asarray(array).tolist()) for name, array in inputs.items()},
        }
        answer = self._request("POST", f"{_path(model, version, label)}:predict", body)["outputs"]
        if len(known.outputs) == 1:
            answer = {next(iter(known.outputs)): answer}
        return Answer({name: _to_array(value, known.outputs.get(name)) for name, value in answer.items()}, 0, wanted)

    def text(self, path: str) -> str:
        """Returns what a path of the server answers.

        Args:
          path: such as `/monitoring/prometheus/metrics`.

        Raises:
          ServerError: there is no server, or nothing under that path.
        """
        return self._send("GET", path, None).decode()

    def _signature(self, model: str, version: int | None, label: str | None, name: str) -> Signature:
        key = model, version, label
        if name not in self._signatures.get(key, {}):
            self._signatures[key] = self.metadata(model, version, label)
        if name not in self._signatures[key]:
            raise ServerError(
                f"the model `{model}` has no signature `{name}`",
                "it has " + ", ".join(f"`{one}`" for one in sorted(self._signatures[key])),
                "",
                grpc.StatusCode.INVALID_ARGUMENT,
            )
        return self._signatures[key][name]

    def _request(self, method: str, path: str, body: Any = None) -> Any:
        return json.loads(self._send(method, path, None if body is None else json.dumps(body)))

    def _send(self, method: str, path: str, body: str | None) -> bytes:
        try:
            self._connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            timed_out = isinstance(error, TimeoutError)
            code = grpc.StatusCode.DEADLINE_EXCEEDED if timed_out else grpc.StatusCode.UNAVAILABLE
            raise ServerError(
                f"the model server at http://{self.address} did not answer in time"
                if timed_out
                else f"no model server answers at http://{self.address}",
                str(error) or type(error).__name__,
                "start one with `evergreen serve`, or name the address of another",
                code,
            ) from None
        if response.status != 200:
            words = _error(content)
            raise ServerError(
                f"the model server at http://{self.address} refused the request",
                f"{response.status}: {words}",
                "",
                _CODES.get(response.status, grpc.StatusCode.UNKNOWN),
                words,
            )
        return content


def _path(model: str, version: int | None, label: str | None) -> str:
    part = f"/versions/{version}" if version is not None else f"/labels/{label}" if label is not None else ""
    return f"/v1/models/{model}{part}"


def _error(content: bytes) -> str:
    """Returns the server's words."""
    try:
        return str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        return content.decode(errors="replace").strip()[:500]


def _to_json(value: Any) -> Any:
    """Returns a list of values as JSON has them; bytes as base64."""
    if isinstance(value, list):
        return [_to_json(one) for one in value]
    return {"b64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _to_array(value: Any, tensor: Tensor | None) -> np.ndarray:
    if tensor is not None and tensor.dtype.kind != "O":
        return np.array(value, tensor.dtype)
    return np.array(_from_json(value), object if tensor is not None else None)


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_json(one) for one in value]
    if isinstance(value, dict):
        return base64.b64decode(value["b64"])
    return value.encode() if isinstance(value, str) else value
