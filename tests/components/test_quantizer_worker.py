"""Conversions in processes of their own: what one of them suffers, the others do not."""

import contextlib
import os
import signal
import threading
import time

import pytest
import quantizer_world

from evergreen.components import ahead
from evergreen.components.quantizer.convert import ConversionFailed
from evergreen.components.quantizer.worker import Worker, conversion, prepare

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


def test_conversions_that_were_begun_run_side_by_side_and_give_the_same(core, monkeypatch):
    with Worker(120) as worker:
        alone = [worker.convert(core, variant) for variant in ("float32", "float16", "dynamic_int8")]
        for variant in ("dynamic_int8", "float16", "float32"):
            worker.begin(conversion(core, variant))
        at_once = 0
        deadline = time.monotonic() + 60
        while at_once < min(2, ahead.cores()) and time.monotonic() < deadline:
            at_once = max(at_once, len(children(worker.process)))
        assert at_once == min(2, ahead.cores())
        worker.settle()
        assert children(worker.process) == []
        # All is there: nothing is started for what was begun.
        monkeypatch.setattr(worker, "_submit", lambda *_: pytest.fail("it was begun"))
        assert [worker.convert(core, variant) for variant in ("float32", "float16", "dynamic_int8")] == alone


def test_what_was_begun_when_the_worker_was_killed_is_begun_anew(core):
    with Worker(120) as worker:
        whole = worker.convert(core, "float16")
        killed = worker.process
        with killing(worker.process, lambda fork: worker.process.pid):
            worker.begin(conversion(core, "float32"))
            worker.begin(conversion(core, "float16"))
            worker.settle()
        assert killed.returncode == -signal.SIGKILL
        assert worker.convert(core, "float32")[4:8] == b"TFL3"
        assert worker.convert(core, "float16") == whole


def test_a_worker_that_was_prepared_is_taken(core):
    prepare()
    waiting = ahead._waiting["evergreen.components.quantizer.worker"].pid if ahead.cores() > 1 else None
    with Worker(120) as worker:
        assert waiting in (None, worker.process.pid)
        assert worker.convert(core, "float32")[4:8] == b"TFL3"


def test_what_was_begun_is_begun_once_and_kept_only_where_all_of_it_is_wanted(core):
    with Worker(120) as worker:
        worker.begin(conversion(core, "float32"))
        worker.begin(conversion(core, "float32"))
        worker.keep([conversion(core, "float16"), conversion(core, "float32")])
        assert list(worker._begun.values()) == [conversion(core, "float32")]
        process = worker.process
        worker.keep([conversion(core, "float16")])
        assert not worker._begun
        assert process.returncode == -signal.SIGKILL
        assert worker.convert(core, "float32")[4:8] == b"TFL3"


def test_a_job_writes_into_the_log_of_the_stage_that_asks_for_its_result(core, tmp_path):
    def logged_by(work):
        log = tmp_path / f"{len(list(tmp_path.iterdir()))}.log"
        saved = os.dup(2)
        with log.open("a") as file:
            os.dup2(file.fileno(), 2)
            try:
                work()
            finally:
                os.dup2(saved, 2)
                os.close(saved)
        return log.read_text()

    workers = []

    def begin():
        prepare()
        workers.append(Worker(120))
        workers[0].begin(conversion(str(tmp_path), "float32"))
        workers[0].settle()

    def ask():
        with workers[0] as worker, pytest.raises(ConversionFailed):
            worker.convert(str(tmp_path), "float32")

    assert "could not be converted" not in logged_by(begin)
    assert "could not be converted" in logged_by(ask)
