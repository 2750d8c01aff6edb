"""TensorFlow Serving's metrics under its own names, as Prometheus reads them."""

from __future__ import annotations

import itertools
from typing import Any

import prometheus_client
from prometheus_client.exposition import generate_latest

_COUNT = ":tensorflow:serving:request_count"
_BATCH_POOL = "model_server_batch_threads"
# TensorFlow Serving's own buckets: 10 us, and 1.8 times more each, 33 of them.
_BUCKETS = tuple(itertools.accumulate(range(33), lambda bound, _: bound * 1.8, initial=10.0))[:33]


class Metrics:
    """Counts requests and loads. Threads may call it at the same time."""

    def __init__(self) -> None:
        prometheus_client.disable_created_metrics()
        self._registry = prometheus_client.CollectorRegistry()
        self._count = prometheus_client.Counter(
            _COUNT, "Requests by model and status.", ["model_name", "status"], registry=self._registry
        )
        self._latency = self._histogram(
            ":tensorflow:serving:request_latency",
            "Microseconds that answers took, from the request's arrival.",
            ["model_name", "API", "entrypoint"],
        )
        self._runtime = self._histogram(
            ":tensorflow:serving:runtime_latency",
            "Microseconds that TensorFlow or TensorFlow Lite took; with batching also the wait for a batch.",
            ["model_name", "API", "runtime"],
        )
        self._queuing = self._histogram(
            ":tensorflow:serving:batching_session:queuing_latency",
            "Microseconds that requests waited for their batch.",
            ["thread_pool_name"],
        )
        self._load = self._histogram(
            ":tensorflow:cc:saved_model:load_latency",
            "Microseconds that loads took, warm-up included.",
            ["model_path"],
        )
        self._dropped = prometheus_client.Counter(
            ":evergreen:serving:request_log_dropped",
            "Sampled requests that the request log had no room for.",
            ["model_name"],
            registry=self._registry,
        )
        self._cells: dict[tuple[Any, ...], Any] = {}

    def request(self, model: str, api: str, entrypoint: str, status: str, seconds: float) -> None:
        """Counts an answer.

        Args:
          model: the model's name.
          api: Predict, Classify, Regress or MultiInference.
          entrypoint: GRPC or REST.
          status: OK or the name of the error's code.
          seconds: from the request's arrival to the answer.
        """
        self._cell(self._count, model, status).inc()
        if status == "OK":
            self._cell(self._latency, model, api, entrypoint).observe(seconds * 1e6)

    def run(self, model: str, api: str, seconds: float) -> None:
        """Counts a run of the model."""
        self._cell(self._runtime, model, api, "TF").observe(seconds * 1e6)

    def load(self, model: str, version: int, seconds: float) -> None:
        """Counts a load."""
        self._cell(self._load, f"{model}/{version}").observe(seconds * 1e6)

    def queued(self, model: str, seconds: float) -> None:
        """Counts a request that waited for its batch; TensorFlow Serving counts them by pool, not by model."""
        self._cell(self._queuing, _BATCH_POOL).observe(seconds * 1e6)

    def dropped(self, model: str) -> None:
        """Counts a sampled request that was not logged."""
        self._cell(self._dropped, model).inc()

    def page(self) -> bytes:
        """Writes all metrics in Prometheus's text form."""
        # The client library calls every counter ..._total, which TensorFlow Serving does not.
        return generate_latest(self._registry).replace(f"{_COUNT}_total".encode(), _COUNT.encode())

    def _histogram(self, name: str, help: str, labels: list[str]) -> prometheus_client.Histogram:
        return prometheus_client.Histogram(name, help, labels, buckets=_BUCKETS, registry=self._registry)

    def _cell(self, metric: Any, *labels: str) -> Any:
        key = (metric, *labels)
        found = self._cells.get(key)
        if found is None:
            found = self._cells[key] = metric.labels(*labels)
        return found
