"""A run's process with all that it started: measured, interrupted, and gone whoever was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from evergreen.pipeline.schedule import supervise

LIMIT_S = 60.0
# Starts a child of its own that would outlive it, writes both numbers down, and waits.
FAMILY = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
with open(sys.argv[1] + ".new", "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(float(sys.argv[2]))
"""
# A scheduler in miniature, which starts a family and sleeps.
SCHEDULER = """
import sys, time
from evergreen.pipeline.schedule import supervise
process = supervise.Process([sys.executable, "-S", "-c", sys.argv[1], sys.argv[2], "600"])
print(process._sentinel.pid, flush=True)
time.sleep(600)
"""


def until(happened, limit: float = LIMIT_S) -> None:
    end = time.monotonic() + limit
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)


def gone(*pids: int) -> bool:
    """Whether the processes are dead; a zombie that nobody has buried yet is."""

    def dead(pid: int) -> bool:
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    return all(dead(pid) for pid in pids)


def family(tmp_path: Path, seconds: float = 600) -> tuple[supervise.Process, list[int]]:
    file = tmp_path / "pids"
    process = supervise.Process([sys.executable, "-S", "-c", FAMILY, str(file), str(seconds)])
    until(file.exists)
    return process, [int(pid) for pid in file.read_text().split()]


def test_the_end_of_a_run_is_noticed_and_its_children_end_with_it(tmp_path):
    process, pids = family(tmp_path, 0.2)
    until(lambda: process.ended)
    assert not gone(pids[1])
    assert process.close() == 0
    until(lambda: gone(*pids))


def test_a_kill_takes_all_of_them(tmp_path):
    process, pids = family(tmp_path)
    assert not process.ended
    process.kill()
    assert process.close() == -signal.SIGKILL
    until(lambda: gone(*pids))


def test_one_that_left_the_group_is_taken_too(tmp_path):
    program = FAMILY.replace('sleep(600)"]', 'sleep(600)"], start_new_session=True')
    file = tmp_path / "pids"
    process = supervise.Process([sys.executable, "-S", "-c", program, str(file), "600"])
    until(file.exists)
    pids = [int(pid) for pid in file.read_text().split()]
    process.memory()
    process.close()
    until(lambda: gone(*pids))


def test_memory_is_that_of_all_processes(tmp_path):
    program = """
import subprocess, sys, time
held = bytearray(100_000_000)
if len(sys.argv) > 2:
    open(sys.argv[2], "w").close()
else:
    subprocess.Popen([sys.executable, "-S", "-c", open(sys.argv[1]).read(), sys.argv[1], sys.argv[1] + ".ready"])
time.sleep(600)
"""
    file = tmp_path / "program.py"
    file.write_text(program)
    process = supervise.Process([sys.executable, "-S", str(file), str(file)])
    try:
        until(Path(f"{file}.ready").exists)
        assert 200_000_000 < process.memory() < 400_000_000
    finally:
        process.close()


def test_an_interrupt_is_ctrl_c(tmp_path):
    program = f"""
import time
try:
    open({str(tmp_path / "ready")!r}, "w").close()
    time.sleep(600)
except KeyboardInterrupt:
    raise SystemExit(42)
"""
    process = supervise.Process([sys.executable, "-S", "-c", program])
    until((tmp_path / "ready").exists)
    process.interrupt()
    until(lambda: process.ended)
    assert process.close() == 42


def test_a_program_that_is_not_there_leaves_nothing_behind():
    before = len(psutil.Process().children())
    with pytest.raises(OSError):
        supervise.Process(["/no/such/program"])
    assert len(psutil.Process().children()) == before


def scheduler(tmp_path: Path) -> tuple[subprocess.Popen, int, list[int]]:
    file = tmp_path / "pids"
    process = subprocess.Popen(
        [sys.executable, "-c", SCHEDULER, FAMILY, str(file)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    sentinel = int(process.stdout.readline())
    until(file.exists)
    return process, sentinel, [int(pid) for pid in file.read_text().split()]


def test_the_death_of_the_scheduler_ends_the_run_with_its_children(tmp_path):
    process, sentinel, pids = scheduler(tmp_path)
    process.kill()
    process.wait()
    until(lambda: gone(*pids, sentinel))


def test_a_signal_to_the_whole_service_does_not_stop_the_sentinel(tmp_path):
    process, sentinel, pids = scheduler(tmp_path)
    os.kill(sentinel, signal.SIGTERM)
    time.sleep(0.5)
    assert not gone(sentinel)
    process.kill()
    process.wait()
    until(lambda: gone(*pids))


def test_the_next_start_ends_what_was_left_where_both_were_killed(tmp_path):
    process, sentinel, pids = scheduler(tmp_path)
    created = psutil.Process(pids[0]).create_time()
    os.kill(sentinel, signal.SIGKILL)
    process.kill()
    process.wait()
    assert not gone(*pids)
    # A group of the same number that is not this run's stays alone.
    assert supervise.sweep(pids[0], created - 1000) == 0
    assert supervise.sweep(0, 0.0) == 0
    assert not gone(*pids)
    assert supervise.sweep(pids[0], created) == 2
    until(lambda: gone(*pids))
    assert supervise.sweep(pids[0], created) == 0
