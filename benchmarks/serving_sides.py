"""The two sides of benchmarks/serving.py and swaps.py: the model, the requests, FastAPI's process and the load's."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from evergreen.components.model_server.process import free_port
from evergreen.serving import tensors

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

import serving_world  # noqa: E402

ROWS = (1, 64)


def save_model(folder: Path, bias: float = 0.0) -> None:
    """Saves the network: x [n, 16] to y [n, 1]."""
    generator = tf.random.Generator.from_seed(0)

    class Model(tf.Module):
        def __init__(self) -> None:
            sizes = (16, 64, 64, 1)
            self.layers = [tf.Variable(generator.normal(pair) / 8) for pair in itertools.pairwise(sizes)]
            self.bias = tf.Variable(bias)

        @tf.function(input_signature=[tf.TensorSpec([None, 16], tf.float32, name="x")])
        def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            for weights in self.layers[:-1]:
                x = tf.nn.relu(x @ weights)
            return {"y": x @ self.layers[-1] + self.bias}

    model = Model()
    tf.saved_model.save(model, str(folder), signatures={"serving_default": model.serve})


def write_requests(folder: Path) -> dict[tuple[str, int], Path]:
    """Writes what the load sends: by protocol (fastapi, rest, grpc) and rows."""
    files = {}
    for rows in ROWS:
        x = np.random.default_rng(0).normal(size=(rows, 16)).astype(np.float32)
        body = json.dumps({"instances": x.tolist()}).encode()
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "m"
        tensors.to_proto(x, request.inputs["x"])
        contents = {
            "fastapi": http("/predict", body),
            "rest": http("/v1/models/m:predict", body),
            "grpc": request.SerializeToString(),
        }
        for protocol, content in contents.items():
            files[protocol, rows] = folder / f"{protocol}-{rows}"
            files[protocol, rows].write_bytes(content)
    return files


def http(path: str, body: bytes) -> bytes:
    """Returns a POST of JSON as it goes over the wire."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@contextlib.contextmanager
def fastapi(model: Path) -> Iterator[tuple[str, int]]:
    """Runs the FastAPI app and yields its address and process id."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, str(HERE / "serving_fastapi.py"), str(port)],
        env={**serving_world.environment(), "MODEL": str(model)},
    )
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.1)
        yield f"127.0.0.1:{port}", process.pid
    finally:
        process.kill()
        process.wait()


class Load:
    """The process that asks."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "serving_load.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, **job: Any) -> None:
        """Begins a job; see serving_load.py."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()

    def result(self) -> dict[str, Any]:
        """Waits for the job's end."""
        assert self._process.stdout is not None
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
