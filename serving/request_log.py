"""The sampled request log: what `logging_config` of a model's config asks for, as TFRecords of PredictionLog.

Files are named PREFIX.TIME.PID.NUMBER.tfrecord (UTC, to the second) and rotated by size. A thread of its own writes; a
request only puts a reference into a bounded queue, and where that is full the sample is dropped and counted. Nothing
that goes wrong with the disk reaches a request.
"""

from __future__ import annotations

import logging
import os
import queue
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from tensorflow_serving.apis import prediction_log_pb2

_ROTATE_BYTES = 64 * 1024 * 1024
_QUEUE = 1000
_FLUSH_S = 1.0
_log = logging.getLogger("evergreen.serving")

# Fills the log type's request and response.
Fill = Callable[[prediction_log_pb2.PredictionLog], None]


class RequestLog:
    """Samples answered requests and writes them down.

    Args:
      config: returns the ModelServerConfig in force; read about once a second, so that a reload takes effect.
      on_drop: called with the model's name for each sample that found the queue full.
    """

    def __init__(self, config: Callable[[], Any], on_drop: Callable[[str], None] = lambda model: None):
        self._config, self._on_drop = config, on_drop
        self._rates: dict[str, tuple[float, str]] = {}
        self._queue: queue.Queue[tuple[Any, Any, Fill] | None] = queue.Queue(_QUEUE)
        self._files: dict[str, _File] = {}
        self._thread = threading.Thread(target=self._write, name="request-log", daemon=True)

    def start(self) -> None:
        """Starts the thread; the present configuration holds from now on."""
        self._configure()
        self._thread.start()

    def stop(self) -> None:
        """Writes what is queued and closes the files."""
        self._queue.put(None)
        self._thread.join()

    def wants(self, model: str) -> bool:
        """Throws the dice: whether this request of the model is to be logged."""
        rate = self._rates.get(model)
        return rate is not None and random.random() < rate[0]

    def add(self, spec: Any, fill: Fill) -> None:
        """Queues an answered request.

        Args:
          spec: the ModelSpec that answered.
          fill: writes request and answer into a PredictionLog, later and in the log's thread.
        """
        try:
            self._queue.put_nowait((spec, int(time.time()), fill))
        except queue.Full:
            self._on_drop(spec.name)

    def _configure(self) -> None:
        rates = {}
        for one in self._config().model_config_list.config:
            rate = one.logging_config.sampling_config.sampling_rate
            prefix = one.logging_config.log_collector_config.filename_prefix
            if rate > 0 and prefix:
                rates[one.name] = (rate, prefix)
        self._rates = rates

    def _write(self) -> None:
        tidied = time.monotonic()
        while True:
            try:
                item = self._queue.get(timeout=_FLUSH_S)
            except queue.Empty:
                item = ()  # type: ignore[assignment]
            if item is None:
                break
            if item:
                self._record(*item)
            if time.monotonic() - tidied > _FLUSH_S:
                tidied = time.monotonic()
                self._tidy()
        for file in self._files.values():
            file.close()

    def _record(self, spec: Any, seconds: int, fill: Fill) -> None:
        rate, prefix = self._rates.get(spec.name, (0.0, ""))
        if not prefix:
            return
        try:
            made = prediction_log_pb2.PredictionLog()
            made.log_metadata.model_spec.CopyFrom(spec)
            made.log_metadata.sampling_config.sampling_rate = rate
            made.log_metadata.timestamp_secs = seconds
            fill(made)
            if prefix not in self._files:
                self._files[prefix] = _File(prefix)
            self._files[prefix].write(made.SerializeToString())
        except Exception as error:
            self._on_drop(spec.name)
            _log.error("The request log at %s cannot be written: %s", prefix, error)
            self._files.pop(prefix, None)

    def _tidy(self) -> None:
        try:
            self._configure()
            for file in self._files.values():
                file.flush()
        except Exception as error:
            _log.error("The request log cannot be flushed: %s", error)


class _File:
    """The files of one prefix, one after the other."""

    def __init__(self, prefix: str):
        self._prefix, self._number, self._bytes = prefix, 0, 0
        self._writer = self._open()

    def write(self, record: bytes) -> None:
        if self._bytes > _ROTATE_BYTES:
            self._writer.close()
            self._number, self._bytes = self._number + 1, 0
            self._writer = self._open()
        self._writer.write(record)
        self._bytes += len(record) + 16  # the frame of a TFRecord

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _open(self) -> Any:
        import tensorflow as tf

        os.makedirs(os.path.dirname(self._prefix) or ".", exist_ok=True)
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        return tf.io.TFRecordWriter(f"{self._prefix}.{stamp}.{os.getpid()}.{self._number:05d}.tfrecord")
