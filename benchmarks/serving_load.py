"""The load of benchmarks/serving.py and swaps.py: connections that ask without pause, in a process of their own.

    python benchmarks/serving_load.py

reads jobs from its standard input, one JSON line each, and writes a line for each:

    {"protocol": "grpc" or "rest", "address": "127.0.0.1:8500", "request": FILE, "connections": 8, "seconds": 2}
    {"requests": 4000, "all": 4800, "seconds": 2.0, "p50_ms": 1.9, "p99_ms": 4.0, "failed": 0, "times": [[start, s]...]}

FILE holds the bytes that are sent: a serialized PredictRequest, or the head and body of a request. What begins in the
first fifth of the time counts in `all` only. Answers are not parsed, so that the load costs little of a processor that
others need.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

PREDICT = "/tensorflow.serving.PredictionService/Predict"


@contextmanager
def grpc_connection(address: str, data: bytes) -> Iterator[Callable[[], None]]:
    """Opens a channel of its own; yields what asks once."""
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = channel.unary_unary(PREDICT)
        yield lambda: call(data, timeout=60, wait_for_ready=True) and None


@contextmanager
def rest_connection(address: str, data: bytes) -> Iterator[Callable[[], None]]:
    """Opens a connection that is kept; yields what asks once."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def receive() -> bytes:
            part = connection.recv(1 << 18)
            if not part:
                raise RuntimeError("the server closed the connection")
            return part

        def ask() -> None:
            connection.sendall(data)
            got = b""
            while b"\r\n\r\n" not in got:
                got += receive()
            head, _, body = got.partition(b"\r\n\r\n")
            left = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]) - len(body)
            while left > 0:
                left -= len(receive())
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(head.partition(b"\r\n")[0].decode())

        yield ask


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Does a job; `times` are the starts (UNIX seconds) and lengths (seconds) of all requests where the job asks."""
    with open(job["request"], "rb") as file:
        data = file.read()
    connect = {"grpc": grpc_connection, "rest": rest_connection}[job["protocol"]]
    begin = time.time() + job["seconds"] / 5
    end = begin + job["seconds"]
    times: list[tuple[float, float]] = []
    warm: list[float] = []
    failed: list[str] = []

    def ask_on() -> None:
        with connect(job["address"], data) as ask:
            while (start := time.time()) < end:
                clock = time.perf_counter()
                try:
                    ask()
                except (grpc.RpcError, RuntimeError) as error:
                    failed.append(str(error))
                    continue
                taken = time.perf_counter() - clock
                if start >= begin:
                    times.append((start, taken))
                else:
                    warm.append(taken)

    threads = [threading.Thread(target=ask_on) for _ in range(job["connections"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = sorted(seconds for _, seconds in times)
    return {
        "requests": len(times),
        "all": len(times) + len(warm),
        "seconds": job["seconds"],
        "p50_ms": taken[len(taken) // 2] * 1e3 if taken else None,
        "p99_ms": taken[int(len(taken) * 0.99)] * 1e3 if taken else None,
        "failed": len(failed),
        "error": failed[0] if failed else None,
        "times": times if job.get("times") else [],
    }


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
