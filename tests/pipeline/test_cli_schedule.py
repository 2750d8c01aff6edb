"""`evergreen schedule`, `status`, `backfill` and a scheduled `run`, as far as they need no TensorFlow."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pusher_world
import pytest
from filelock import FileLock
from schedule_world import deliver, project

from evergreen.components.errors import ConfigError
from evergreen.pipeline import cli
from evergreen.pipeline import config as configuration
from evergreen.pipeline.commands.schedule import child_command
from evergreen.pipeline.run_result import read
from evergreen.pipeline.schedule import state
from evergreen.pipeline.schedule.state import Ended, Job, Pause, Places, Running, State
from evergreen.pipeline.store import Result, Store

HEAVY = ("tensorflow", "apache_beam", "tfx", "tf_keras", "tensorflow_transform", "pandas")


def evergreen(capsys, folder, *arguments: str) -> tuple[int, str, str]:
    status = cli.main([arguments[0], "-c", str(folder / "evergreen.yaml"), *arguments[1:]])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def folder(tmp_path):
    project(tmp_path)
    return tmp_path


class TestSchedule:
    def test_starts_in_two_seconds_of_work_and_imports_nothing_heavy(self, folder):
        program = f"""
import json, re, resource, sys, threading, time
from evergreen.pipeline import cli
from evergreen.pipeline.schedule import loop
def stop(self):
    self.stop()
    return type(self).turned(self)
loop.Loop.turned = loop.Loop.turn
loop.Loop.turn = stop
status = cli.main(["schedule", "-c", {str(folder / "evergreen.yaml")!r}, "--every", "1h"])
used = resource.getrusage(resource.RUSAGE_SELF)
# Not ru_maxrss, which begins with what the parent held.
peak = int(re.search(r"VmHWM:\\s+([0-9]+)", open("/proc/self/status").read())[1])
print(json.dumps([status, [n for n in {HEAVY!r} if n in sys.modules], used.ru_utime + used.ru_stime, peak]))
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        status, heavy, seconds, kilobytes = json.loads(done.stdout.splitlines()[-1])
        assert (status, heavy) == (0, [])
        assert seconds < 2
        assert kilobytes < 200_000
        assert "the next run is due" in done.stdout or "schedules flights" in done.stdout

    def test_a_second_one_is_refused(self, folder, capsys):
        places = Places(folder / "workspace")
        places.folder.mkdir(parents=True)
        with FileLock(str(places.lock)):
            status, _, err = evergreen(capsys, folder, "schedule")
            assert status == 5
            assert "another scheduler is at work" in err

    def test_resume_tells_the_one_that_is_at_work(self, folder, capsys):
        places = Places(folder / "workspace")
        places.folder.mkdir(parents=True)
        with FileLock(str(places.lock)):
            status, out, _ = evergreen(capsys, folder, "schedule", "--resume")
        assert status == 0
        assert "told to go on" in out
        assert places.resume.exists()

    def test_without_a_schedule_it_says_how_to_give_one(self, tmp_path, capsys):
        project(tmp_path, "null")
        status, _, err = evergreen(capsys, tmp_path, "schedule")
        assert status == 2
        assert "--cron or --every" in err

    @pytest.mark.parametrize(
        "arguments", [("--cron", "0 3 * * 9"), ("--every", "soon"), ("--every", "1h", "--cron", "x")]
    )
    def test_wrong_times_are_refused(self, folder, capsys, arguments):
        assert evergreen(capsys, folder, "schedule", *arguments)[0] == 2

    @pytest.mark.parametrize("job", [Job("cron", 1000.0), Job("watch", 1000.0, "2", decide_only=True)])
    def test_the_command_line_of_a_run_is_one_that_run_takes(self, folder, job):
        import click

        config = configuration.load(folder / "evergreen.yaml")
        running = Running(job, "2", "files", 1001.0, str(folder / "result.json"))
        command = child_command(config, ['schedule.cron="* * * * *"', "schedule.every=null"], running)
        at = command.index("run")
        context = cli.cli.get_command(click.Context(cli.cli), "run").make_context("run", command[at + 1 :])
        assert context.params["scheduled_time"] == "1970-01-01T00:16:40Z"
        assert context.params["due_span"] == "2"
        assert context.params["decide_only"] == job.decide_only
        assert context.params["result_file"] == running.result_file
        config = configuration.load(context.params["config_file"], context.params["overrides"])
        assert config.schedule.cron == "* * * * *"


