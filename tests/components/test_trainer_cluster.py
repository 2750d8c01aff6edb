"""What a training cluster is: TF_CONFIG, local plans, the network of its own."""

import json
import os
import socket
import subprocess
import sys
import textwrap

import pytest

from evergreen.components.errors import ConfigError
from evergreen.components.trainer import cluster, network
from evergreen.components.trainer.cluster import Task
from evergreen.components.trainer.settings import Cluster, TrainerSettings

JOBS = {"chief": ["a:1"], "worker": ["b:1", "c:1"], "ps": ["d:1"]}


def config(jobs, **task):
    return {"TF_CONFIG": json.dumps({"cluster": jobs, "task": task})}


def test_tf_config_is_read_and_written():
    plan = cluster.read(config(JOBS, type="worker", index=1))
    assert plan.task == Task("worker", 1) and plan.address(plan.task) == "c:1"
    assert plan.tasks("ps", "worker") == [Task("ps", 0), Task("worker", 0), Task("worker", 1)]
    assert len(plan.tasks()) == 4
    again = cluster.read({"TF_CONFIG": plan.config(Task("ps", 0))})
    assert again.task == Task("ps", 0) and again.jobs == plan.jobs


@pytest.mark.parametrize("text", [None, "", " ", "{}", '{"task": {"type": "worker"}}'])
def test_no_cluster_is_none(text):
    assert cluster.read({} if text is None else {"TF_CONFIG": text}) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"cluster": {"worker": 3}}', "cannot be read"),
        (config(JOBS, type="worker", index=2)["TF_CONFIG"], "names the task worker-2"),
        (config(JOBS, type="evaluator", index=0)["TF_CONFIG"], "names the task evaluator-0"),
    ],
)
def test_a_wrong_tf_config_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        cluster.read({"TF_CONFIG": text})


def test_a_local_plan_has_a_port_for_each_task():
    plan = cluster.plan_local(3, 2)
    addresses = [plan.address(task) for task in plan.tasks()]
    assert plan.task == Task("chief", 0) and len(set(addresses)) == 6
    assert all(address.startswith("127.0.0.1:") for address in addresses)


@pytest.mark.parametrize(
    "environment",
    [config(JOBS, type="worker", index=0), config({"chief": ["a:1"], "worker": ["b:1"]}, type="chief", index=0)],
    ids=["a worker", "no ps"],
)
def test_only_the_coordinator_of_a_whole_cluster_trains(environment, monkeypatch, tmp_path):
    monkeypatch.setenv("TF_CONFIG", environment["TF_CONFIG"])
    settings = TrainerSettings(model="m:f", strategy="parameter_server", cluster=Cluster())
    with pytest.raises(ConfigError, match="coordinator"), cluster.join(settings, str(tmp_path)):
        pass


@pytest.mark.parametrize("listening", [False, True], ids=["nobody listens", "what listens is no TensorFlow"])
def test_a_task_that_does_not_answer_is_named(listening, monkeypatch):
    monkeypatch.setattr(cluster, "ANSWER_S", 0.2)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        if listening:
            held.listen()
        address = f"127.0.0.1:{held.getsockname()[1]}"
        joined = cluster.Cluster(cluster.Plan({"chief": ["127.0.0.1:1"], "worker": [address], "ps": [address]}))
        with pytest.raises(ConfigError, match=f"2 of(.|\n)*worker-0 at {address}"):
            joined.wait(0.3)


def test_a_task_without_tf_config_says_what_it_needs():
    environment = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
    command = [sys.executable, "-m", "evergreen.components.trainer.task"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 1 and done.stderr.startswith("TF_CONFIG does not say which task this process is\n")


@pytest.mark.skipif(not network.private_prefix(), reason="the system allows no network namespace")
def test_a_private_network_has_a_loopback_that_nobody_else_reaches():
    program = """
        import socket, sys
        from evergreen.components.trainer import network
        network.raise_loopback()
        server = socket.create_server(("0.0.0.0", 0))
        port = server.getsockname()[1]
        socket.create_connection(("127.0.0.1", port)).close()
        print(port, flush=True)
        sys.stdin.read()
    """
    command = [*network.private_prefix(), sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        port = int(child.stdout.readline())
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=2)
        child.stdin.close()
