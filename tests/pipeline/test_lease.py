"""The lease in the metadata store: of several hosts one runs, and a dead one does not keep it for ever."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from evergreen.components.errors import LockHeld
from evergreen.pipeline import connection, lease
from evergreen.pipeline.lease import Lease
from evergreen.pipeline.store import Store

# Holds the lease until it is killed, on a host of the given name.
HOLDER = """
import socket, sys, time
socket.gethostname = lambda: sys.argv[2]
from evergreen.pipeline import connection
from evergreen.pipeline.lease import Lease
from evergreen.pipeline.store import Store
store = Store(connection.parse("sqlite", sys.argv[1]), "flights")
with Lease(store, beat_s=0.2, watch_s=3):
    print("held", flush=True)
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metadata.db"


def taken(path, pipeline: str = "flights") -> Lease:
    return Lease(Store(connection.parse("sqlite", path), pipeline), beat_s=0.2, watch_s=3)


@pytest.fixture
def holder(path):
    started = []

    def start(host: str, within: list[str] | None = None) -> subprocess.Popen:
        command = [*(within or ()), sys.executable, "-c", HOLDER, str(path), host]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_one_after_the_other(path):
    for _ in range(3):
        with taken(path):
            pass


def test_a_live_one_on_another_host_is_respected(path, holder):
    holder("elsewhere")
    with pytest.raises(LockHeld) as refused, taken(path):
        pass
    assert "elsewhere" in refused.value.reason
    assert refused.value.exit_status == 5


def test_a_live_one_on_this_host_too_without_waiting(path, holder):
    import socket

    holder(socket.gethostname())
    began = time.monotonic()
    with pytest.raises(LockHeld), taken(path):
        pass
    assert time.monotonic() - began < 2.5


def test_a_live_one_in_another_container_of_this_name_is_respected(path, holder):
    import socket

    alone = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("this machine gives a process no process ids of its own")
    holder(socket.gethostname(), alone)
    with pytest.raises(LockHeld), taken(path):
        pass


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_a_dead_one_is_succeeded(path, holder, where):
    import socket

    process = holder(socket.gethostname() if where == "here" else where)
    process.kill()
    process.wait()
    with taken(path):
        pass


def test_another_pipeline_has_its_own(path, holder):
    holder("elsewhere")
    with taken(path, "other"):
        pass


def test_of_several_that_reach_for_it_one_gets_it(path):
    with taken(path):
        pass
    together, results = threading.Barrier(4), []

    def reach() -> None:
        mine = taken(path)
        newest = mine._newest()
        together.wait()
        try:
            mine._take(lease._number(newest) + 1)
            results.append("taken")
        except LockHeld:
            results.append("refused")

    threads = [threading.Thread(target=reach) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["refused"] * 3 + ["taken"]


def test_one_that_was_suspended_and_succeeded_ends_its_run(path, holder):
    process = holder("elsewhere")
    os.kill(process.pid, signal.SIGSTOP)
    try:
        with taken(path):
            os.kill(process.pid, signal.SIGCONT)
            assert process.stdout.readline() == "interrupted\n"
    finally:
        os.kill(process.pid, signal.SIGCONT)
