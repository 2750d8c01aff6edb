"""gRPC: PredictionService, ModelService and the health service.

This is gRPC's threaded server, not the one on asyncio, which costs the processor half as much again for a request to a
small model; and few threads are better than many.
"""

from __future__ import annotations

import concurrent.futures
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from evergreen.serving.errors import ServingError
from evergreen.serving.service import Service
from evergreen.serving.workers import Workers

SERVICES = ("", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService")


class GrpcFront:
    """The gRPC server.

    Args:
      service: what answers.
      workers: where predictions run.
      max_bytes: the longest request; longer ones get RESOURCE_EXHAUSTED.
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
        # Whoever asks for a status or a health waits for no prediction.
        self._others = concurrent.futures.ThreadPoolExecutor(8, "grpc")
        self._server = grpc.server(self._others, options=list(options.items()))
        self._health = health.HealthServicer()
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
            _methods(None, GetModelStatus=service.status, HandleReloadConfigRequest=service.reload), self._server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

    def start(self, address: str, socket: str = "") -> int:
        """Starts to accept.

        Args:
          address: host:port; a port of 0 takes a free one.
          socket: path of a UNIX socket to listen on too.

        Returns:
          The port.

        Raises:
          OSError: the address is not to be had.
        """
        port = 0
        for one in (address, f"unix:{socket}") if socket else (address,):
            try:
                bound = self._server.add_insecure_port(one)
            except RuntimeError:
                bound = 0
            if not bound:
                raise OSError(f"Failed to bind {one}")
            port = port or int(bound)
        self._server.start()
        self._say(health_pb2.HealthCheckResponse.SERVING)
        return port

    def stop(self, seconds: float) -> None:
        """Stops accepting, and waits until requests in work have ended, for that many seconds at most."""
        self._say(health_pb2.HealthCheckResponse.NOT_SERVING)
        self._server.stop(seconds).wait()

    def _say(self, status: Any) -> None:
        for name in SERVICES:
            self._health.set(name, status)


def _methods(workers: Workers | None, **answers: Callable[[Any], Any]) -> Any:
    """Makes a servicer of functions from request to response."""

    class Servicer:
        pass

    for name, answer in answers.items():
        setattr(Servicer, name, staticmethod(_method(workers, answer)))
    return Servicer()


def _method(workers: Workers | None, answer: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    def method(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            if workers is not None:
                workers.check()
            return answer(request)
        except ServingError as error:
            context.abort(error.code, error.message)
        except Exception as error:
            traceback.print_exc()
            context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__} in the server")

    if workers is not None:
        # gRPC's name for "run this method there"; where it should cease to know it, the other pool runs everything.
        method.experimental_thread_pool = workers  # type: ignore[attr-defined]
    return method
