"""The other hosts of a cluster that TF_CONFIG names, as the host sees them that leads the training.

`evergreen worker` waits on each of them, on the task's own port, for an order: to run a TensorFlow server for the time
of one training (`parameter_server`), or to train along (`multi_worker_mirrored`). The connection stays while the
training runs and tells both sides whether the other one lives; then the port is TensorFlow's. Every training thus gets
processes of its own, and what a host says about them is known here.

An order and every message after it are a line of JSON each. Nothing on the wire is encrypted or authenticated, no more
than TensorFlow's own traffic is: the network has to keep others away.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from typing import Any

from evergreen.components import progress
from evergreen.components.errors import ConfigError, Failure
from evergreen.components.trainer import cluster
from evergreen.components.trainer.cluster import PS, WORKER, Cluster, LostProcess, Plan, Task

PROTOCOL = 1
SERVE, TRAIN = "serve", "train"
HEARTBEAT_S = 1.0
_RETRY_S = 0.5
# Packages of which both sides need the same version: they talk to each other, or compute the same steps.
_SAME = ("evergreen-tfx", "tensorflow", "tf-keras", "numpy")

_log = logging.getLogger(__name__)


def versions() -> dict[str, str]:
    """Returns the versions that must be the same on all hosts of a training."""
    return {name: metadata.version(name) for name in _SAME}


def keep_alive(connection: socket.socket, seconds: int) -> None:
    """Lets a connection break where the other host is gone without a word.

    Args:
      connection: a TCP connection.
      seconds: after which it breaks at the latest.
    """
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds * 1000)


class Host:
    """A task of the cluster on another host, for the time of one training.

    Args:
      plan: the cluster.
      task: which task of it.
      order: what it is to do: `order` is SERVE or TRAIN, with what that needs.
      timeout: seconds after which a silent host is taken for lost.

    Attributes:
      task: which task it is.
      losses: how many processes it had to start again.

    Raises:
      EvergreenError: nobody waits for orders there, or the host refuses this one.
    """

    def __init__(self, plan: Plan, task: Task, order: Mapping[str, Any], timeout: int):
        self.task = task
        self.losses = 0
        self._address = plan.address(task)
        self._timeout = timeout
        self._failure: Exception | None = None
        self._done = False
        message = {"protocol": PROTOCOL, "versions": versions(), "plan": json.loads(plan.config(task)), **order}
        self._connection, self._lines = self._connect(json.dumps(message).encode() + b"\n")
        threading.Thread(target=self._listen, name=str(task), daemon=True).start()

    def check(self) -> None:
        """Raises what the host said, or that it is gone."""
        if self._failure is not None:
            raise self._failure

    def replace(self) -> bool:
        """Asks for a new process in the place of one that does not answer."""
        try:
            self._connection.sendall(b'{"replace": true}\n')
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Ends the task's part in the training."""
        self._done = True
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def _connect(self, message: bytes) -> tuple[socket.socket, Iterator[bytes]]:
        """Hands the order over, as soon as somebody waits for one."""
        deadline = time.monotonic() + cluster.START_S
        host, _, port = self._address.rpartition(":")
        problem = ""
        told = False
        while True:
            try:
                connection = socket.create_connection((host.strip("[]"), int(port)), timeout=cluster.ANSWER_S)
                keep_alive(connection, self._timeout)
                connection.sendall(message)
                lines = iter(connection.makefile("rb"))
                answer = json.loads(next(lines))
                if "refused" in answer:
                    raise Failure(**answer["refused"]).exception()
                if answer.get("task") == str(self.task):
                    connection.settimeout(self._timeout)
                    return connection, lines
                problem = f"it answers as {answer.get('task')}"
            except (OSError, ValueError, StopIteration, AttributeError, TypeError, LookupError) as error:
                problem = str(error) or type(error).__name__
            if time.monotonic() > deadline:
                raise ConfigError(
                    f"{self.task} at {self._address} does not take orders",
                    f"waited {cluster.START_S:.0f} s: {problem}",
                    "Run `evergreen worker` there with the same TF_CONFIG, and let its port through.",
                )
            if not told:
                progress.report(None, f"waiting for {self.task} at {self._address}")
                told = True
            time.sleep(_RETRY_S)

    def _listen(self) -> None:
        try:
            for line in self._lines:
                message = json.loads(line)
                self.losses = int(message.get("losses", self.losses))
                if "refused" in message:
                    self._failure = Failure(**message["refused"]).exception()
                if "lost" in message:
                    self._failure = LostProcess(f"{self.task} at {self._address}: {message['lost']}")
                if message.get("done"):
                    self._done = True
            reason = "closed the connection"
        except TimeoutError:
            reason = f"has said nothing for {self._timeout} s"
        except (OSError, ValueError, TypeError, LookupError) as error:
            reason = f"is gone: {error}"
        if not self._done and self._failure is None:
            self._failure = LostProcess(f"{self.task} at {self._address} {reason}")


@contextlib.contextmanager
def hosts(plan: Plan, tasks: list[Task], order: Callable[[Task], Mapping[str, Any]], timeout: int) -> Iterator[list]:
    """Gives orders to several hosts.

    Args:
      plan: the cluster.
      tasks: which tasks of it.
      order: a task's order.
      timeout: seconds after which a silent host is taken for lost.

    Yields:
      A `Host` for each task.
    """
    with contextlib.ExitStack() as stack:
        found = []
        for task in tasks:
            found.append(Host(plan, task, order(task), timeout))
            stack.callback(found[-1].close)
        yield found


class HostCluster(Cluster):
    """Workers and parameter servers on hosts that TF_CONFIG names, for the time of a `with`.

    Args:
      plan: from TF_CONFIG.
      timeout: seconds after which a silent host is taken for lost.
    """

    def __init__(self, plan: Plan, timeout: int):
        super().__init__(plan)
        self._timeout = timeout
        self._stack = contextlib.ExitStack()
        self._hosts: list[Host] = []

    def __enter__(self) -> HostCluster:
        tasks = self.plan.tasks(PS, WORKER)
        self._hosts = self._stack.enter_context(hosts(self.plan, tasks, lambda task: {"order": SERVE}, self._timeout))
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def check(self) -> None:
        """See `Cluster.check`."""
        self.worker_losses = sum(host.losses for host in self._hosts)
        for host in self._hosts:
            host.check()

    def settle(self) -> None:
        """See `Cluster.settle`."""
        time.sleep(2 * HEARTBEAT_S)
        self.check()

    def replace(self, task: Task) -> bool:
        """See `Cluster.replace`."""
        _log.warning("%s of the training cluster does not answer and is started again", task)
        return task.job == WORKER and any(host.replace() for host in self._hosts if host.task == task)
