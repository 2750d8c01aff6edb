"""A training by several processes of this machine that all run the same steps: `multi_worker_mirrored`.

Each process gets the request and its place in the cluster. The first one, the chief, exports and reports; the others
compute their share and leave nothing. Where one dies, all are ended, and the job begins again from its last checkpoint.
`child` runs the whole job in a network of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

from evergreen.components.errors import ConfigError
from evergreen.components.trainer import checkpoints, child, cluster
from evergreen.components.trainer.request import Request

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
      LostProcess: a process died more often than `trainer.max_restarts` allows.
    """
    if cluster.read(os.environ) is not None:
        raise ConfigError(
            "multi_worker_mirrored cannot use the hosts of TF_CONFIG yet",
            f"received {os.environ[cluster.VARIABLE]}; the strategy starts the processes of trainer.cluster here",
            f"Unset {cluster.VARIABLE}, or use parameter_server.",
        )
    cluster.bypass_proxies()
    request = dataclasses.replace(request, checkpoint_dir=checkpoints.folder(request))
    return cluster.with_restarts(lambda: _attempt(request), request.settings.max_restarts)


def _attempt(request: Request) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch, _processes(request, scratch) as tasks:
        _wait(tasks)
        return tasks[0].result()


@contextlib.contextmanager
def _processes(request: Request, scratch: str) -> Iterator[list[child.Child]]:
    """Starts the processes and ends every one of them, whatever happens."""
    plan = cluster.Plan({cluster.WORKER: cluster.free_addresses(request.settings.cluster.workers)})
    tasks: list[child.Child] = []
    try:
        for task in plan.tasks():
            own = request
            if task.index:
                folder = os.path.join(scratch, str(task))
                own = dataclasses.replace(
                    request, chief=False, model_dir=os.path.join(folder, "model"), run_dir=os.path.join(folder, "run")
                )
            tasks.append(child.Child(own, {cluster.VARIABLE: plan.config(task)}))
        yield tasks
    finally:
        for process in tasks:
            process.close()


def _wait(tasks: list[child.Child]) -> None:
    """Waits until the chief has a result; raises LostProcess where a process has died without one."""
    relay = threading.Thread(target=tasks[0].relay, daemon=True)
    relay.start()
    while True:
        for index, task in enumerate(tasks):
            status = task.process.poll()
            if status is None:
                continue
            if index == 0 and task.has_result:
                relay.join()
                return
            if not task.has_result:
                raise cluster.LostProcess(f"worker {index} ended with status {status}")
        time.sleep(_POLL_S)
