"""REST: TensorFlow Serving's routes, statuses and error bodies, on aiohttp."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import traceback
import urllib.parse
from collections.abc import Callable
from typing import Any

import grpc
from aiohttp import web
from google.protobuf import json_format
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    regression_pb2,
)

from evergreen.serving import rest_decode, rest_encode
from evergreen.serving.errors import ServingError, code_of, internal, invalid
from evergreen.serving.service import REST, Service
from evergreen.serving.workers import Workers

_MODEL = r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?"
_POST = re.compile(_MODEL + r":(classify|regress|predict)", re.IGNORECASE)
_GET = re.compile(_MODEL.replace("/([^/:]+)", "(?:/([^/:]+))?", 1) + r"(/metadata)?", re.IGNORECASE)
_STATUSES = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}


class RestFront:
    """The HTTP server.

    Args:
      service: what answers.
      workers: where it runs.
      max_bytes: the longest body; longer ones get 413.
      seconds: how long a request may take, from its first line on.
      metrics_path: where Prometheus's page is; empty for nowhere.
      metrics_page: writes that page.
    """

    def __init__(
        self,
        service: Service,
        workers: Workers,
        max_bytes: int,
        seconds: float,
        metrics_path: str = "",
        metrics_page: Callable[[], bytes] = lambda: b"",
    ):
        self._service, self._workers = service, workers
        self._max_bytes, self._seconds = max_bytes, seconds
        self._metrics_path, self._metrics_page = metrics_path, metrics_page
        self._runner: web.ServerRunner | None = None
        # It would write a traceback for every line of HTTP that is none: strangers could fill the disk.
        logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)

    async def start(self, host: str, port: int) -> None:
        """Starts to accept.

        Raises:
          OSError: the address is not to be had.
        """
        self._runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=self._seconds)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()

    async def stop(self) -> None:
        """Stops accepting, and lets requests in work end."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        start = time.monotonic()
        path = request.raw_path.partition("?")[0]
        try:
            if self._metrics_path and path == self._metrics_path:
                return web.Response(body=self._metrics_page(), content_type="text/plain")
            if not path.lower().startswith("/v1/"):
                return _error(404, "Not Found")
            return _json(200, await self._answer(request, path, start))
        except ServingError as error:
            return _error(_STATUSES.get(error.code, 500), error.message)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:
            traceback.print_exc()
            return _error(500, f"{type(error).__name__} in the server")

    async def _answer(self, request: web.BaseRequest, path: str, start: float) -> str:
        found = (_POST if request.method == "POST" else _GET).fullmatch(path)
        if found is None or request.method not in ("POST", "GET"):
            raise invalid(f"Malformed request: {request.method} {path}")
        if not found[1]:
            raise invalid("Missing model name in request.")
        spec = _spec(found[1], found[2], found[3])
        if request.method == "GET":
            ask = self._metadata if found[4] else self._status
            return await asyncio.get_running_loop().run_in_executor(None, ask, spec)
        body = await self._body(request, start)
        method = found[4].lower()
        left = max(0.0, start + self._seconds - time.monotonic())
        return await self._workers.answer(lambda: self._post(method, spec, body), left)

    async def _body(self, request: web.BaseRequest, start: float) -> bytes:
        too_long = ServingError(
            grpc.StatusCode.RESOURCE_EXHAUSTED, f"Received a body of more than {self._max_bytes} bytes"
        )
        if (request.content_length or 0) > self._max_bytes:
            raise too_long
        try:
            return await asyncio.wait_for(self._read(request, too_long), start + self._seconds - time.monotonic())
        except asyncio.TimeoutError:
            raise ServingError(grpc.StatusCode.DEADLINE_EXCEEDED, "The body did not arrive in time") from None

    async def _read(self, request: web.BaseRequest, too_long: ServingError) -> bytes:
        parts, size = [], 0
        async for part in request.content.iter_any():
            size += len(part)
            if size > self._max_bytes:
                raise too_long
            parts.append(part)
        return b"".join(parts)

    def _post(self, method: str, spec: model_pb2.ModelSpec, body: bytes) -> str:
        if method == "predict":
            return self._service.predict_json(spec, body)
        request: Any
        if method == "classify":
            request = classification_pb2.ClassificationRequest()
        else:
            request = regression_pb2.RegressionRequest()
        request.model_spec.CopyFrom(spec)
        rest_decode.fill_examples(rest_decode.parse(body), method, request)
        if method == "classify":
            return rest_encode.encode_classes(self._service.classify(request, REST).result)
        return rest_encode.encode_values(self._service.regress(request, REST).result)

    def _status(self, spec: model_pb2.ModelSpec) -> str:
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
        rows = [
            {
                "version": str(one.version),
                "state": get_model_status_pb2.ModelVersionStatus.State.Name(one.state),
                "status": {
                    "error_code": code_of(one.status.error_code).name,
                    "error_message": one.status.error_message,
                },
            }
            for one in self._service.status(request).model_version_status
        ]
        return json.dumps({"model_version_status": rows}, indent=1)

    def _metadata(self, spec: model_pb2.ModelSpec) -> str:
        request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec, metadata_field=["signature_def"])
        response = self._service.metadata(request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        if not response.metadata["signature_def"].Unpack(signatures):
            raise internal("Failed to unpack 'Any' object to 'SignatureDefMap'.")
        made = {"model_spec": _plain(response.model_spec), "metadata": {"signature_def": _plain(signatures)}}
        return json.dumps(made, indent=1)


def _spec(name: str, version: str | None, label: str | None) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=urllib.parse.unquote(name, errors="replace"))
    if version:
        if int(version) >= 2**63:
            raise invalid(f"Failed to convert version: {version} to numeric.")
        spec.version.value = int(version)
    if label:
        spec.version_label = urllib.parse.unquote(label, errors="replace")
    return spec


def _plain(message: Any) -> Any:
    """Makes a dict of a proto, with its own field names and every single value that JSON's rules would leave out."""
    with_defaults = "always_print_fields_with_no_presence"
    if with_defaults not in json_format.MessageToDict.__code__.co_varnames:
        with_defaults = "including_default_value_fields"  # protobuf 3
    return json_format.MessageToDict(message, preserving_proto_field_name=True, **{with_defaults: True})


def _json(status: int, text: str) -> web.Response:
    return web.Response(status=status, body=text.encode(), content_type="application/json")


def _error(status: int, message: str) -> web.Response:
    return _json(status, json.dumps({"error": message}))
