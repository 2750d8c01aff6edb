"""What every test shares: quiet logs, collection that stays fast, and results that are built once for all workers."""

from __future__ import annotations

import atexit
import gc
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import database_world
import filelock
import pytest

from evergreen.pipeline.connection import PASSWORD_VARIABLE

# Python 3.13 crashes in its last garbage collection after TensorFlow Transform ran in the process.
atexit.register(gc.freeze)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as where a script started the tests in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

NEEDS_TENSORFLOW = re.compile(r"^pytestmark\s*=[^=]*?pytest\.mark\.tensorflow", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves out modules marked `tensorflow` as a whole where the marker is deselected: their imports cost seconds."""
    if "not tensorflow" in config.option.markexpr and collection_path.suffix == ".py":
        return True if NEEDS_TENSORFLOW.search(collection_path.read_text(encoding="utf-8")) else None
    return None


@pytest.fixture(scope="session")
def build_once(
    tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> Callable[[str, Callable[[Path], object]], Path]:
    """Returns `build_once(name, build)`: the folder that `build(folder)` filled, in one worker of the whole test run.

    The others wait for it and get the same folder. It is shared, so a test that changes it copies it first.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent

    def once(name: str, build: Callable[[Path], object]) -> Path:
        folder, done = shared / name, shared / f"{name}.done"
        with filelock.FileLock(shared / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                build(folder)
                done.touch()
        return folder

    return once


@pytest.fixture(params=["mysql", "postgresql"])
def database_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[database_world.Server]:
    """A MariaDB, then a PostgreSQL server with an empty database, whose password stands in the environment."""
    if database_world.programs(request.param) is None:
        pytest.skip(f"no {request.param} server is installed")
    monkeypatch.setenv(PASSWORD_VARIABLE, database_world.PASSWORD)
    with database_world.running(request.param, tmp_path_factory.mktemp("server")) as running:
        yield running
