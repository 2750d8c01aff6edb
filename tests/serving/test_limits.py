"""What the built-in server bears: bad bytes, long bodies, too many requests, and clients that stop half-way."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
import serving_world
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from evergreen.serving import tensors

pytestmark = pytest.mark.tensorflow

BODY = {"signature_name": "raw", "instances": [1]}
PATH = "/v1/models/two:predict"


@pytest.fixture(scope="module")
def server(models, tmp_path_factory) -> Iterator[serving_world.Server]:
    """A server with tight limits. Batches wait for 2 s, so that a request can be in work for that long."""
    folder = tmp_path_factory.mktemp("limits")
    (folder / "batching").write_text("batch_timeout_micros { value: 2000000 } max_batch_size { value: 64 }")
    flags = [
        "--model_name=two",
        f"--model_base_path={models}/two",
        "--enable_batching",
        f"--batching_parameters_file={folder}/batching",
        "--max_concurrent_requests=4",
        "--max_request_bytes=1000000",
        "--rest_api_timeout_in_ms=6000",
    ]
    with serving_world.serve(folder, *flags) as running:
        running.wait("two", 2)
        yield running
        assert running.stop(signal.SIGINT) == 0


def request() -> predict_pb2.PredictRequest:
    made = predict_pb2.PredictRequest()
    made.model_spec.name, made.model_spec.signature_name = "two", "raw"
    tensors.to_proto(np.ones(1, np.float32), made.inputs["x"])
    return made


def answers(server: serving_world.Server) -> bool:
    """Whether both ports answer."""
    with grpc.insecure_channel(server.grpc) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        over_grpc = list(stub.Predict(request(), timeout=60).outputs["y"].float_val)
    return (over_grpc, server.ask(PATH, BODY)) == ([4.0], (200, {"predictions": [4.0]}))


def talk(address: str, data: bytes, seconds: float = 5) -> bytes:
    """Sends bytes and returns the first that come back; empty where the other side hangs up or says nothing."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=seconds) as connection, contextlib.suppress(OSError):
        connection.sendall(data)
        return connection.recv(65536)
    return b""


def test_bad_bytes_on_either_port_harm_nobody(server):
    generator = random.Random(0)
    noise = [generator.randbytes(generator.choice([1, 100, 10_000])) for _ in range(30)]
    head = b"POST /v1/models/two:predict HTTP/1.1\r\nHost: x\r\n"
    broken = [
        b"\r\n" * 100,
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + generator.randbytes(1000),
        head + b"Content-Length: -5\r\n\r\n{}",
        head + b"Content-Length: 99999999999999999999\r\n\r\n{}",
        head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}",
        head + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
    ]
    wrong = []

    def ask() -> None:
        for _ in range(5):
            status, answer = server.ask(PATH, BODY)
            if status != 200:
                wrong.append(answer)

    asking = threading.Thread(target=ask)
    asking.start()
    for data in [*noise, *broken]:
        for address in (server.grpc, server.rest):
            assert not talk(address, data, 0.2).startswith(b"HTTP/1.1 500")
    asking.join()
    assert not wrong
    assert answers(server)
    assert "Traceback" not in server.log.read_text()


def test_requests_that_stop_half_way_hold_nothing_up(server):
    head = b"POST /v1/models/two:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"
    host, port = server.rest.split(":")
    open_ones = [socket.create_connection((host, int(port))) for _ in range(20)]
    for connection in open_ones:
        connection.sendall(head)
    assert answers(server)
    # The time that a request may take counts from its first line; then it is told so.
    open_ones[0].settimeout(60)
    assert open_ones[0].recv(65536).startswith(b"HTTP/1.1 504")
    for connection in open_ones:
        connection.close()
    assert answers(server)


def test_long_bodies_are_refused(server):
    host, port = server.rest.split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(b"POST /v1/models/two:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 429")
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    head = b"POST /v1/models/two:predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=60) as connection, contextlib.suppress(OSError):
        connection.sendall(head)
        for _ in range(1600):  # 100 MB
            connection.sendall(chunk)
    huge = request()
    tensors.to_proto(np.ones(25_000_000, np.float32), huge.inputs["z"])
    with grpc.insecure_channel(server.grpc) as channel:
        with pytest.raises(grpc.RpcError) as error:
            prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(huge)
        assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert answers(server)


def test_beyond_the_bound_requests_get_unavailable_and_the_status_still_answers(server):
    with grpc.insecure_channel(server.grpc) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        calls = [stub.Predict.future(request(), timeout=60) for _ in range(20)]
        time.sleep(0.5)
        status, answer = server.ask(PATH, BODY)
        assert server.states("two") == {2: "AVAILABLE"}
        assert sum(not call.done() for call in calls) == 4, "nobody has to end first"
        codes = [call.code() for call in calls]
    assert codes.count(grpc.StatusCode.OK) == 4
    assert codes.count(grpc.StatusCode.UNAVAILABLE) == 16
    assert status == 503
    assert answer == {"error": "Too many requests: 4 are in work already"}
    assert answers(server)


def test_a_deadline_that_passes_is_told_and_frees_its_place(server):
    with grpc.insecure_channel(server.grpc) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for _ in range(3):
            with pytest.raises(grpc.RpcError) as error:
                stub.Predict(request(), timeout=0.2)
            assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    time.sleep(3)  # the batches that nobody waits for any more
    assert answers(server)


def test_a_body_of_many_levels_is_an_error_and_no_crash(server):
    status, answer = server.ask(PATH, b'{"instances": ' + b"[" * 400_000 + b"]" * 400_000 + b"}")
    assert status == 400
    assert answer["error"].startswith("JSON Parse error: ")
    deep = b'{"signature_name": "raw", "instances": ' + b"[" * 90 + b"1" + b"]" * 90 + b"}"
    assert server.ask(PATH, deep)[0] == 400
    assert answers(server)
