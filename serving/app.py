"""The server as a whole: flags in, both ports open, models kept up to date, until a signal ends it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from evergreen.serving import batching_config, model_config, monitoring_config
from evergreen.serving import flags as flags_module
from evergreen.serving.flags import Flags
from evergreen.serving.grpc_front import GrpcFront
from evergreen.serving.manager import Manager, ManagerOptions
from evergreen.serving.metrics import Metrics
from evergreen.serving.request_log import RequestLog
from evergreen.serving.rest_front import RestFront
from evergreen.serving.service import Service
from evergreen.serving.warmup import warm_up
from evergreen.serving.workers import Workers

_DRAIN_S = 30.0


def serve(flags: Flags) -> None:
    """Runs the server until SIGTERM or SIGINT; requests in work are then answered, new ones refused.

    Raises:
      ServingError: a configuration that cannot be served.
      OSError: a port or file that is not to be had.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if flags.model_config_file:
        config = model_config.read(flags.model_config_file)
    else:
        config = model_config.of_flags(flags.model_name, flags.model_base_path)
    monitoring = monitoring_config.read(flags.monitoring_config_file or None)
    metrics = Metrics()
    manager = Manager(_options(flags), warm_up, metrics.load, metrics.queued)
    log = RequestLog(manager.current_config, metrics.dropped)
    service = Service(manager, metrics, log)
    manager.start(config)
    log.start()
    try:
        asyncio.run(_answer(flags, service, metrics, monitoring.path if monitoring.enable else ""))
    finally:
        manager.stop()
        log.stop()


async def _answer(flags: Flags, service: Service, metrics: Metrics, metrics_path: str) -> None:
    workers = Workers(_threads(flags), flags.max_concurrent_requests)
    arguments = flags_module.channel_arguments(flags.grpc_channel_arguments)
    grpc_front = GrpcFront(service, workers, flags.max_request_bytes, arguments)
    seconds = flags.rest_api_timeout_in_ms / 1000
    rest_front = RestFront(service, workers, flags.max_request_bytes, seconds, metrics_path, metrics.page)
    ended = asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sign, ended.set)
    port = grpc_front.start(f"{flags.host}:{flags.port}", flags.grpc_socket_path)
    _say(f"Running gRPC ModelServer at {flags.host}:{port} ...")
    if flags.rest_api_port:
        await rest_front.start(flags.host, flags.rest_api_port)
        _say(f"Exporting HTTP/REST API at:localhost:{flags.rest_api_port} ...")
    await ended.wait()
    _say("Ending: no new requests, those in work are answered ...")
    await asyncio.gather(asyncio.to_thread(grpc_front.stop, _DRAIN_S), rest_front.stop())


def _options(flags: Flags) -> ManagerOptions:
    batching = batching_config.read(flags.batching_parameters_file or None) if flags.enable_batching else None
    return ManagerOptions(
        file_system_poll_wait_seconds=flags.file_system_poll_wait_seconds,
        model_config_file=flags.model_config_file or None,
        model_config_file_poll_wait_seconds=flags.model_config_file_poll_wait_seconds,
        max_num_load_retries=flags.max_num_load_retries,
        load_retry_interval_micros=flags.load_retry_interval_micros,
        allow_version_labels_for_unavailable_models=flags.allow_version_labels_for_unavailable_models,
        prefer_tflite_model=flags.prefer_tflite_model,
        enable_model_warmup=flags.enable_model_warmup,
        batching=batching,
    )


def _threads(flags: Flags) -> int:
    # A batch is made of requests that wait together, each in a thread; without batches more threads than needed to keep
    # the cores busy only take the interpreter from each other.
    return 64 if flags.enable_batching else max(8, os.cpu_count() or 1)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
