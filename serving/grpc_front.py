"""gRPC: PredictionService, ModelService and the health service, on the event loop that the REST front shares."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from evergreen.serving.errors import ServingError
from evergreen.serving.service import Service
from evergreen.serving.workers import Workers

SERVICES = ("", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService")


class GrpcFront:
    """The gRPC server.

    Args:
      service: what answers.
      workers: where it runs.
      max_bytes: the longest message, in both directions; longer requests get RESOURCE_EXHAUSTED.
      arguments: gRPC channel arguments, which win over ours.
    """

    def __init__(
        self, service: Service, workers: Workers, max_bytes: int, arguments: Sequence[tuple[str, int | str]] = ()
    ):
        options = {
            "grpc.max_receive_message_length": max_bytes,
            "grpc.max_send_message_length": -1,
            "grpc.so_reuseport": 0,  # or a second server would take half of the first one's connections
            **dict(arguments),
        }
        self._server = grpc.aio.server(options=list(options.items()))
        self._health = health_aio.HealthServicer()
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            _methods(
                workers,
                Predict=service.predict,
                Classify=service.classify,
                Regress=service.regress,
                MultiInference=service.multi_inference,
                GetModelMetadata=service.metadata,
            ),
            self._server,
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(
            # Nobody waits for these in the queue of predictions: they are what tells whether the server still lives.
            _methods(None, GetModelStatus=service.status, HandleReloadConfigRequest=service.reload),
            self._server,
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

    async def start(self, address: str, socket: str = "") -> int:
        """Starts to accept.

        Args:
          address: host:port; a port of 0 takes a free one.
          socket: path of a UNIX socket to listen on too.

        Returns:
          The port.

        Raises:
          RuntimeError, OSError: the address is not to be had.
        """
        port = self._server.add_insecure_port(address)
        if port == 0:
            raise OSError(f"cannot listen on {address}")
        if socket and self._server.add_insecure_port(f"unix:{socket}") == 0:
            raise OSError(f"cannot listen on unix:{socket}")
        await self._server.start()
        await self._say(health_pb2.HealthCheckResponse.SERVING)
        return int(port)

    async def stop(self, seconds: float) -> None:
        """Stops accepting, and lets requests in work end for that many seconds."""
        await self._say(health_pb2.HealthCheckResponse.NOT_SERVING)
        await self._server.stop(seconds)

    async def _say(self, status: Any) -> None:
        for name in SERVICES:
            await self._health.set(name, status)


def _methods(workers: Workers | None, **answers: Callable[[Any], Any]) -> Any:
    """Makes a servicer of functions from request to response."""

    class Servicer:
        pass

    for name, answer in answers.items():
        setattr(Servicer, name, staticmethod(_method(workers, answer)))
    return Servicer()


def _method(workers: Workers | None, answer: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    async def method(request: Any, context: grpc.aio.ServicerContext) -> Any:
        try:
            if workers is None:
                return await asyncio.get_running_loop().run_in_executor(None, answer, request)
            return await workers.run(lambda: answer(request), context.time_remaining())
        except ServingError as error:
            await context.abort(error.code, error.message)
        except Exception as error:
            traceback.print_exc()
            await context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__} in the server")

    return method
