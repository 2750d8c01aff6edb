"""What a training cluster is, and the processes of one on this machine.

A cluster has a coordinator (`chief`), workers and parameter servers. TF_CONFIG names their addresses where the cluster
was started by somebody else; else a plan of local tasks on free ports does, and `LocalCluster` runs them. Nothing here
imports TensorFlow.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evergreen.components.errors import ConfigError
from evergreen.components.trainer.settings import TrainerSettings

CHIEF, WORKER, PS = "chief", "worker", "ps"
VARIABLE = "TF_CONFIG"
PLAN_FILE = "cluster.json"
LOG_FILE = "log"
START_S = 180.0
ANSWER_S = 5.0
_HOST = "127.0.0.1"
_WATCH_S = 0.1
_STATUS = "/tensorflow.WorkerService/GetStatus"

_log = logging.getLogger(__name__)


class LostProcess(RuntimeError):
    """A process of the cluster is gone that training cannot go on without; it may start again from a checkpoint."""


@dataclass(frozen=True)
class Task:
    """A process of a cluster.

    Attributes:
      job: `chief`, `worker` or `ps`.
      index: its number within the job.
    """

    job: str
    index: int

    def __str__(self) -> str:
        return f"{self.job}-{self.index}"


@dataclass(frozen=True)
class Plan:
    """The addresses of a cluster and which of its tasks a process is.

    Attributes:
      jobs: job to the addresses of its tasks, `host:port`.
      task: this process.
    """

    jobs: Mapping[str, Sequence[str]]
    task: Task = field(default_factory=lambda: Task(CHIEF, 0))

    def tasks(self, *jobs: str) -> list[Task]:
        """Lists the tasks of some jobs; of all where none is named."""
        return [Task(job, index) for job in jobs or self.jobs for index, _ in enumerate(self.jobs.get(job, ()))]

    def address(self, task: Task) -> str:
        """Returns the address of a task."""
        return self.jobs[task.job][task.index]

    def config(self, task: Task | None = None) -> str:
        """Returns TF_CONFIG for a task; for this process where none is named."""
        task = task or self.task
        named = {job: list(addresses) for job, addresses in self.jobs.items()}
        return json.dumps({"cluster": named, "task": {"type": task.job, "index": task.index}})


def read(environment: Mapping[str, str]) -> Plan | None:
    """Reads TF_CONFIG.

    Args:
      environment: variables by name.

    Returns:
      The cluster; None where the variable is not set or names none.

    Raises:
      ConfigError: it is not what TensorFlow documents.
    """
    text = environment.get(VARIABLE, "")
    if not text.strip():
        return None
    try:
        values = json.loads(text)
        jobs = {str(job): tuple(map(str, addresses)) for job, addresses in values.get("cluster", {}).items()}
        task = values.get("task", {})
        named = Task(str(task.get("type", CHIEF)), int(task.get("index", 0)))
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{VARIABLE} cannot be read",
            f"{type(error).__name__}: {error}",
            'It is JSON: {"cluster": {"chief": ["host:port"], "worker": [...], "ps": [...]}, '
            '"task": {"type": "worker", "index": 0}}.',
        ) from error
    if not jobs:
        return None
    if named.index not in range(len(jobs.get(named.job, ()))):
        known = ", ".join(f"{len(addresses)} {job}" for job, addresses in jobs.items())
        raise ConfigError(f"{VARIABLE} names the task {named}, which is not in its cluster", f"received {known}", "")
    return Plan(jobs, named)


def leading(plan: Plan) -> list[Task]:
    """Returns the task that runs the pipeline and leads the training; none where TF_CONFIG names only ps.

    Args:
      plan: a cluster. As TensorFlow has it, it is the chief, or the first worker of a cluster without chief and ps.
    """
    return (plan.tasks(CHIEF) or ([] if plan.tasks(PS) else plan.tasks(WORKER)))[:1]


def plan_local(workers: int, ps: int) -> Plan:
    """Plans the tasks of a cluster on this machine.

    Args:
      workers: how many workers.
      ps: how many parameter servers.

    Returns:
      Their addresses, on ports that are free now; this process is the coordinator.
    """
    found = free_addresses(1 + workers + ps)
    return Plan({CHIEF: found[:1], WORKER: found[1 : 1 + workers], PS: found[1 + workers :]})


def free_addresses(count: int) -> list[str]:
    """Finds addresses of this machine that nobody listens on now.

    Args:
      count: how many.

    Returns:
      Different ones, `host:port`.
    """
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):  # all are held at once, so that no two are the same
            held = stack.enter_context(socket.socket())
            held.bind((_HOST, 0))
            found.append(f"{_HOST}:{held.getsockname()[1]}")
    return found


def listen(plan: Plan) -> socket.socket:
    """Listens where the cluster expects this process; TensorFlow would say in no clear words that it cannot.

    Args:
      plan: the cluster, with this process as its task.

    Returns:
      A listening socket. Where it is TensorFlow that shall listen, close it.

    Raises:
      ConfigError: the port is in use.
    """
    port = int(plan.address(plan.task).rpartition(":")[2])
    try:
        return socket.create_server(("", port))
    except OSError as error:
        raise ConfigError(
            f"port {port} cannot be listened on",
            f"{error}; the cluster gives it to {plan.task}",
            "End what uses it (a second `evergreen worker`?), or give the task another port in TF_CONFIG on all hosts.",
        ) from error


def with_restarts(train: Callable[[], dict[str, Any]], restarts: int) -> dict[str, Any]:
    """Trains, again from the last checkpoint where the cluster lost a process that it needs.

    Args:
      train: trains, and returns the report.
      restarts: how often it may begin again.

    Returns:
      The report, with the number of restarts.

    Raises:
      LostProcess: a process died more often than that.
    """
    for done in itertools.count():
        try:
            return {**train(), "restarts": done}
        except LostProcess as error:
            if done >= restarts:
                raise LostProcess(f"{error}, and trainer.max_restarts is {restarts}") from error
            _log.warning("%s; the training begins again from its last checkpoint", error)
    raise AssertionError


class Cluster:
    """The processes of a training with parameter servers.

    Args:
      plan: its addresses.

    Attributes:
      plan: its addresses.
      worker_losses: how many workers died and were started again, as far as this process knows.
    """

    def __init__(self, plan: Plan):
        self.plan = plan
        self.worker_losses = 0

    def check(self) -> None:
        """Raises LostProcess where a process is gone that training cannot go on without."""

    def replace(self, task: Task) -> bool:
        """Puts a new process in the place of one that does not answer; tells whether training can go on then."""
        return False

    def settle(self) -> None:
        """Waits as long as the death of a process may stay unnoticed, then checks."""
        self.check()

    def wait(self, seconds: float = START_S) -> None:
        """Waits until every task but this process accepts connections.

        Args:
          seconds: how long at most.

        Raises:
          LostProcess: a task ended.
          ConfigError: a task does not answer.
        """
        waiting = self.plan.tasks(PS, WORKER)
        deadline = time.monotonic() + seconds
        while waiting:
            self.check()
            waiting = [task for task in waiting if not answers(self.plan.address(task))]
            if waiting and time.monotonic() > deadline:
                named = ", ".join(f"{task} at {self.plan.address(task)}" for task in waiting)
                raise ConfigError(
                    f"{len(waiting)} of the cluster's tasks do not answer",
                    f"waited {seconds:.0f} s for {named}",
                    "Run `evergreen worker` on them with the same TF_CONFIG, and let their ports through.",
                )
            if waiting:
                time.sleep(_WATCH_S)


@contextlib.contextmanager
def join(settings: TrainerSettings, folder: str) -> Iterator[Cluster]:
    """Joins the cluster of TF_CONFIG as its coordinator, or starts a local one.

    Args:
      settings: the section `trainer`; `cluster` says how many local processes there are.
      folder: where a local cluster keeps its logs.

    Yields:
      The cluster; `wait` tells when it is up.

    Raises:
      ConfigError: TF_CONFIG has no workers or ps, or this process is not its coordinator.
    """
    from evergreen.components.trainer.hosts import HostCluster
    from evergreen.components.trainer.local_cluster import LocalCluster

    plan = read(os.environ)
    if plan is None:
        bypass_proxies()
        with LocalCluster(plan_local(settings.cluster.workers, settings.cluster.ps), folder) as cluster:
            yield cluster
        return
    if plan.task.job != CHIEF or not plan.tasks(WORKER) or not plan.tasks(PS):
        raise ConfigError(
            f"{VARIABLE} does not make this process the coordinator of a cluster",
            f"received the task {plan.task} of {', '.join(f'{len(all_)} {job}' for job, all_ in plan.jobs.items())}; "
            "expected the task chief-0, one worker and one ps at least",
            "Run the training on the chief; on the other hosts run `evergreen worker`.",
        )
    with HostCluster(plan, settings.cluster.timeout) as cluster:
        yield cluster


def bypass_proxies() -> None:
    """Keeps connections within this machine from a proxy that the environment names, here and in child processes."""
    for name in ("no_proxy", "NO_PROXY"):
        present = os.environ.get(name, "")
        if _HOST not in present.split(","):
            os.environ[name] = f"{present},{_HOST}" if present else _HOST


def silent(plan: Plan | None) -> str:
    """Says which tasks of a cluster do not answer; nothing where all do.

    Args:
      plan: the cluster; this process is not asked.
    """
    tasks = [task for task in plan.tasks() if task != plan.task] if plan is not None else []
    named = [f"{task} at {plan.address(task)}" for task in tasks if plan and not answers(plan.address(task))]
    return f"{', '.join(named)} of the training cluster does not answer" if named else ""


def answers(address: str) -> bool:
    """Tells whether a TensorFlow server answers at an address.

    That a port takes connections says little: the kernel takes them for a process that is stopped, too. So the server
    is asked for its status.

    Args:
      address: `host:port`.
    """
    import grpc

    channel = grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)])
    with channel:
        try:
            channel.unary_unary(_STATUS)(b"", timeout=ANSWER_S)
        except grpc.RpcError as error:
            return error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    return True
