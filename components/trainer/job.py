"""A training by several processes that all run the same steps: `multi_worker_mirrored`.

Each process gets the request and its place in the cluster: on this machine, or on the hosts of TF_CONFIG. The one that
leads exports and reports; the others compute their share and leave nothing. Where one dies, all are ended, and the job
begins again from its last checkpoint. `child` runs a job of this machine in a network of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from evergreen.components.errors import ConfigError, EvergreenError
from evergreen.components.trainer import checkpoints, child, cluster, hosts, worker
from evergreen.components.trainer.cluster import PS, WORKER, LostProcess, Plan, Task
from evergreen.components.trainer.request import Request

_POLL_S = 0.05
_GRACE_S = 2.0


class _Other(Protocol):
    """A process of the job that does not lead."""

    def check(self) -> None:
        """Raises why it can do no more."""


def train(request: Request) -> dict[str, Any]:
    """Trains with the hosts of TF_CONFIG, else with as many processes as `trainer.cluster.workers` says.

    Args:
      request: what to do.

    Returns:
      The leading process's report, with the number of restarts.

    Raises:
      ConfigError: TF_CONFIG does not make this process the one that leads.
      EvergreenError: what the training refuses.
      LostProcess: a process died more often than `trainer.max_restarts` allows.
    """
    plan = cluster.read(os.environ)
    if plan is not None and (plan.task not in cluster.leading(plan) or plan.tasks(PS)):
        raise ConfigError(
            f"{cluster.VARIABLE} does not make this process the one that leads the training",
            f"received the task {plan.task} of {', '.join(f'{len(all_)} {job}' for job, all_ in plan.jobs.items())}; "
            f"expected {cluster.leading(plan)[0] if cluster.leading(plan) else 'worker-0'}, and no ps",
            "Run the training there; on the other hosts run `evergreen worker`.",
        )
    cluster.bypass_proxies()
    request = dataclasses.replace(request, checkpoint_dir=checkpoints.folder(request))
    return cluster.with_restarts(lambda: _attempt(request, plan), request.settings.max_restarts)


def _attempt(request: Request, plan: Plan | None) -> dict[str, Any]:
    with contextlib.ExitStack() as stack:
        others: list[_Other] = []
        if plan is None:
            plan = Plan({WORKER: cluster.free_addresses(request.settings.cluster.workers)}, Task(WORKER, 0))
            for task in plan.tasks()[1:]:
                process = stack.enter_context(child.along(request, {cluster.VARIABLE: plan.config(task)}))
                others.append(_Process(process, task))
        else:
            tasks = [task for task in plan.tasks() if task != plan.task]
            asked = json.loads(request.to_json())
            order: Mapping[str, Any] = {"order": hosts.TRAIN, "request": asked, "code": worker.code_of(request)}
            others = stack.enter_context(hosts.hosts(plan, tasks, lambda task: order, request.settings.cluster.timeout))
        leading = child.Child(request, {cluster.VARIABLE: plan.config()})
        stack.callback(leading.close)
        return _wait(leading, others, plan.task)


class _Process:
    """A process of this machine that does not lead."""

    def __init__(self, process: child.Child, task: Task):
        self._process = process
        self._task = task

    def check(self) -> None:
        """See `_Other.check`."""
        status = self._process.process.poll()
        if status is not None and not self._process.has_result:
            raise LostProcess(f"{self._task} ended with status {status}")
        if status is not None:
            self._process.result()


def _wait(leading: child.Child, others: Sequence[_Other], task: Task) -> dict[str, Any]:
    """Waits for the leading process's report; raises what it refused, or which process is lost."""
    relay = threading.Thread(target=leading.relay, daemon=True)
    relay.start()
    while True:
        status = leading.process.poll()
        if status is not None:
            if not leading.has_result:
                raise LostProcess(f"{task} ended with status {status}")
            relay.join()
            return leading.result()
        try:
            for other in others:
                other.check()
        except (EvergreenError, RuntimeError):
            # What one process refuses all of them refuse, and the leading one says it best.
            with contextlib.suppress(Exception):
                leading.process.wait(_GRACE_S)
            if leading.has_result:
                continue
            raise
        time.sleep(_POLL_S)
