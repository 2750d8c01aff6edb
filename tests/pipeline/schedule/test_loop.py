"""The loop with real runs, on a clock that the test moves."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest
from loop_world import START, World
from schedule_world import deliver, project

from evergreen.components.model_server.process import free_port
from evergreen.pipeline import config as configuration
from evergreen.pipeline.run_result import RunResult
from evergreen.pipeline.schedule import state
from evergreen.pipeline.schedule.project import live_version


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
