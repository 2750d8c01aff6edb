"""What monitoring sees of the scheduler: a heartbeat file, and `/healthz` and `/metrics` on the loopback interface.

The endpoint answers from what the loop last published; it reads no file and no database, so that asking often costs
nothing. `/healthz` is about the scheduler: it fails when the loop hangs. Whether the model has grown stale, or the
schedule is paused, is for alerts on `/metrics`: restarting the scheduler would mend neither.
"""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from evergreen.components.errors import ConfigError

# The loop looks every few seconds; one that has not for so long hangs.
HANGS_S = 120.0


@dataclass(frozen=True)
class Snapshot:
    """What is published, once each time the loop goes round.

    Attributes:
      beat: when that was, on the monotonic clock.
      next_run: the next due time, seconds since 1970; None where there is none.
      last_success: when a run last ended without failing; 0 for never.
      live_version: the version that answers requests; 0 where there is none.
      live_published: when it was published; 0 where there is none.
      max_model_age: seconds after which the live model is stale; None where nobody said.
      running: since when a run goes on; 0 where none does.
      paused: why nothing is started; empty where it is.
      waiting: how many runs wait.
      failures: failed runs in a row.
      counts: how many runs ended how.
      seconds: how long all of them took.
    """

    beat: float
    next_run: float | None = None
    last_success: float = 0.0
    live_version: int = 0
    live_published: float = 0.0
    max_model_age: int | None = None
    running: float = 0.0
    paused: str = ""
    waiting: int = 0
    failures: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0


class Endpoint:
    """Serves `/healthz` and `/metrics` on 127.0.0.1, from a thread of its own.

    Args:
      port: the port; 0 for any that is free.
      name: the pipeline's name, a label of every metric.

    Attributes:
      port: the port that is listened on.
      snapshot: what is published.

    Raises:
      ConfigError: the port is taken.
    """

    def __init__(self, port: int, name: str):
        self.snapshot = Snapshot(time.monotonic())
        self._name = name
        registry = CollectorRegistry()
        registry.register(self)  # type: ignore[arg-type]
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
                elif path == "/healthz":
                    status, values = endpoint.health()
                    self._answer(status, "application/json", json.dumps(values).encode() + b"\n")
                else:
                    self._answer(404, "text/plain", b"/healthz and /metrics are here\n")

            def _answer(self, status: int, kind: str, content: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        try:
            self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        except OSError as error:
            raise ConfigError(
                f"`schedule.port` {port} cannot be listened on", str(error.strerror), "name another port"
            ) from error
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops serving."""
        self._server.shutdown()
        self._server.server_close()

    def health(self) -> tuple[int, dict[str, Any]]:
        """Returns the HTTP status and the body of `/healthz`."""
        shown = self.snapshot
        silent = time.monotonic() - shown.beat
        stale = self._is_stale(shown)
        values = {
            "status": "ok" if silent <= HANGS_S else "hangs",
            "seconds_since_beat": round(silent, 1),
            "paused": shown.paused or None,
            "stale": stale,
            "running": bool(shown.running),
            "next_run": shown.next_run,
            "live_version": shown.live_version or None,
        }
        return (200 if silent <= HANGS_S else 503), values

    def _is_stale(self, shown: Snapshot) -> bool:
        limit = shown.max_model_age
        return limit is not None and bool(shown.live_published) and time.time() - shown.live_published > limit

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics, for prometheus_client."""
        shown = self.snapshot
        gauges = {
            "last_success_timestamp_seconds": ("When a run last ended without failing.", shown.last_success),
            "live_version": ("The version that answers requests; 0 where there is none.", shown.live_version),
            "live_published_timestamp_seconds": ("When the live version was published.", shown.live_published),
            "next_run_timestamp_seconds": ("The next due time; 0 where there is none.", shown.next_run or 0),
            "run_started_timestamp_seconds": ("Since when a run goes on; 0 where none does.", shown.running),
            "paused": ("1 where the schedule is paused.", int(bool(shown.paused))),
            "stale": ("1 where the live model is older than schedule.max_model_age.", int(self._is_stale(shown))),
            "waiting": ("Runs that wait.", shown.waiting),
            "consecutive_failures": ("Failed runs in a row.", shown.failures),
        }
        if shown.live_published:
            age = time.time() - shown.live_published
            gauges["live_age_seconds"] = ("The live model's age.", age)
        for name, (words, value) in gauges.items():
            metric = GaugeMetricFamily(f"evergreen_{name}", words, labels=["model"])
            metric.add_metric([self._name], value)
            yield metric
        runs = CounterMetricFamily("evergreen_runs", "Runs by how they ended.", labels=["model", "result"])
        for result, count in sorted(shown.counts.items()):
            runs.add_metric([self._name, result], count)
        yield runs
        took = SummaryMetricFamily("evergreen_run_duration_seconds", "How long runs took.", labels=["model"])
        took.add_metric([self._name], sum(shown.counts.values()), shown.seconds)
        yield took
