"""`evergreen scaling`: what it refuses before any training, and what it makes of what was counted."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from evergreen.components.trainer import network, scaling
from evergreen.components.trainer.scaling import Volume
from evergreen.pipeline import cli, scaling_plot, scaling_runs
from evergreen.pipeline import scaling as studies
from evergreen.pipeline.config import load
from evergreen.pipeline.scaling_runs import Case, Mark, Measured

YAML = """\
name: flights
data: {path: data, pattern: "{SPAN}/*.parquet"}
schema: schema.pbtxt
features: functions:preprocessing_fn
trainer: {model: "functions:build_model", global_batch_size: 512}
evaluate: {label: late, metrics: [auc]}
publish: {base_path: models/flights}
"""
FUNCTIONS = """\
def preprocessing_fn(inputs): ...
def build_model(transform_output, hyperparameters): ...
def run_fn(fn_args): ...
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "evergreen.yaml").write_text(YAML)
    (tmp_path / "functions.py").write_text(FUNCTIONS)
    (tmp_path / "schema.pbtxt").write_text('feature { name: "late" type: INT }\n')
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    return tmp_path


def refused(capsys, *arguments: str) -> str:
    status = cli.main(["scaling", *arguments])
    captured = capsys.readouterr()
    assert status == 2
    assert captured.out == ""
    return captured.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--strategy", "mirrored,async"], "mirrored, multi_worker_mirrored, parameter_server"),
        (["--strategy", "single"], "received 'single'"),
        (["--replicas", "1,two"], "received '1,two'"),
        (["--replicas", "0"], "from 1 on"),
        (["--replicas", "1,,2"], "with commas between them"),
        (["--bandwidth", "10"], "10Gbit"),
        (["--latency", "soon"], "50us"),
        (["--steps", "3"], "--steps"),
        (["--plot", "picture.gif"], ".png or .svg"),
        (["--plot", "nowhere/picture.png"], "there is no folder nowhere"),
        (["--set", "trainer={run_fn: 'functions:run_fn'}"], "cannot measure a run_fn"),
    ],
)
def test_what_it_refuses(project, capsys, arguments, words):
    assert words in refused(capsys, *arguments)


def test_every_combination_that_the_settings_refuse_is_named_before_any_training(project, capsys):
    err = refused(capsys, "--replicas", "2,3,5", "--strategy", "mirrored,parameter_server")
    assert "Error: these trainings cannot be measured" in err
    for case in ("mirrored 3", "mirrored 5", "parameter_server 3", "parameter_server 5"):
        assert f"{case}: trainer.global_batch_size is 512, expected a multiple of the {case[-1]} devices" in err
    assert "mirrored 2" not in err
    assert not (project / ".evergreen").exists()


def test_a_precision_that_parameter_servers_do_not_have(project, capsys):
    err = refused(capsys, "--replicas", "2", "--set", "trainer.precision=mixed_bfloat16")
    assert "parameter_server 2: trainer.precision is mixed_bfloat16" in err
    assert "mirrored 2" not in err


def test_without_a_training_the_next_step_is_a_run(project, capsys):
    err = refused(capsys)
    assert "Error: there is no training to measure yet" in err
    assert "Next: Run `evergreen run` first." in err