class TestConfiguration:
    @pytest.mark.parametrize(
        ("section", "told"),
        [
            ("{cron: '0 3 31 2 *'}", "names a day that there is not"),
            ("{every: 1h, timezone: Berlin}", "a time zone's name"),
            ("{wait_for_span: 2h}", "expected `cron`, `every`, `on_new_span`, `on_drift` or `on_metric_drop`"),
            ("{every: 1h, memory_limit: 8}", "memory_limit"),
            ("{every: 1h, memory_limit: 8 GB}", "such as `8GB`"),
            ("{on_metric_drop: {rmse: 1}}", "one of `evaluate.metrics`"),
            ("{every: 1h, notify: [{on: [failed]}]}", "`command` or `webhook`"),
            ("{every: 1h, notify: [{command: [x], webhook: 'https://h/'}]}", "`command` or `webhook`"),
            ("{every: 1h, notify: [{command: [x], on: [publised]}]}", "one of `published`"),
        ],
    )
    def test_mistakes_are_named(self, tmp_path, section, told):
        project(tmp_path, section)
        with pytest.raises(ConfigError) as refused:
            configuration.load(tmp_path / "evergreen.yaml")
        assert told in refused.value.reason


class TestStatus:
    def test_shows_what_comes_next_what_waits_and_the_last_runs_with_their_gates(self, folder, capsys):
        places = Places(folder / "workspace")
        places.folder.mkdir(parents=True)
        hour = 3600.0
        remembered = State(
            cursor=time.time(),
            timetable="10s",
            queue=(Job("every", hour, attempt=2, not_before=time.time() + 60),),
            ended=(
                *(Ended("every", n * hour, "nothing", n * hour, "1") for n in range(20)),
                Ended("every", 20 * hour, "published", 20 * hour, "2", "r2", 7),
                Ended("cron", 21 * hour, "data rejected", 21 * hour, "3", reason="span 3 was rejected"),
                Ended("every", 22 * hour, "model rejected", 22 * hour, "4", reason="gate 2 is closed: auc fell"),
            ),
        )
        state.write(places.state, remembered)
        status = json.loads(evergreen(capsys, folder, "status", "--json")[1])["schedule"]
        assert [run["gates"] for run in status["last"][:3]] == ["gate 2 closed", "gate 1 closed", "all passed"]
        assert len(status["last"]) == 10
        assert status["next"] > time.time() * 1000 - 60_000
        assert status["paused"] is None
        assert status["waiting"][0]["attempt"] == 2
        out = evergreen(capsys, folder, "status")[1]
        assert "no scheduler is at work" in out
        assert "waits: the run of" in out
        assert "gate 2 closed" in out

    def test_says_why_it_is_paused(self, folder, capsys):
        places = Places(folder / "workspace")
        places.folder.mkdir(parents=True)
        state.write(places.state, State(paused=Pause(1000.0, "3 runs failed in a row")))
        assert "3 runs failed in a row" in evergreen(capsys, folder, "status")[1]
        assert json.loads(evergreen(capsys, folder, "status", "--json")[1])["schedule"]["next"] is None

    def test_without_a_schedule_there_is_nothing_to_show(self, tmp_path, capsys):
        project(tmp_path, "null")
        assert json.loads(evergreen(capsys, tmp_path, "status", "--json")[1])["schedule"] is None


