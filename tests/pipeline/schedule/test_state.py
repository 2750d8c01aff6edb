"""What the scheduler remembers survives it, and a file that is not its own is refused."""

from __future__ import annotations

import pytest
from schedule_world import project

from evergreen.components.errors import EvergreenError
from evergreen.pipeline import config as configuration
from evergreen.pipeline.schedule import state
from evergreen.pipeline.schedule.loop import Loop
from evergreen.pipeline.schedule.state import Ended, Job, Pause, Places, Running, State


def test_everything_is_read_as_it_was_written(tmp_path):
    job = Job("cron", 1000.0, "2013-04", 2, 1060.5, decide_only=True)
    remembered = State(
        cursor=1000.0,
        timetable="0 3 * * * UTC",
        slots=(900.0, 1000.0),
        queue=(job, Job("every", 1100.0)),
        running=Running(job, "2013-04", "files", 1001.0, "/w/result.json", 77, 1001.5),
        failures=2,
        paused=Pause(1002.0, "a reason", True, "digest"),
        settled={"2013-03": "files"},
        watched={"2013-04": "files"},
        seen=("2013-04", "files"),
        said="nothing",
        late="2013-02",
        stale=7,
        last_success=999.0,
        ended=(Ended("cron", 900.0, "published", 950.0, "2013-03", "r1", 7, "", 1, 50.0),),
        counts={"published": 1},
        seconds=50.0,
        outbox=({"id": "a", "event": "published", "version": 7},),
    )
    state.write(tmp_path / "state.json", remembered)
    assert state.read(tmp_path / "state.json") == remembered


def test_a_first_start_remembers_nothing(tmp_path):
    assert state.read(tmp_path / "state.json") == State()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 99}', '{"format": 1, "cursor": 1}'])
def test_another_file_is_refused_with_a_way_out(tmp_path, text):
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(EvergreenError) as refused:
        state.read(tmp_path / "state.json")
    assert str(tmp_path / "state.json") in refused.value.reason
    assert "move the file away" in refused.value.next_step


def test_what_is_kept_has_an_end():
    remembered = State()
    for number in range(1000):
        remembered = remembered.with_slots([float(number)])
        remembered = remembered.with_settled(str(number), "files").with_watched(str(number), "files")
        remembered = remembered.with_ended(Ended("every", float(number), "nothing", float(number)))
    kept = (remembered.slots, remembered.settled, remembered.watched, remembered.ended)
    assert max(len(one) for one in kept) <= 100
    assert remembered.counts == {"nothing": 1000}
    assert "999" in remembered.settled


def test_a_start_removes_what_a_killed_scheduler_and_its_run_had_half_written(tmp_path):
    file = project(tmp_path)
    places = Places(configuration.load(str(file)).workspace_dir)
    places.folder.mkdir(parents=True)
    state.write(places.state, State(running=Running(Job("every", 0.0), "1", "files", 0.0, str(places.result("a")))))
    for name in (".staging-state.json-1-ab", ".staging-result-a.json-1-ab", "result-a.json"):
        (places.folder / name).write_text("{")
    (places.folder / ".staging-resume-1-ab").write_text("another process writes this")
    loop = Loop(lambda: configuration.load(str(file)), lambda config, running: ["false"], lambda line: None)
    loop.stop()
    assert loop.run() == 0
    assert sorted(path.name for path in places.folder.iterdir() if "json" in path.name) == [
        "heartbeat.json",
        "state.json",
    ]
    assert (places.folder / ".staging-resume-1-ab").exists()
