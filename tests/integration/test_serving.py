"""A trained model meets a real server: it is served and asked, and one that does not answer is never published."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import integration_world as world
import pyarrow.parquet as pq
import pytest

from evergreen.components.model_server.client import Client
from evergreen.components.model_server.process import free_port

pytestmark = pytest.mark.tensorflow

SECONDS = 300  # generous: the machine may be loaded
BREAK = '''
from tfx import types
from tfx.dsl.component.experimental.annotations import InputArtifact
from tfx.dsl.component.experimental.decorators import component
from tfx.types import standard_artifacts


@component
def Breaker(model: InputArtifact[standard_artifacts.Model]):
    """Cuts the weights after the model has been examined, as a full disk or a bad copy would."""
    import os

    path = os.path.join(model.uri, "Format-Serving", "variables", "variables.data-00000-of-00001")
    os.truncate(path, os.path.getsize(path) // 2)


def add(nodes, config):
    breaker = Breaker(model=nodes["Trainer"].outputs["model"]).with_id("Breaker")
    breaker.add_upstream_node(nodes["Quantizer"])
    return breaker
'''


@contextlib.contextmanager
def served(project: world.Project, folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Runs `evergreen serve` and gives the addresses of gRPC and REST, and its log."""
    ports = free_port(), free_port()
    log = folder / "serve.log"
    command = [str(Path(sys.executable).with_name("evergreen")), "serve", "-c", str(project.config_file)]
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [*command, f"--port={ports[0]}", f"--rest_api_port={ports[1]}"],
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        version = project.versions()[0]["version"]
        with Client(f"127.0.0.1:{ports[0]}") as client:
            client.wait_available("flights", version, SECONDS)
        yield f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}", log
        process.terminate()
        assert process.wait(60) == 0, "the command is the server, and a signal ends it"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_gate_4_says_which_server_answered_and_how_fast(lived):
    text = (lived.folder.parent / "second.txt").read_text()
    (line,) = re.findall(r"done    ServingValidator (.*)", text)
    assert re.match(r"built-in, 50 rows, p50 [\d.]+ ms by gRPC, .* MB; TFLite [a-z0-9_]+ ", line)


def test_what_serve_serves_predict_asks(lived, tmp_path):
    rows = pq.read_table(lived.spans / "4" / "flights.parquet").slice(0, 5).to_pylist()
    plain = [{name: value for name, value in row.items() if isinstance(value, (int, float, str))} for row in rows]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in plain))
    with served(lived, tmp_path) as (by_grpc, by_rest, log):
        first = lived.evergreen("predict", str(file), "--server", by_grpc, "--json")
        assert first.status == 0, first.text
        answers = [json.loads(line)["predictions"] for line in first.text.splitlines()]
        assert len(set(answers)) == 5 and all(0 < answer < 1 for answer in answers)
        for arguments in (("--server", by_rest, "--rest"), ("--server", by_grpc, "--signature", "predict_raw")):
            again = lived.evergreen("predict", str(file), *arguments, "--json")
            assert again.status == 0, again.text
            others = [json.loads(line)["predictions"] for line in again.text.splitlines()]
            assert others == pytest.approx(answers, abs=1e-5)
        version = lived.versions()[0]["version"]
        table = lived.evergreen("predict", str(file), "--server", by_grpc).text
        assert f"answered by flights, version {version}" in table
        refused = lived.evergreen("predict", str(file), "--server", by_grpc, "--version", "7")
        assert refused.status == 1 and "Servable not found for request: Specific(flights, 7)" in refused.text
        unknown = lived.evergreen("predict", str(file), "--server", by_grpc, "--signature", "other")
        assert unknown.status == 2 and "`predict_raw`" in unknown.text
        # The command that is shown is one that works.
        (pasted,) = re.findall(r"^try     (curl .*)$", log.read_text(), re.MULTILINE)
        done = subprocess.run(pasted, shell=True, capture_output=True, text=True)
        assert len(json.loads(done.stdout)["predictions"]) == 1, done
    began = time.monotonic()
    nobody = lived.evergreen("predict", str(file), "--server", by_grpc)
    assert nobody.status == 1 and "evergreen serve" in nobody.text
    assert time.monotonic() - began < 30


def test_a_model_that_no_server_can_answer_with_is_not_published(lived, tmp_path):
    shutil.copytree(lived.folder, tmp_path / "flights")
    broken = world.Project(tmp_path / "flights")
    (broken.folder / "breaks.py").write_text(BREAK)
    broken.change(components=[{"function": "breaks:add", "after": "Quantizer"}], trainer={"seed": 1, "steps": 20})
    broken.change(quantize={"variants": ["float16"]})
    before = broken.published_files()
    answer = broken.evergreen("run", "--span", "4")
    assert answer.status == 4, answer.text
    assert "gate 4 is closed" in answer.text
    assert "the server cannot serve version 1 of `candidate`" in answer.text
    assert re.search(r"skipped +Pusher +gate 4 is closed", answer.text)
    (log,) = re.findall(r"the server's own log: (\S+)", answer.text)
    assert Path(log).read_text()
    assert broken.published_files() == before
    newest = broken.runs()[0]
    assert newest["result"] == "model rejected" and "gate 4" in newest["reason"]