class TestScheduledRun:
    def test_a_span_that_is_not_there_yet_is_told_as_late(self, tmp_path, capsys):
        project(tmp_path, pattern="{YYYY}-{MM}-{DD}/*.parquet", spans=0)
        deliver(tmp_path, "2013-04-02")
        file = tmp_path / "result.json"
        arguments = ("--scheduled-time", "2013-04-04T03:00:00Z", "--result-file", str(file))
        status, _, err = evergreen(capsys, tmp_path, "run", *arguments)
        assert status == 2
        assert "span 2013-04-03 does not exist" in err
        assert read(file).result == "late"

    def test_a_wrong_time_is_refused(self, folder, capsys):
        status, _, err = evergreen(capsys, folder, "run", "--scheduled-time", "tomorrow")
        assert status == 2
        assert "ISO 8601" in err

    def test_a_broken_yaml_is_told_to_the_scheduler(self, folder, capsys):
        (folder / "evergreen.yaml").write_text("name: [")
        file = folder / "result.json"
        assert evergreen(capsys, folder, "run", "--result-file", str(file))[0] == 2
        assert read(file).result == "configuration"

    def test_so_is_a_held_lock(self, folder, capsys):
        (folder / "workspace").mkdir()
        file = folder / "result.json"
        with FileLock(str(folder / "workspace" / "run.lock")):
            assert evergreen(capsys, folder, "run", "--result-file", str(file))[0] == 5
        assert read(file).result == "locked"


class TestKilledBeforeItsVerdictWasHeard:
    """A run writes its verdict into ML Metadata, then into its result file; it may be killed in between."""

    TIME = "2013-04-04T03:00:00Z"

    @pytest.fixture
    def live(self, tmp_path):
        """Span 1 has arrived, and the live version rests on it."""
        file = project(tmp_path)
        file.write_text(file.read_text().replace("models/flights", "serving/flights"))
        world = pusher_world.Project(tmp_path)
        world.push(1)
        return tmp_path

    def result(self, capsys, folder, result, trigger="cron", scheduled=TIME, **properties):
        """Returns what the next attempt comes to."""
        loaded = configuration.load(folder)
        store = Store(loaded.connection, loaded.name)
        started = {"span": 1, "span_version": 0, "trigger": trigger, "scheduled_time": scheduled}
        store.begin_run("an earlier attempt", started)
        store.end_run("an earlier attempt", result, properties)
        file = folder / "result.json"
        arguments = ("--scheduled-time", self.TIME, "--trigger", "cron", "--due-span", "1", "--result-file", str(file))
        assert evergreen(capsys, folder, "run", *arguments)[0] == 0
        return read(file)

    def test_a_version_is_told(self, live, capsys):
        told = self.result(capsys, live, Result.PUBLISHED, pushed_version=1001, metrics='{"exam": {"auc": 0.7}}')
        assert (told.result, told.run, told.span, told.version) == ("published", "an earlier attempt", "1", 1001)
        assert told.metrics == {"exam": {"auc": 0.7}}

    def test_a_refusal_is_told(self, live, capsys):
        told = self.result(capsys, live, Result.MODEL_REJECTED, reason="gate 2 is closed")
        assert (told.result, told.reason) == ("model rejected", "gate 2 is closed")

    @pytest.mark.parametrize("other", [{"trigger": "manual"}, {"scheduled": "2013-04-03T03:00:00Z"}])
    def test_what_another_run_came_to_is_nothing(self, live, capsys, other):
        assert self.result(capsys, live, Result.PUBLISHED, pushed_version=1001, **other).result == "nothing"


class TestBackfill:
    @pytest.mark.parametrize(
        ("first", "last", "told"),
        [("2", "1", "is newer than"), ("1", "9", "span 9 does not exist"), ("x", "1", "is not a span")],
    )
    def test_a_range_that_is_none_is_refused(self, tmp_path, capsys, first, last, told):
        project(tmp_path, spans=3)
        status, _, err = evergreen(capsys, tmp_path, "backfill", "--from", first, "--to", last)
        assert status == 2
        assert told in err
