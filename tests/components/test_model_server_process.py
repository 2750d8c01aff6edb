"""A model server as a process: it answers within its bounds, and is gone when nobody needs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import serving_world

from evergreen.components.model_server import process
from evergreen.components.model_server.client import Client, ServerError
from evergreen.components.model_server.process import ServerEnded, ServerProcess
from evergreen.components.model_server.rest import RestClient

pytestmark = pytest.mark.tensorflow

SECONDS = 180  # generous: the machine may be loaded


@pytest.fixture(scope="module")
def base(build_once) -> Path:
    """A base path with a good version 1, and one without `saved_model.pb`'s variables, 2."""

    def build(folder: Path) -> None:
        serving_world.tf2_model(folder / "m" / "1", bias=3.0)
        (folder / "broken" / "2").mkdir(parents=True)
        (folder / "broken" / "2" / "saved_model.pb").write_bytes(b"no model")

    return build_once("model_server_base", build)


def flags(base: Path, model: str = "m") -> list[str]:
    return [f"--model_name={model}", f"--model_base_path={base / model}", "--max_num_load_retries=0"]


def is_there(pid: int) -> bool:
    """Whether a process runs; one that has ended and whose parent has not asked yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_both_clients_get_the_same_from_it_and_it_ends_with_the_block(base, tmp_path):
    with ServerProcess(flags(base), tmp_path / "log", seconds=SECONDS) as server:
        assert server.wait_available("m", 1, SECONDS).state == "AVAILABLE"
        with Client(server.grpc_address, SECONDS) as by_grpc, RestClient(server.rest_address, SECONDS) as by_rest:
            assert by_grpc.metadata("m") == by_rest.metadata("m")
            for signature, inputs in (
                ("pair", {"a": np.array([1.5, np.nan], np.float32), "b": np.array([2, -1])}),
                ("kinds", {"flag": [True], "count": np.array([7], np.int32), "word": np.array([b"\xc3\xa9"], object)}),
                ("text", {"word": np.array([b"a", b"b"], object)}),
                ("wide", {"x": np.ones((2, 3), np.float32)}),
            ):
                arrays = {name: np.asarray(values) for name, values in inputs.items()}
                one, other = (client.ask("m", arrays, signature=signature).outputs for client in (by_grpc, by_rest))
                assert one.keys() == other.keys()
                for name, values in one.items():
                    assert values.dtype == other[name].dtype
                    np.testing.assert_array_equal(values, other[name])
            rows = [serving_world.example(x=1.0), serving_world.example(x=2.0)]
            np.testing.assert_allclose(by_grpc.examples("m", rows)["scores"], [[5], [7]])
            with pytest.raises(ServerError, match=r"404: Servable not found for request: Latest\(other\)"):
                by_rest.metadata("other")
            with pytest.raises(ServerError, match=r"no signature `other`[^$]*`pair`"):
                by_rest.ask("m", {}, signature="other")
        assert server.peak_bytes() > 50e6
        pid = server.pid
    assert not is_there(pid)


def test_what_cannot_be_loaded_is_told_in_the_servers_words(base, tmp_path):
    with (
        ServerProcess(flags(base, "broken"), tmp_path / "log", seconds=SECONDS) as server,
        pytest.raises(ServerError, match="cannot serve version 2 of `broken`"),
    ):
        server.wait_available("broken", 2, SECONDS)


def test_its_bounds_of_memory_and_time_end_it(base, tmp_path):
    with ServerProcess(flags(base), tmp_path / "log", max_bytes=60_000_000, seconds=SECONDS) as server:
        with pytest.raises(ServerEnded, match="more than the 60 MB allowed"):
            server.wait_available("m", 1, SECONDS)
        assert not is_there(server.pid)
    with (
        ServerProcess(flags(base), tmp_path / "log", seconds=0.2) as server,
        pytest.raises(ServerEnded, match=r"0\.2 s"),
    ):
        server.wait_available("m", 1, SECONDS)


def test_a_server_that_ends_by_itself_says_why(tmp_path):
    with (
        ServerProcess(["--model_nam=m"], tmp_path / "log") as server,
        pytest.raises(ServerEnded, match=r"status 1[^$]*model_nam"),
    ):
        server.wait_available("m", 1, SECONDS)


PARENT = """
import sys, time
from evergreen.components.model_server.process import ServerProcess
print(ServerProcess(sys.argv[2:], sys.argv[1]).pid, flush=True)
time.sleep(600)
"""


def test_it_does_not_outlive_a_parent_that_is_killed(base, tmp_path):
    command = [sys.executable, "-c", PARENT, str(tmp_path / "log"), *flags(base)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        server = int(parent.stdout.readline())
        wait_until(lambda: "evergreen.serving" in Path(f"/proc/{server}/cmdline").read_text())
        assert is_there(server)
        os.kill(parent.pid, signal.SIGKILL)
    wait_until(lambda: not is_there(server))


def test_tensorflow_serving_is_preferred_where_it_is_installed(tmp_path, monkeypatch):
    assert process.find_server()[0] == process.BUILT_IN
    program = tmp_path / process.TENSORFLOW_SERVING
    program.write_text('#!/bin/sh\necho "given: $@"; exit 3\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with ServerProcess(["--model_name=m"], tmp_path / "log") as server:
        assert server.which == process.TENSORFLOW_SERVING
        port = server.grpc_address.rpartition(":")[2]
        with pytest.raises(ServerEnded, match=rf"status 3[^$]*given: --port={port} .*--model_name=m"):
            server.wait_available("m", 1, SECONDS)
