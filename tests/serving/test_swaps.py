"""New versions under load: nobody notices a swap, and a published version is soon there."""

from __future__ import annotations

import re
import shutil
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
import serving_world
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from evergreen.serving import tensors

pytestmark = pytest.mark.tensorflow

SWAPS, CONNECTIONS = 5, 8
QUIET_S = 0.5  # between two swaps, so that there are requests to compare with


class Clients:
    """Real clients that ask without pause.

    What was wrong with answers is in `wrong`, versions seen in `versions`, start and end of each request in `times`.
    """

    def __init__(self, address: str):
        self.wrong: list[str] = []
        self.versions: set[int] = set()
        self.times: list[tuple[float, float]] = []
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(address,)) for _ in range(CONNECTIONS)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, address: str) -> None:
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = "m", "pair"
        tensors.to_proto(np.array([1, 2], np.float32), request.inputs["a"])
        tensors.to_proto(np.array([3, 4], np.int64), request.inputs["b"])
        with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            while not self._end.is_set():
                begin = time.monotonic()
                try:
                    answer = stub.Predict(request, timeout=60)
                except grpc.RpcError as error:
                    self.wrong.append(f"{error.code()}: {error.details()}")
                    continue
                version = answer.model_spec.version.value
                self.versions.add(version)
                self.times.append((begin, time.monotonic()))
                # The bias is the version's number: an answer that is put together of two versions gives itself away.
                biases, sums = answer.outputs["bias"].float_val, answer.outputs["sum"].float_val
                if list(biases) != [version] * 2 or list(sums) != [4.0, 6.0]:
                    self.wrong.append(f"version {version} answered {list(biases)}, {list(sums)}")


@pytest.fixture(scope="module")
def versions(build_once) -> Path:
    """A folder with versions 1 to 6, each with its number as bias."""

    def build(folder: Path) -> None:
        for number in range(1, SWAPS + 2):
            serving_world.tf2_model(folder / str(number), float(number))

    return build_once("serving_versions", build)


def publish(source: Path, base: Path, version: int) -> None:
    """Publishes as the Pusher does: staged beside, then renamed."""
    staged = base / f".staged-{version}"
    shutil.copytree(source / str(version), staged)
    staged.rename(base / str(version))


def p99_s(times: list[tuple[float, float]]) -> float:
    return float(np.percentile([end - begin for begin, end in times], 99))


def test_five_swaps_under_load_fail_no_request_and_mix_no_versions(versions, tmp_path):
    base = tmp_path / "m"
    base.mkdir()
    publish(versions, base, 1)
    with serving_world.serve(tmp_path, "--model_name=m", f"--model_base_path={base}") as server:
        server.wait("m", 1)
        waited: list[float] = []
        swaps: list[tuple[float, float]] = []
        with Clients(server.grpc) as clients:
            for version in range(2, SWAPS + 2):
                time.sleep(QUIET_S)
                publish(versions, base, version)
                renamed = time.monotonic()
                taken = server.wait("m", version)
                loaded = re.search(rf"Loaded version {version} of model m in ([\d.]+) s", server.log.read_text())
                waited.append(taken - float(loaded.group(1)))
                server.wait("m", version - 1, "END")
                swaps.append((renamed, time.monotonic()))
            asked = len(clients.times)
            end = time.monotonic() + 60
            while len(clients.times) < asked + CONNECTIONS * 2 and time.monotonic() < end:
                time.sleep(0.05)
        assert not clients.wrong
        assert clients.versions == set(range(1, SWAPS + 2))
        # From the rename until it answers, the load left out. The best of five, as others use the machine too.
        assert min(waited) < 2
        during, quiet = [], []
        for begin, end in clients.times:
            (during if any(begin < last and end > first for first, last in swaps) else quiet).append((begin, end))
        # benchmarks/swaps.py measures by how much; a swap that holds requests up shows on any machine.
        assert p99_s(during) < max(10 * p99_s(quiet), 0.25), f"{p99_s(during):.3f} s, else {p99_s(quiet):.3f} s"
