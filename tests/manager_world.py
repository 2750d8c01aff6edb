"""A manager in this process, on base paths of small models: what tests of the built-in server's core share."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from evergreen.serving.errors import ServingError
from evergreen.serving.manager import Manager, ManagerOptions

X = {"x": np.array([1], np.float32)}
POLL_S = 0.1
LONG_S = 120  # the machine may be loaded


def publish(model: Path, base_path: Path, version: int) -> Path:
    """Copies a model beside its place and renames it, as a Pusher does."""
    base_path.mkdir(exist_ok=True)
    shutil.copytree(model, base_path / f".tmp-{version}")
    os.rename(base_path / f".tmp-{version}", base_path / str(version))
    return base_path / str(version)


def config(base_path: Path | str, more: str = "", name: str = "m") -> Any:
    """Makes the ModelServerConfig of one model; `more` is text of its ModelConfig."""
    text = f'config {{ name: "{name}" base_path: "{base_path}" model_platform: "tensorflow" {more} }}'
    return text_format.Parse(f"model_config_list {{ {text} }}", model_server_config_pb2.ModelServerConfig())


@contextlib.contextmanager
def managing(first: Any, **options: Any) -> Iterator[Manager]:
    """Runs a manager until the block ends. Args: first: its configuration; options: ManagerOptions' and Manager's."""
    hooks = {name: options.pop(name) for name in ("warm_up", "on_load") if name in options}
    manager = Manager(ManagerOptions(**{"file_system_poll_wait_seconds": POLL_S, **options}), **hooks)
    manager.start(first)
    try:
        yield manager
    finally:
        manager.stop()


def states(manager: Manager, name: str = "m") -> dict[int, str]:
    """Returns the states of a model's versions; none for a model that is not known."""
    try:
        return {one.version: one.state for one in manager.status(name)}
    except ServingError:
        return {}


def wait(condition: Callable[[], Any], seconds: float = LONG_S) -> None:
    """Waits until a condition is met."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def wait_for(manager: Manager, expected: dict[int, str], name: str = "m") -> None:
    """Waits until a model's versions are in these states."""
    try:
        wait(lambda: states(manager, name) == expected)
    except AssertionError:
        raise AssertionError(f"{manager.status(name)} instead of {expected}") from None


def served(manager: Manager, **which: Any) -> int:
    """Asks model m, checks the answer, and returns the version that gave it."""
    with manager.lease("m", **which) as model:
        assert model.run("raw", X)["y"].tolist() == [3]
        return model.version
