"""The loop as a process of its own: signals, kills, what stays behind, and what it costs to idle."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from loop_world import LIMIT_S, RUN
from schedule_world import deliver, project

from evergreen.pipeline.schedule import state
from evergreen.pipeline.schedule.state import Places

PROGRAM = """
import json, signal, sys
from evergreen.pipeline import config as configuration
from evergreen.pipeline.schedule.loop import Loop
file, ledger, run, seconds, max_runs = sys.argv[1:]
RESULT = {"result": "published", "run": "r", "span": "1", "version": 7}
def command(config, running):
    job = running.job
    arguments = [ledger, running.span, str(job.scheduled), job.trigger, running.result_file, json.dumps(RESULT)]
    return [sys.executable, "-S", "-c", run, *arguments, seconds]
loop = Loop(lambda: configuration.load(file), command, lambda line: print(line, flush=True), max_runs=int(max_runs))
signal.signal(signal.SIGTERM, lambda *_: loop.stop())
status = loop.run()
heavy = [name for name in ("tensorflow", "tfx", "apache_beam", "tf_keras", "pandas") if name in sys.modules]
print("heavy", heavy, flush=True)
sys.exit(status)
"""


def spawn(folder: Path, seconds: float, max_runs: int = 99) -> subprocess.Popen:
    """Starts a scheduler over quick runs as a process of its own."""
    arguments = [folder / "evergreen.yaml", folder / "ledger", RUN, seconds, max_runs]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def ledger(folder: Path) -> list[str]:
    file = folder / "ledger"
    return file.read_text().splitlines() if file.exists() else []


def wait_until(happened) -> None:
    end = time.monotonic() + LIMIT_S
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)


class TestForReal:
    def test_every_second(self, tmp_path):
        project(tmp_path, "{every: 1s}")
        process = spawn(tmp_path, 0, max_runs=2)
        out, _ = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0, out
        assert len(ledger(tmp_path)) == 1
        assert "published version 7" in out
        assert "nothing to do" in out
        assert out.splitlines()[-1] == "heavy []"

    def test_sigterm_lets_the_run_end(self, tmp_path):
        project(tmp_path, "{every: 1s}")
        process = spawn(tmp_path, 3)
        wait_until(lambda: ledger(tmp_path))
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0, out
        assert "published version 7" in out
        assert state.read(Places(tmp_path / "workspace").state).running is None

    def test_sigkill_ends_the_run_too_and_the_next_start_takes_it_up_once(self, tmp_path):
        project(tmp_path, "{every: 1s}")
        process = spawn(tmp_path, 600)
        places = Places(tmp_path / "workspace")
        wait_until(lambda: ledger(tmp_path) and state.read(places.state).running.pid)
        running = state.read(places.state).running
        process.kill()
        process.communicate(timeout=LIMIT_S)
        wait_until(lambda: not psutil.pid_exists(running.pid))
        out, _ = spawn(tmp_path, 0, max_runs=1).communicate(timeout=LIMIT_S)
        assert "it is taken up again" in out
        first, second = ledger(tmp_path)
        assert first == second
        assert [ended.result for ended in state.read(places.state).ended] == ["published"]

    @pytest.mark.parametrize("killed", ["run", "scheduler", "nobody"])
    def test_temporary_files_go_with_the_run(self, tmp_path, monkeypatch, killed):
        project(tmp_path, "{every: 1s, retries: {first: 1s}}")
        (tmp_path / "tmp").mkdir()
        monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
        places = Places(tmp_path / "workspace")
        process = spawn(tmp_path, 0.5 if killed == "nobody" else 600, max_runs=1)
        wait_until(lambda: list(tmp_path.glob("tmp/*/left")))
        if killed == "run":
            os.kill(state.read(places.state).running.pid, signal.SIGKILL)
            wait_until(lambda: len(ledger(tmp_path)) == 2)
        if killed != "nobody":
            process.kill()
        process.communicate(timeout=LIMIT_S)
        if killed != "nobody":
            out, _ = spawn(tmp_path, 0, max_runs=1).communicate(timeout=LIMIT_S)
            assert "published version 7" in out
        assert list((tmp_path / "tmp").iterdir()) == []

    def test_sigkill_of_the_run_is_a_failed_attempt(self, tmp_path):
        project(tmp_path, "{every: 1s, retries: {first: 1s}, overrun: skip}")
        places = Places(tmp_path / "workspace")
        process = spawn(tmp_path, 600, max_runs=1)
        wait_until(lambda: ledger(tmp_path) and state.read(places.state).running.pid)
        os.kill(state.read(places.state).running.pid, signal.SIGKILL)
        wait_until(lambda: len(ledger(tmp_path)) == 2)
        process.kill()
        out, _ = process.communicate(timeout=LIMIT_S)
        assert "attempt 1 of 4 failed: its process was ended by signal 9" in out

    def test_it_idles(self, tmp_path):
        project(tmp_path, "{every: 1h, on_new_span: true, poll: 1s}")
        process = spawn(tmp_path, 0)
        wait_until(lambda: ledger(tmp_path))
        time.sleep(1)
        seen = psutil.Process(process.pid)
        before = seen.cpu_times()
        time.sleep(5)
        after = seen.cpu_times()
        process.terminate()
        process.communicate(timeout=LIMIT_S)
        # Under 1% of a core, where it looks at the spans sixty times as often as by default; about 0.15% is usual.
        assert after.user + after.system - before.user - before.system < 0.05


@pytest.mark.slow
def test_killed_twelve_times_at_random_nothing_is_lost_and_nothing_done_twice(tmp_path):
    """Spans come one by one; the scheduler, its run or both are killed again and again."""
    draw = random.Random(0)
    project(tmp_path, "{every: 1s, retries: {first: 1s, longest: 1s, attempts: 9}, max_consecutive_failures: 99}")
    places = Places(tmp_path / "workspace")
    process = spawn(tmp_path, 0.5)
    for number in range(2, 8):
        deliver(tmp_path, str(number))
        for _ in range(2):
            time.sleep(draw.uniform(0, 2.5))
            what = draw.choice(["scheduler", "run", "both"])
            running = state.read(places.state).running
            if what != "scheduler" and running is not None and running.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(running.pid, signal.SIGKILL)
            if what != "run":
                process.kill()
                process.communicate()
                process = spawn(tmp_path, 0.5)
        wait_until(lambda number=number: str(number) in state.read(places.state).settled)
    # One that was only just started does not listen to SIGTERM yet.
    wait_until(lambda: json.loads(places.heartbeat.read_text())["pid"] == process.pid)
    process.terminate()
    out, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, out
    remembered = state.read(places.state)
    assert remembered.running is None
    published = [ended.span for ended in remembered.ended if ended.result == "published"]
    assert len(published) == len(set(published))
    assert set(published) >= {str(number) for number in range(2, 8)}
    wait_until(lambda: not [one for one in psutil.process_iter() if str(tmp_path) in _command_line(one)])


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
