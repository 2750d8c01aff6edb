"""Conversions in processes of their own: what one of them suffers, the others do not."""

import contextlib
import os
import signal
import threading
import time

import pytest
import quantizer_world

from evergreen.components.quantizer.convert import ConversionFailed
from evergreen.components.quantizer.worker import Worker

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def core(build_once):
    return f"{build_once('quantizer', quantizer_world.build)}/model/Core"


def children(process):
    """The processes that a process has forked and that still run."""
    with open(f"/proc/{process.pid}/task/{process.pid}/children", encoding="utf-8") as file:
        return [int(pid) for pid in file.read().split()]


@contextlib.contextmanager
def killing(process, target):
    """Kills as the kernel does when memory runs out: once `process` has forked, what `target(fork)` names."""
    stop = threading.Event()

    def watch():
        while not stop.is_set():
            for pid in children(process):
                os.kill(target(pid), signal.SIGKILL)
                return
            time.sleep(0.001)

    killer = threading.Thread(target=watch)
    killer.start()
    yield
    stop.set()
    killer.join()


def test_a_converter_that_is_killed_costs_one_variant(core):
    with Worker(120) as worker:
        whole = worker.convert(core, "float16")
        crashed = pytest.raises(ConversionFailed, match=r"the converter crashed \(SIGKILL\)")
        with killing(worker.process, lambda fork: fork), crashed:
            worker.convert(core, "float32")
        assert worker.convert(core, "float16") == whole


def test_a_converter_without_end_is_stopped(core):
    with Worker(0.001) as worker:
        with pytest.raises(ConversionFailed, match=r"not done within 0\.001 s \(`quantize\.convert_seconds`\)"):
            worker.convert(core, "float32")
        assert children(worker.process) == []


def test_a_worker_that_is_killed_itself_comes_back(core):
    with Worker(120) as worker:
        crashed = pytest.raises(ConversionFailed, match=r"process crashed \(SIGKILL\)")
        with killing(worker.process, lambda fork: worker.process.pid), crashed:
            worker.convert(core, "float32")
        assert worker.convert(core, "float32")[4:8] == b"TFL3"


def test_what_the_converter_refuses_is_told_and_the_worker_lives(core, tmp_path):
    with Worker(120) as worker:
        with pytest.raises(ConversionFailed, match="conversion failed: "):
            worker.convert(str(tmp_path), "float32")
        assert worker.convert(core, "float32")[4:8] == b"TFL3"
