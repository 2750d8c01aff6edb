"""Beam's stages through a job server: the Job API that Flink's and Spark's job servers speak too."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import integration_world as world
import pytest
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

from evergreen.components.model_server.process import free_port

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

LIMIT_S = 1800
PROJECT = "flights"


@contextlib.contextmanager
def program(module: str, *arguments: str, **variables: str) -> Iterator[None]:
    """Runs a module of Beam's as a process of its own for the time of a block, with more variables."""
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], env={**os.environ, **variables})
    try:
        yield
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def job_server(tmp_path) -> Iterator[str]:
    """The address of a job server."""
    port = tmp_path / "port"
    arguments = ["--port_file", str(port), "--staging_dir", str(tmp_path / "staging")]
    with program("apache_beam.runners.portability.local_job_service_main", *arguments):
        end = time.monotonic() + LIMIT_S
        while not port.exists():
            assert time.monotonic() < end
            time.sleep(0.1)
        yield f"localhost:{port.read_text()}"


@pytest.fixture
def worker_pool(tmp_path) -> Iterator[str]:
    """The address of a pool of workers, started as docs/beam.md has it."""
    port = free_port()
    variables = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # it starts its workers as `python`
        "PYTHONPATH": os.pathsep.join([str(tmp_path / PROJECT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
    }
    with program("apache_beam.runners.worker.worker_pool_main", f"--service_port={port}", **variables):
        yield f"localhost:{port}"


def jobs(address: str) -> dict[str, str]:
    """The state of each job that the server has been given, by its name."""
    with grpc.insecure_channel(address) as channel:
        stub = beam_job_api_pb2_grpc.JobServiceStub(channel)
        found = stub.GetJobs(beam_job_api_pb2.GetJobsRequest(), timeout=60).job_info
    return {job.job_id: beam_job_api_pb2.JobState.Enum.Name(job.state) for job in found}


def publish(folder: Path, *arguments: str) -> str:
    """Runs a retraining on the job server, in a process of its own. Returns the logs of its stages."""
    project = world.flights_project(folder, steps=20)
    world.deliver(project, [1, 2], step=30)
    project.change(beam={"runner": "PortableRunner", "args": list(arguments)})
    out, _ = (process := project.spawn("run")).communicate(timeout=LIMIT_S)
    assert process.returncode == 0, out
    (version,) = project.versions()
    assert version["span"] == 2 and version["live"]
    return "".join(path.read_text(errors="replace") for path in sorted((project.workspace / "logs").rglob("*.log")))


@pytest.mark.parametrize("workers", ["LOOPBACK", "EXTERNAL"])
def test_a_retraining_on_a_job_server_publishes(job_server, worker_pool, workers, tmp_path):
    # Beam gives up a job of its own job server after a minute otherwise.
    environment = [f"--environment_type={workers}", f"--job_server_timeout={LIMIT_S}"]
    if workers == "EXTERNAL":
        environment.append(f"--environment_config={worker_pool}")
    logs = publish(tmp_path / PROJECT, f"--job_endpoint={job_server}", *environment)
    states = list(jobs(job_server).values())
    assert states == ["DONE"] * len(states)
    # Two spans are read and their statistics computed, then Transform.
    assert len(states) >= 5
    assert "tfx_ephemeral" not in logs, "TFX was packed for workers that have it"
