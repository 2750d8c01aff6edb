"""Hosts that TF_CONFIG names: `evergreen worker` on each, one training after the other, and what a lost one does."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import trainer_world
from trainer_world import weights

from evergreen.components import progress
from evergreen.components.errors import ConfigError
from evergreen.components.trainer import child, cluster, executor, hosts, training
from evergreen.components.trainer.cluster import LostProcess, Plan, Task

pytestmark = pytest.mark.tensorflow
slow = pytest.mark.slow

MIRRORED = {**trainer_world.SAME_SUMS, "strategy": "multi_worker_mirrored"}
SERVERS = {**trainer_world.SAME_SUMS, "strategy": "parameter_server"}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@contextlib.contextmanager
def running(plan, *tasks, project=None):
    """Runs `evergreen worker` for some tasks, each as a host would; gives the processes and what they print."""
    started = []
    code = "import sys; from evergreen.pipeline.cli import main; sys.exit(main(sys.argv[1:]))"
    try:
        for task in tasks:
            environment = {**os.environ, "TF_CONFIG": plan.config(task)}
            command = [sys.executable, "-c", code, "worker"]
            started.append(
                subprocess.Popen(
                    command,
                    env=environment,
                    cwd=project or "/",
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
        yield started
    finally:
        for process in started:
            process.send_signal(signal.SIGKILL)
            process.wait()


def listen(process):
    """Gathers the lines that a process prints, as they come."""
    lines = []

    def read():
        with contextlib.suppress(ValueError):  # the pipe is closed with the process
            lines.extend(line.strip() for line in process.stdout)

    threading.Thread(target=read, daemon=True).start()
    return lines


def make_plan(monkeypatch, **counts):
    addresses = iter(cluster.free_addresses(sum(counts.values())))
    jobs = {job: tuple(next(addresses) for _ in range(count)) for job, count in counts.items()}
    plan = Plan(jobs, Task("chief" if "chief" in counts else "worker", 0))
    monkeypatch.setenv("TF_CONFIG", plan.config())
    return plan


def children(pid):
    """The processes that a process started, and theirs."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found += [int(entry.name), *children(int(entry.name))]
    return found


def train_and(asked, step, action):
    """Trains, and does something when some steps are done."""
    done = []

    def hear(fraction, text):
        if not done and text.startswith("step ") and int(text.split()[1].partition("/")[0]) >= step:
            done.append(time.monotonic())
            action()

    progress.set_listener(hear)
    try:
        return executor.train(asked), done[0]
    finally:
        progress.set_listener(None)


def assert_equals_single(world, asked, out, steps):
    training.run(single := trainer_world.request(world, out, {**trainer_world.SAME_SUMS, "steps": steps}))
    one, two = weights(single), weights(asked)
    assert list(one) == list(two)
    for name in one:
        np.testing.assert_allclose(one[name], two[name], atol=1e-6, err_msg=name)


