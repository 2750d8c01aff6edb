"""A training by several processes of this machine that all run the same steps: `multi_worker_mirrored`.

Each process gets the request and its place in the cluster. The first one, the chief, exports and reports; the others
compute their share and leave nothing. Where one dies, all are ended, and the job begins again from its last checkpoint.
`child` runs the whole job in a network of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

from evergreen.components.errors import ConfigError
from evergreen.components.trainer import checkpoints, child, cluster
from evergreen.components.trainer.request import Request

_log = logging.getLogger(__name__)
_POLL_S = 0.05


def train(request: Request) -> dict[str, Any]:
    """Trains with as many processes as `trainer.cluster.workers` says.

    Args:
      request: what to do.

    Returns:
      The chief's report, with the number of restarts.

    Raises:
      ConfigError: TF_CONFIG names hosts.
      EvergreenError: what the training refuses.
      RuntimeError: a process died more often than `trainer.max_restarts` allows.
    """
    if cluster.read(os.environ) is not None:
        raise ConfigError(
            "multi_worker_mirrored cannot use the hosts of TF_CONFIG yet",
            f"received {os.environ[cluster.VARIABLE]}; the strategy starts the processes of trainer.cluster here",
            f"Unset {cluster.VARIABLE}, or use parameter_server.",
        )
    request = dataclasses.replace(request, checkpoint_dir=checkpoints.folder(request))
    for restarts in range(request.settings.max_restarts + 1):
        with tempfile.TemporaryDirectory() as scratch, _processes(request, scratch) as tasks:
            dead = _wait(tasks)
            if dead is None:
                return {**tasks[0].result(), "restarts": restarts}
        _log.warning("%s died; the training begins again from its last checkpoint.", dead)
    raise RuntimeError(f"{dead}, and trainer.max_restarts is {request.settings.max_restarts}")


@contextlib.contextmanager
def _processes(request: Request, scratch: str) -> Iterator[list[child.Child]]:
    """Starts the processes and ends every one of them, whatever happens."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(request.settings.cluster.workers)]
    tasks: list[child.Child] = []
    try:
        for index in range(len(addresses)):
            own = request
            if index:
                folder = os.path.join(scratch, f"worker-{index}")
                own = dataclasses.replace(
                    request, chief=False, model_dir=os.path.join(folder, "model"), run_dir=os.path.join(folder, "run")
                )
            place = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            tasks.append(child.Child(own, {"TF_CONFIG": json.dumps(place)}))
        yield tasks
    finally:
        for task in tasks:
            task.close()


def _wait(tasks: list[child.Child]) -> str | None:
    """Waits until the chief has a result, or a process has died without one; returns which, in words."""
    relay = threading.Thread(target=tasks[0].relay, daemon=True)
    relay.start()
    while True:
        for index, task in enumerate(tasks):
            status = task.process.poll()
            if status is None:
                continue
            if index == 0 and task.has_result:
                relay.join()
                return None
            if not task.has_result:
                return f"worker {index} ended with status {status}"
        time.sleep(_POLL_S)


def free_ports(count: int) -> list[int]:
    """Finds ports of this machine that nobody listens on now.

    Args:
      count: how many.

    Returns:
      Different ports.
    """
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