def test_a_cluster_of_somebody_else_is_not_used(project, capsys, monkeypatch):
    cluster = {"cluster": {"chief": ["a:1"], "worker": ["b:1"], "ps": ["c:1"]}, "task": {"type": "chief", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    assert "Unset TF_CONFIG" in refused(capsys)


def test_a_case_varies_the_devices_and_nothing_that_lasts(project):
    settings = ("trainer.strategy=mirrored", "trainer.devices=4", "trainer.steps=900", "trainer.backup_workers=1")
    stopping = "trainer.early_stopping={every: 100}"
    config = load(None, (*settings, stopping, "trainer.cluster={workers: 8, ps: 3}", "trainer.warm_start={}"))
    single, mirrored, servers = scaling_runs.plan(config, ["mirrored", "parameter_server"], [2], 40)
    assert (single.strategy, single.settings.devices) == ("single", None)
    assert (mirrored.settings.strategy, mirrored.settings.devices) == ("mirrored", 2)
    assert (servers.settings.cluster.workers, servers.settings.cluster.ps) == (2, 3)
    for case in (single, mirrored, servers):
        trained = case.settings
        assert (trained.steps, trained.early_stopping, trained.warm_start) == (40, None, None)
        assert (trained.checkpoint_every, trained.backup_workers) == (0, 0)


REPORT = {
    "strategy": "parameter_server",
    "step_ms": {"p50": 20.0},
    "bytes": {"weights": 500, "reads": 400, "gradients": 400, "example": 1, "tables": []},
    "curve": [{"step": step} for step in (2, 4, 6)],
}


def test_what_a_point_of_the_curve_reads_is_no_part_of_a_step():
    marks = [Mark(1, 0.0, 1000), Mark(3, 0.5, 4000), Mark(6, 1.0, 12_000)]
    # Behind the steps 2 and 4 all weights were read; behind 6 they are yet to be.
    assert scaling_runs.bytes_per_step(marks, REPORT) == (11_000 - 2 * 500) / 5
    assert scaling_runs.bytes_per_step(marks, {**REPORT, "strategy": "multi_worker_mirrored"}) == 11_000 / 5


def test_where_nothing_was_counted_nothing_is_said():
    assert scaling_runs.bytes_per_step([Mark(1, 0.0, None), Mark(6, 1.0, None)], REPORT) is None
    assert scaling_runs.bytes_per_step([Mark(6, 1.0, 5)], REPORT) is None


def test_asynchronous_updates_are_timed_by_the_clock():
    marks = [Mark(1, 3.0, None), Mark(6, 3.5, None)]
    assert scaling_runs.seconds_per_step(marks, REPORT, "async") == pytest.approx(0.1)
    assert scaling_runs.seconds_per_step(marks, REPORT, "sync") == pytest.approx(0.02)
    assert scaling_runs.seconds_per_step(marks[:1], REPORT, "async") == pytest.approx(0.02)


SENDER = """
import socket, sys
from evergreen.components.trainer import network
network.raise_loopback()
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
    end.bind(("127.0.0.1", 0))
    end.sendto(bytes(5000), end.getsockname())
    end.recv(5000)
    print("sent", flush=True)
    sys.stdin.read()
"""


def test_the_network_of_a_process_is_counted_from_outside():
    prefix = network.private_prefix()
    if not prefix:
        pytest.skip("this system allows no network namespace")
    command = [*prefix, sys.executable, "-c", SENDER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as sender:
        assert sender.stdout.readline() == b"sent\n"
        counted = scaling_runs.own_network_bytes(sender.pid)
        sender.stdin.close()
    assert counted is not None and 5000 <= counted < 5200


def test_the_network_of_all_is_not_counted():
    with subprocess.Popen(["sleep", "60"]) as process:
        assert scaling_runs.own_network_bytes(process.pid) is None
        process.kill()


@pytest.fixture
def study(project):
    """Two strategies, measured in the test's own seconds: 100 ms on one device."""
    cases = scaling_runs.plan(load(None, ()), ["mirrored", "parameter_server"], [1, 2], 40)
    seconds = {"single": 0.1, "mirrored 1": 0.11, "mirrored 2": 0.08, "parameter_server 1": 0.09}

    def train(case: Case) -> Measured:
        return Measured(seconds.get(str(case), 0.2), None, {"bytes": {**REPORT["bytes"], "gradients": 10**6}})

    return studies.study(cases, scaling.Network(1.25e9, 5e-5), train)


def test_a_study_compares_with_one_device_and_adds_what_the_strategy_costs(study):
    by_case = {(row.strategy, row.replicas): row for row in study.rows}
    assert by_case["mirrored", 2].speedup == pytest.approx(0.1 / 0.08)
    assert study.overheads == {"mirrored": pytest.approx(0.01), "parameter_server": 0}
    # 50 ms of computation, 10 ms of overhead, a megabyte each way, two messages.
    assert by_case["mirrored", 2].predicted_step_s == pytest.approx(0.05 + 0.01 + 1e6 / 1.25e9 + 1e-4)
    assert study.moved == Volume(10**6, 400, 0, 0, 512)


def test_a_study_says_what_its_numbers_are_worth(study, monkeypatch):
    notes = "\n".join(study.notes())
    assert "hosts of their own" in notes and "10 Gbit/s" in notes and "mirrored 10 ms" in notes
    if not study.gpus:
        assert f"share its {study.cores} cores" in notes


@pytest.mark.parametrize(("name", "begins"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml")])
def test_the_picture_is_what_its_ending_says(study, tmp_path, name, begins):
    scaling_plot.draw(study, "flights", tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(begins)
