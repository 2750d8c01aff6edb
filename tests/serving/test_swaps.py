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


class Clients:
    """Real clients that ask without pause; what was wrong with answers is in `wrong`, versions seen in `versions`."""

    def __init__(self, address: str):
        self.wrong: list[str] = []
        self.versions: set[int] = set()
        self.count = 0
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
                try:
                    answer = stub.Predict(request, timeout=60)
                except grpc.RpcError as error:
                    self.wrong.append(f"{error.code()}: {error.details()}")
                    continue
                version = answer.model_spec.version.value
                self.versions.add(version)
                self.count += 1
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


def test_five_swaps_under_load_fail_no_request_and_mix_no_versions(versions, tmp_path):
    base = tmp_path / "m"
    base.mkdir()
    publish(versions, base, 1)
    with serving_world.serve(tmp_path, "--model_name=m", f"--model_base_path={base}") as server:
        server.wait("m", 1)
        waited: list[float] = []
        with Clients(server.grpc) as clients:
            for version in range(2, SWAPS + 2):
                publish(versions, base, version)
                taken = server.wait("m", version)
                loaded = re.search(rf"Loaded version {version} of model m in ([\d.]+) s", server.log.read_text())
                waited.append(taken - float(loaded.group(1)))
                server.wait("m", version - 1, "END")
            asked = clients.count
            end = time.monotonic() + 60
            while clients.count < asked + CONNECTIONS * 2 and time.monotonic() < end:
                time.sleep(0.05)
        assert not clients.wrong
        assert clients.versions == set(range(1, SWAPS + 2))
        # From the rename until it answers, the load left out. The best of five, as others use the machine too.
        assert min(waited) < 2