@slow
def test_hosts_train_along_one_training_after_the_other(world, tmp_path, monkeypatch):
    plan = make_plan(monkeypatch, worker=2)
    with running(plan, Task("worker", 1)) as (host,):
        lines = listen(host)
        for number in (1, 2):
            asked = trainer_world.request(world, tmp_path / str(number) / "out", {**MIRRORED, "steps": 20})
            report = executor.train(asked)
            assert report["replicas"] == 2 and report["restarts"] == 0
        assert_equals_single(world, asked, tmp_path / "single", 20)
        deadline = time.monotonic() + 20
        while children(host.pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not children(host.pid)
    assert sum("takes part in a training" in line for line in lines) == 2, lines
    assert not children(os.getpid())


@slow
def test_workers_and_ps_of_other_hosts_train(world, tmp_path, monkeypatch):
    plan = make_plan(monkeypatch, chief=1, worker=2, ps=1)
    with running(plan, *plan.tasks("worker", "ps")) as (first, *_):
        lines = listen(first)
        asked = trainer_world.request(world, tmp_path / "out", {**SERVERS, "steps": 300})
        # A server that dies is started again by its host, and the report counts it.
        report, _ = train_and(asked, 5, lambda: os.kill(children(first.pid)[-1], signal.SIGKILL))
        assert report["worker_losses"] == 1 and report["restarts"] == 0 and report["steps"] == 300
        assert_equals_single(world, asked, tmp_path / "single", 300)
    assert any("takes part" in line for line in lines)


@slow
def test_a_host_whose_training_process_dies_costs_a_restart(world, tmp_path, monkeypatch):
    plan = make_plan(monkeypatch, worker=2)
    settings = {**MIRRORED, "steps": 600, "checkpoint_every": 50}
    with running(plan, Task("worker", 1)) as (host,):
        asked = trainer_world.request(world, tmp_path / "node" / "out", settings)
        report, _ = train_and(asked, 200, lambda: os.kill(children(host.pid)[-1], signal.SIGKILL))
    assert report["restarts"] == 1 and 0 < report["resumed_from"] < 600 and report["steps"] == 600


@slow
@pytest.mark.parametrize("who", ["its training", "the host"])
def test_a_host_that_falls_silent_is_named_in_time(world, tmp_path, monkeypatch, who):
    plan = make_plan(monkeypatch, worker=2)
    settings = {**MIRRORED, "steps": 1_000_000, "max_restarts": 0, "cluster": {"timeout": 6}}
    with running(plan, Task("worker", 1)) as (host,):
        asked = trainer_world.request(world, tmp_path / "node" / "out", settings)
        stopped = []

        def stop():
            stopped.append(time.monotonic())
            os.kill(host.pid if who == "the host" else children(host.pid)[-1], signal.SIGSTOP)

        with pytest.raises(LostProcess, match=r"worker-1 .*at 127.0.0.1:\d+ .*(answer|said nothing)"):
            train_and(asked, 20, stop)
        assert time.monotonic() - stopped[0] < 40
    assert not children(os.getpid())


@slow
def test_a_local_worker_that_falls_silent_is_replaced(world, tmp_path):
    settings = {**SERVERS, "steps": 300, "cluster": {"workers": 2, "ps": 1, "timeout": 6}}
    asked = trainer_world.request(world, tmp_path / "out", settings)

    def stop():
        (worker,) = (pid for pid in children(os.getpid()) if os.readlink(f"/proc/{pid}/cwd").endswith("worker-1"))
        os.kill(worker, signal.SIGSTOP)

    report, stopped = train_and(asked, 20, stop)
    assert report["worker_losses"] == 1 and report["restarts"] == 0 and report["steps"] == 300
    assert time.monotonic() - stopped < 90
    assert_equals_single(world, asked, tmp_path / "single", 300)


@slow
def test_a_local_ps_that_falls_silent_costs_a_restart(world, tmp_path):
    settings = {**SERVERS, "steps": 400, "checkpoint_every": 20, "cluster": {"workers": 2, "ps": 1, "timeout": 6}}
    asked = trainer_world.request(world, tmp_path / "node" / "out", settings)

    def stop():
        (ps,) = (pid for pid in children(os.getpid()) if os.readlink(f"/proc/{pid}/cwd").endswith("ps-0"))
        os.kill(ps, signal.SIGSTOP)

    report, _ = train_and(asked, 100, stop)
    assert report["restarts"] == 1 and report["resumed_from"] > 0 and report["steps"] == 400
    assert not children(os.getpid())


@slow
def test_a_host_refuses_what_it_cannot_do(world, tmp_path, monkeypatch):
    plan = make_plan(monkeypatch, worker=2)
    other = trainer_world.write_project(
        tmp_path / "project", tiny_features=trainer_world.FEATURES, tiny_model=trainer_world.MODEL + "\n# edited\n"
    )
    (other / "evergreen.yaml").write_text(
        "name: tiny\ndata: {path: /, pattern: '{SPAN}/*.csv'}\nschema: /dev/null\n"
        "features: tiny_features:preprocessing_fn\ntrainer: {model: tiny_model:build_model}\n"
        "evaluate: {label: late, metrics: [auc]}\npublish: {base_path: /tmp/none}\n"
    )
    asked = trainer_world.request(world, tmp_path / "node" / "out", MIRRORED)
    with running(plan, Task("worker", 1), project=other):
        with pytest.raises(ConfigError, match=r"the code on worker-1 is not that of(.|\n)*tiny_model.py differ"):
            executor.train(asked)
        monkeypatch.setattr(hosts, "_SAME", ("numpy",))
        with pytest.raises(ConfigError, match="worker-1 has another evergreen-tfx"):
            train_here(asked, plan)
        monkeypatch.undo()
        moved = Plan({"worker": ("127.0.0.1:1", plan.jobs["worker"][1])}, Task("worker", 0))
        with pytest.raises(ConfigError, match="TF_CONFIG of worker-1 differs"):
            train_here(asked, moved)
    assert not children(os.getpid())


def train_here(asked, plan):
    """Gives the order from this process, whose packages and plan a test can change."""
    order = {"order": hosts.TRAIN, "request": json.loads(asked.to_json()), "code": {}}
    hosts.Host(plan, Task("worker", 1), order, 5).close()


def test_a_host_that_nobody_serves_is_named(monkeypatch):
    monkeypatch.setattr(cluster, "START_S", 1.0)
    plan = make_plan(monkeypatch, chief=1, worker=1, ps=1)
    with pytest.raises(ConfigError, match=r"ps-0 at 127.0.0.1:.* does not take orders"), hosts.HostCluster(plan, 5):
        pass


def test_a_port_that_is_taken_is_named(monkeypatch):
    with socket.create_server(("", 0)) as held:
        port = held.getsockname()[1]
        plan = Plan({"worker": ("127.0.0.1:1", f"127.0.0.1:{port}")}, Task("worker", 1))
        with running(plan, Task("worker", 1)) as (process,):
            printed, _ = process.communicate(timeout=60)
            assert process.returncode == 2
            assert f"port {port} cannot be listened on" in printed and "evergreen worker" in printed


def test_a_port_of_the_host_that_leads_is_checked_too(world, tmp_path, monkeypatch):
    with socket.create_server(("", 0)) as held:
        port = held.getsockname()[1]
        plan = Plan({"worker": (f"127.0.0.1:{port}",)}, Task("worker", 0))
        monkeypatch.setenv("TF_CONFIG", plan.config())
        with pytest.raises(ConfigError, match=f"port {port} cannot be listened on"):
            executor.train(trainer_world.request(world, tmp_path / "node" / "out", MIRRORED))
    assert not children(os.getpid())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("", "there is no TF_CONFIG"),
        (Plan({"worker": ("a:1", "b:1")}, Task("worker", 0)).config(), "leads the trainings"),
        (Plan({"chief": ("a:1",), "worker": ("b:1",), "ps": ("c:1",)}, Task("chief", 0)).config(), "leads the"),
    ],
    ids=["none", "first worker", "chief"],
)
def test_who_leads_does_not_wait_for_orders(config, message, monkeypatch, capsys):
    from evergreen.pipeline.cli import main

    monkeypatch.setenv("TF_CONFIG", config)
    assert main(["worker"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("number", [1, 0], ids=["not the first", "with a ps"])
def test_only_the_host_that_leads_trains(world, tmp_path, monkeypatch, number):
    jobs = {"worker": ("a:1", "b:1"), **({} if number else {"ps": ("c:1",)})}
    monkeypatch.setenv("TF_CONFIG", Plan(jobs, Task("worker", number)).config())
    with pytest.raises(ConfigError, match="does not make this process the one that leads"):
        child.train(trainer_world.request(world, tmp_path, MIRRORED))
