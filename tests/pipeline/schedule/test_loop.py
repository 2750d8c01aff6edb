"""The loop with real processes, most of them on a clock that the test moves."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
from schedule_world import deliver, project, utc

from evergreen.pipeline import config as configuration
from evergreen.pipeline.run_result import RunResult
from evergreen.pipeline.schedule import state
from evergreen.pipeline.schedule.loop import Loop
from evergreen.pipeline.schedule.project import live_version
from evergreen.pipeline.schedule.state import Places

START = utc(2013, 4, 1, 12)
LIMIT_S = 60.0
# A run that takes no time: leaves a temporary file, writes a line into a ledger, then its result, and ends.
RUN = """
import json, os, sys, time
open(os.path.join(os.environ["TMPDIR"], "left"), "w").close()
ledger, span, scheduled, trigger, result_file, result, seconds = sys.argv[1:]
with open(ledger, "a") as file:
    file.write(f"{span} {scheduled} {trigger}\\n")
time.sleep(float(seconds))
if result != "{}":
    with open(result_file, "w") as file:
        file.write(result)
"""


class FakeClock:
    """A clock that goes on when somebody waits; real time passes while a process runs."""

    def __init__(self, now: float):
        self.time = now
        self.working = lambda: False

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def wait(self, limit: float) -> None:
        self.time += limit
        if self.working():
            time.sleep(0.01)

    def wake(self) -> None:
        pass


class World:
    """A project with a scheduler over runs that do nothing.

    Args:
      folder: the project's folder.
      schedule: the section, as YAML.
      spans: how many spans there are.
    """

    def __init__(self, folder: Path, schedule: str = "{every: 10s}", spans: int = 1, max_runs: int | None = None):
        self.folder = folder
        self.file = project(folder, schedule, spans=spans)
        self.ledger = folder / "ledger"
        self.places = Places(folder / "workspace")
        self.clock = FakeClock(START)
        self.result: RunResult | None = RunResult("published", "r1", "1", 7)
        self.seconds = 0.0
        self.says: list[str] = []
        self.start(max_runs)

    def start(self, max_runs: int | None = None) -> None:
        """Starts a scheduler, after whatever became of the one before."""
        self.loop = Loop(
            lambda: configuration.load(self.file), self.command, self.says.append, self.clock, max_runs=max_runs
        )
        self.clock.working = lambda: self.loop._work is not None

    def command(self, config, running) -> list[str]:
        job = running.job
        values = {} if self.result is None else self.result.__dict__
        arguments = [self.ledger, running.span, job.scheduled, job.trigger, running.result_file, json.dumps(values)]
        return [sys.executable, "-S", "-c", RUN, *map(str, arguments), str(self.seconds)]

    @property
    def runs(self) -> list[str]:
        return self.ledger.read_text().splitlines() if self.ledger.exists() else []

    def until(self, happened) -> None:
        """Goes round until something happens."""
        end = time.monotonic() + LIMIT_S
        while not happened():
            assert time.monotonic() < end, self.says
            self.loop.turn()
            self.clock.wait(self.loop.pause())

    def remembered(self) -> state.State:
        return state.read(self.places.state)


def test_two_runs_and_the_end(tmp_path):
    world = World(tmp_path, max_runs=2)
    assert world.loop.run() == 0
    # The second time found nothing new, and needed no process.
    assert world.runs == [f"1 {START + 10} every"]
    assert [ended.result for ended in world.remembered().ended] == ["published", "nothing"]


def test_a_new_span_is_trained_on(tmp_path):
    world = World(tmp_path)
    world.until(lambda: len(world.remembered().ended) == 3)
    deliver(tmp_path, "2")
    world.until(lambda: len(world.runs) == 2 and world.loop._work is None)
    assert [run.split()[0] for run in world.runs] == ["1", "2"]


def test_a_crash_is_tried_again_and_leaves_the_scheduler_alive(tmp_path):
    world = World(tmp_path, "{every: 1h, retries: {attempts: 2}}")
    world.result = None  # the process ends without a word
    world.until(lambda: world.remembered().ended)
    assert len(world.runs) == 1
    assert "exit status 0" in world.remembered().ended[-1].reason
    world.result = RunResult("failed", retryable=True, reason="a full disk")
    world.until(lambda: len(world.remembered().ended) == 2)
    assert len(world.runs) == 3
    assert len(set(world.runs[1:])) == 1


def test_a_run_that_takes_too_long_is_ended(tmp_path):
    world = World(tmp_path, "{every: 1h, time_limit: 1m, retries: {attempts: 1}}")
    world.seconds = 600
    world.until(lambda: world.remembered().ended)
    assert "longer than 1m" in world.remembered().ended[-1].reason
    assert psutil.Process().children(recursive=True) == []


def test_a_run_that_needs_too_much_memory_is_ended(tmp_path):
    world = World(tmp_path, "{every: 1h, memory_limit: 1MB}")
    world.seconds = 600
    world.until(lambda: world.remembered().ended)
    assert "more than 1MB of memory" in world.remembered().ended[-1].reason
    assert world.remembered().queue == ()


class TestConfiguration:
    BROKEN = "schedule: {every: soon}\n"

    def test_is_read_again(self, tmp_path):
        world = World(tmp_path, "{every: 1h}")
        world.until(lambda: world.clock.time > START + 60)
        project(tmp_path, "{every: 5m}")
        world.until(lambda: world.runs)
        assert world.runs == [f"1 {START + 300} every"]

    def test_that_is_broken_pauses_until_it_is_mended(self, tmp_path):
        world = World(tmp_path)
        whole = world.file.read_text()
        world.file.write_text(whole[: whole.index("schedule:")] + self.BROKEN)
        world.until(lambda: world.remembered().paused)
        assert "schedule.every" in world.remembered().paused.reason
        assert 'received "soon"' in world.remembered().paused.reason
        world.until(lambda: world.clock.time > START + 600)
        assert world.runs == []
        world.file.write_text(whole)
        world.until(lambda: world.runs)
        assert world.remembered().paused is None

    def test_that_only_the_run_finds_wrong_pauses_until_the_project_changes(self, tmp_path):
        world = World(tmp_path)
        world.result = RunResult("configuration", reason="features.py: no such column")
        world.until(lambda: world.remembered().paused)
        world.until(lambda: world.clock.time > START + 600)
        assert len(world.runs) == 1
        world.result = RunResult("published", "r1", "1", 7)
        (tmp_path / "features.py").write_text("def preprocessing_fn(inputs):\n    return dict(inputs)\n")
        world.until(lambda: len(world.remembered().ended) == 1)
        assert len(world.runs) == 2


def test_failures_pause_and_resume_goes_on(tmp_path):
    world = World(tmp_path, "{every: 1h, max_consecutive_failures: 2}")
    world.result = RunResult("failed", reason="TypeError")
    world.until(lambda: world.remembered().paused)
    assert len(world.runs) == 2
    world.until(lambda: world.clock.time > START + 10 * 3600)
    assert len(world.runs) == 2
    world.result = RunResult("published", "r1", "1", 7)
    world.places.resume.write_text("")
    world.until(lambda: len(world.runs) == 3 and world.loop._work is None)
    assert world.remembered().paused is None
    assert not world.places.resume.exists()


def test_max_runs_and_a_pause_is_a_failure(tmp_path):
    world = World(tmp_path, "{every: 1h, max_consecutive_failures: 1}", max_runs=5)
    world.result = RunResult("failed", reason="TypeError")
    assert world.loop.run() == 1
    assert len(world.runs) == 1


class TestNotifications:
    NOTIFY = "{{every: 1h, notify: [{{command: [{python}, -S, -c, {program!r}], on: [published]}}]}}"

    def schedule(self, tmp_path, program: str) -> str:
        return self.NOTIFY.format(python=sys.executable, program=program)

    def test_are_delivered_and_forgotten(self, tmp_path):
        program = f"import sys; open({str(tmp_path / 'told')!r}, 'a').write(sys.stdin.read() + chr(10))"
        world = World(tmp_path, self.schedule(tmp_path, program), max_runs=1)
        assert world.loop.run() == 0
        (event,) = map(json.loads, (tmp_path / "told").read_text().splitlines())
        assert (event["event"], event["version"], event["span"]) == ("published", 7, "1")
        assert world.remembered().outbox == ()

    def test_that_were_not_delivered_when_the_scheduler_was_killed_are_by_the_next(self, tmp_path):
        waits = "import time; time.sleep(600)"
        world = World(tmp_path, self.schedule(tmp_path, waits))
        world.until(lambda: world.remembered().outbox)
        (event,) = world.remembered().outbox
        tells = f"import sys; open({str(tmp_path / 'told')!r}, 'a').write(sys.stdin.read() + chr(10))"
        project(tmp_path, self.schedule(tmp_path, tells))
        world.start(max_runs=1)
        assert world.loop.run() == 0
        told = [json.loads(line)["id"] for line in (tmp_path / "told").read_text().splitlines()]
        assert told[0] == event["id"]


class TestStop:
    def test_lets_the_run_end_and_starts_no_other(self, tmp_path):
        world = World(tmp_path)
        world.seconds = 0.5
        world.until(lambda: world.loop._work)
        world.loop.stop()
        world.until(world.loop.turn)
        assert [ended.result for ended in world.remembered().ended] == ["published"]

    def test_interrupts_it_when_its_grace_is_over_and_the_next_start_goes_on(self, tmp_path):
        world = World(tmp_path, "{every: 1h, grace: 1m}")
        world.seconds = 600
        world.until(lambda: world.loop._work)
        world.loop.stop()
        world.until(world.loop.turn)
        assert world.clock.time - START < 2 * 3600
        assert world.remembered().ended == ()
        assert len(world.remembered().queue) == 1
        world.seconds = 0
        world.start(max_runs=1)
        assert world.loop.run() == 0
        assert world.runs == [f"1 {START + 3600} every"] * 2


def test_a_full_disk_stops_nothing_for_good(tmp_path, monkeypatch):
    world = World(tmp_path, "{every: 1h}", max_runs=2)
    write, refused = state.write, []

    def sometimes(path, remembered):
        # Once when the run is decided on, and once when it has ended.
        moment = "ended" if remembered.ended else "decided" if remembered.running else ""
        if moment and moment not in refused:
            refused.append(moment)
            raise OSError(28, "No space left on device")
        write(path, remembered)

    monkeypatch.setattr(state, "write", sometimes)
    assert world.loop.run() == 0
    assert refused == ["decided", "ended"]
    assert world.runs == [f"1 {START + 3600} every"]
    assert [ended.result for ended in world.remembered().ended] == ["published", "nothing"]
    assert sum("No space left" in line for line in world.says) == 2


class TestKilled:
    """Between any two lines: what was decided is done once."""

    def test_before_the_process_was_there(self, tmp_path, monkeypatch):
        world = World(tmp_path)
        monkeypatch.setattr(world.loop, "_start", lambda running: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            world.until(lambda: False)
        assert world.remembered().running.pid == 0
        world.start(max_runs=1)
        assert world.loop.run() == 0
        assert world.runs == [f"1 {START + 10} every"]

    def test_after_the_run_had_ended_and_before_that_was_known(self, tmp_path, monkeypatch):
        world = World(tmp_path)
        monkeypatch.setattr(world.loop, "_finish", lambda end: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            world.until(lambda: False)
        world.start(max_runs=1)
        assert world.loop.run() == 0
        assert world.runs == [f"1 {START + 10} every"]
        assert [ended.result for ended in world.remembered().ended] == ["published"]

    def test_a_result_of_an_earlier_run_is_not_taken_for_this_one(self, tmp_path, monkeypatch):
        world = World(tmp_path, "{every: 1h}")
        # The first run's file stays, as after a power cut.
        monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
        world.until(lambda: world.remembered().ended)
        assert len(list(world.places.folder.glob("result-*.json"))) == 1
        deliver(tmp_path, "2")
        monkeypatch.setattr(world.loop, "_start", lambda running: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            world.until(lambda: False)
        monkeypatch.undo()
        world.start(max_runs=1)
        assert world.loop.run() == 0
        assert [run.split()[0] for run in world.runs] == ["1", "2"]
        assert list(world.places.folder.glob("result-*.json")) == []


def test_the_live_version_on_an_object_store_is_the_one_that_was_published_last(tmp_path):
    config = configuration.load(project(tmp_path), ["publish.base_path=gs://no-such-bucket/flights"])
    ended = (state.Ended("cron", 1.0, "published", 2.0, version=7), state.Ended("cron", 3.0, "nothing", 3.0))
    assert live_version(config, state.State(ended=ended)) == (7, 2.0)
    assert live_version(config, state.State()) == (0, 0.0)


def test_monitoring(tmp_path):
    world = World(tmp_path, "{every: 1h, port: 1}".replace("1}", f"{free_port()}}}"))
    try:
        world.until(lambda: world.remembered().ended)
        world.loop.turn()
        with urllib.request.urlopen(f"http://127.0.0.1:{world.loop.endpoint.port}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        assert 'evergreen_runs_total{model="flights",result="published"} 1.0' in text
        beat = json.loads(world.places.heartbeat.read_text())
        assert beat["pid"] == os.getpid()
        assert beat["next_run"] == START + 2 * 3600
    finally:
        world.loop.endpoint.close()


def free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_memory_stays_flat_over_500_ticks_and_the_state_does_not_grow(tmp_path):
    import gc
    import tracemalloc

    world = World(tmp_path, "{every: 10s, on_new_span: true, poll: 10s}")
    world.until(lambda: world.remembered().counts.get("nothing", 0) >= 10)
    tracemalloc.start()
    try:
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(500):
            world.loop.turn()
            world.clock.wait(world.loop.pause())
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert world.clock.time > START + 5000
    assert grown < 200_000
    assert world.places.state.stat().st_size < 50_000


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
