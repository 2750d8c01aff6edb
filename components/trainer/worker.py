"""A host that takes part in the trainings of another one: what `evergreen worker` runs.

It waits on the port that TF_CONFIG gives to its task for an order (see `hosts`), does its part of one training in
processes of their own, and waits again. Whatever ends the training on the other side ends these processes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import socket
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from evergreen.components import user_code
from evergreen.components.errors import ConfigError, EvergreenError, Failure
from evergreen.components.trainer import child, cluster, hosts
from evergreen.components.trainer.cluster import LostProcess, Plan
from evergreen.components.trainer.local_cluster import LocalCluster
from evergreen.components.trainer.request import Request

Say = Callable[[str], None]


def serve(plan: Plan, project_dir: str | None, say: Say) -> None:
    """Takes part in trainings, one after the other, until the process is ended.

    Args:
      plan: from TF_CONFIG; its task is this process.
      project_dir: the folder of the user's modules on this host; None for the one that the order names.
      say: hears what happens, in a line.

    Raises:
      ConfigError: the task's port cannot be listened on.
    """
    while True:
        say(f"{plan.task} waits for a training at {plan.address(plan.task)}")
        connection, order, host = _wait_for_order(plan)
        with connection:
            try:
                _check(plan, order)
                work = _serve if order["order"] == hosts.SERVE else _train
                with work(plan, order, project_dir) as step:
                    say(f"{plan.task} takes part in a training of {host}")
                    _send(connection, {"task": str(plan.task)})
                    say(f"{plan.task}: {_attend(connection, step)}")
            except EvergreenError as error:
                say(f"{plan.task} refused: {error.headline}: {error.reason}")
                with contextlib.suppress(OSError):
                    _send(connection, {"refused": dataclasses.asdict(Failure.of(error))})


def _wait_for_order(plan: Plan) -> tuple[socket.socket, dict[str, Any], str]:
    """Listens until somebody sends an order; then the port is free for TensorFlow."""
    with cluster.listen(plan) as listener:
        while True:
            connection, (host, *_) = listener.accept()
            connection.settimeout(cluster.ANSWER_S)
            try:
                order = json.loads(connection.makefile("rb").readline())
                if isinstance(order, dict) and "order" in order:
                    return connection, order, host
            except (OSError, ValueError):
                pass  # a port scan, or TensorFlow looking for what was here before
            connection.close()


def _check(plan: Plan, order: dict[str, Any]) -> None:
    """Refuses an order that this host cannot do as the other one means it."""
    wanted = {"protocol": hosts.PROTOCOL, **hosts.versions()}
    received = {"protocol": order.get("protocol"), **order.get("versions", {})}
    for name, here in wanted.items():
        if received.get(name) != here:
            raise ConfigError(
                f"{plan.task} has another {name}",
                f"here it is {here}, on the host that leads the training {received.get(name)}",
                "Install the same packages on all hosts.",
            )
    if order["plan"] != json.loads(plan.config()):
        raise ConfigError(
            f"TF_CONFIG of {plan.task} differs from that of the host that leads the training",
            f"received {json.dumps(order['plan'])}, has {plan.config()}",
            "Give all hosts the same cluster.",
        )


@contextlib.contextmanager
def _serve(plan: Plan, order: dict[str, Any], project_dir: str | None) -> Iterator[Callable[[dict], dict]]:
    """Runs the task's TensorFlow server; yields what answers a message and says how it is."""
    with tempfile.TemporaryDirectory() as folder, LocalCluster(plan, folder, [plan.task]) as local:

        def step(message: dict[str, Any]) -> dict[str, Any]:
            if message.get("replace"):
                local.replace(plan.task)
            try:
                local.check()
            except LostProcess as error:
                return {"lost": str(error)}
            return {"losses": local.worker_losses}

        yield step


@contextlib.contextmanager
def _train(plan: Plan, order: dict[str, Any], project_dir: str | None) -> Iterator[Callable[[dict], dict]]:
    """Trains along; yields what says how the training process is."""
    request = Request.from_json(json.dumps(order["request"]))
    request = dataclasses.replace(request, project_dir=project_dir or request.project_dir)
    _check_files(plan, request)
    _check_code(plan, request, order["code"])
    with child.along(request, {cluster.VARIABLE: plan.config()}) as process:
        yield lambda message: _state(process)


def _state(process: child.Child) -> dict[str, Any]:
    status = process.process.poll()
    if status is None:
        return {}
    if not process.has_result:
        return {"lost": f"its training process ended with {status}"}
    try:
        process.result()
    except EvergreenError as error:
        return {"refused": dataclasses.asdict(Failure.of(error))}
    except RuntimeError as error:
        return {"lost": str(error).strip().splitlines()[-1]}
    return {"done": True}


def _attend(connection: socket.socket, step: Callable[[dict], dict]) -> str:
    """Tells the leading host how the work goes, until that one or the work ends; returns how it ended, in words."""
    waiting = b""
    while True:
        readable, _, _ = select.select([connection], [], [], hosts.HEARTBEAT_S)
        message: dict[str, Any] = {}
        try:
            if readable:
                received = connection.recv(1 << 16)
                if not received:
                    return "the training is over"
                *lines, waiting = (waiting + received).split(b"\n")
                for line in lines:
                    message.update(json.loads(line))
            state = step(message)
            _send(connection, state)
        except OSError as error:
            return f"the host that led the training is gone: {error}"
        if "lost" in state:
            return f"the training is lost: {state['lost']}"
        if "refused" in state:
            return f"the training was refused: {state['refused']['headline']}"


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


def code_of(request: Request) -> dict[str, str]:
    """Returns the hash of each of the user's modules that a training runs, by its path within the project.

    Args:
      request: the training.
    """
    return user_code.hashes(request.settings.model or "", request.project_dir)


def _check_code(plan: Plan, request: Request, expected: dict[str, str]) -> None:
    here = code_of(request)
    differing = sorted(name for name in {*here, *expected} if here.get(name) != expected.get(name))
    if differing:
        raise ConfigError(
            f"the code on {plan.task} is not that of the host that leads the training",
            f"in {request.project_dir} {', '.join(differing)} differ",
            "Bring the project to the same state on all hosts.",
        )


def _check_files(plan: Plan, request: Request) -> None:
    folders = [request.transform_graph, *(one.uri for one in request.window)]
    missing = [folder for folder in folders if "://" not in folder and not os.path.isdir(folder)]
    if missing:
        raise ConfigError(
            f"{plan.task} does not see the training's rows",
            f"there is no {missing[0]}",
            "Put the workspace on a file system that all hosts have under the same path.",
        )
