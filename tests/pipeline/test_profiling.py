"""The profile of a run: the split sums up, and the trace is one that trace viewers open."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import math
import subprocess
import sys
import threading
import time

import pytest

from evergreen.pipeline.console import Console
from evergreen.pipeline.profiling import sampler, split, trace
from evergreen.pipeline.profiling.parts import Frame, Part
from evergreen.pipeline.profiling.sampler import INTERVAL_S, Mark, Recording, Sampler, Seen, Tick
from evergreen.pipeline.profiling.session import Profile

MAIN, WORKER = 1, 2
COMMAND = Frame("evergreen.pipeline.commands.run", "command", 1)
WORK = (COMMAND, Frame("numpy", "sort", 5))
IMPORT = (COMMAND, Frame("importlib._bootstrap", "_load_unlocked", 6))
WAIT = (COMMAND, Frame("threading", "wait", 7))
CHILD = (COMMAND, Frame("subprocess", "wait", 8))
DEEPER = (*WORK, Frame("numpy", "partition", 9))


def recording(looks, marks, ended):
    """What would be seen where each look is (time, process' CPU seconds so far, stacks by thread, their CPU so far)."""
    stacks = [WORK, IMPORT, WAIT, CHILD, DEEPER]
    ticks = [
        Tick(at, cpu, 0.0, tuple(Seen(thread, stacks.index(stack), used) for thread, (stack, used) in threads.items()))
        for at, cpu, threads in looks
    ]
    return Recording(MAIN, 0.0, ended, ticks, [Mark(*mark) for mark in marks], stacks, {WORKER: "worker"})


def seconds(rows):
    return {row.stage: {part: round(value, 6) for part, value in row.parts.items() if value} for row in rows}


def test_a_stage_has_what_was_seen_in_it_to_its_very_end():
    seen = recording(
        [(1.0, 1.0, {MAIN: (IMPORT, 1.0)}), (2.0, 2.0, {MAIN: (WORK, 2.0)}), (3.0, 3.0, {MAIN: (IMPORT, 3.0)})],
        [(0.5, "Trainer", MAIN, True), (2.6, "Trainer", MAIN, False)],
        3.25,
    )
    assert seconds(split.rows(seen)) == {
        "(before)": {Part.WORK: 0.5},
        "Trainer": {Part.IMPORTS: 0.5, Part.WORK: 1.6},
        "(between)": {Part.IMPORTS: 0.65},
    }
    assert {row.stage: row.wall for row in split.rows(seen)} == pytest.approx(
        {"(before)": 0.5, "Trainer": 2.1, "(between)": 0.65}
    )


def test_a_thread_that_waits_hands_its_time_to_those_that_run():
    seen = recording(
        [
            (1.0, 1.0, {MAIN: (WAIT, 0.0), WORKER: (IMPORT, 1.0)}),
            (2.0, 2.0, {MAIN: (WAIT, 0.0), WORKER: (WORK, 2.0)}),
            (3.0, 2.0, {MAIN: (WAIT, 0.0), WORKER: (WORK, 2.0)}),  # in a compiled function that waits
        ],
        [(0.0, "Trainer", MAIN, True), (3.0, "Trainer", MAIN, False)],
        3.0,
    )
    assert seconds(split.rows(seen))["Trainer"] == {Part.IMPORTS: 1.0, Part.WORK: 1.0, Part.WAITING: 1.0}


def test_compiled_functions_that_use_no_cpu_wait_unless_the_machine_was_busy():
    idle = [(1.0, 0.0, {MAIN: (WORK, 0.0)}), (2.0, 0.01, {MAIN: (WORK, 0.01)})]
    marks = [(0.0, "Pusher", MAIN, True), (2.0, "Pusher", MAIN, False)]
    seen = recording(idle, marks, 2.0)
    assert seconds(split.rows(seen))["Pusher"] == {Part.WAITING: 2.0}
    seen.ticks = [tick._replace(late=0.9) for tick in seen.ticks]
    assert seconds(split.rows(seen))["Pusher"] == {Part.WORK: 2.0}


def test_waiting_for_a_process_of_ours_is_children_whatever_runs_here():
    looks = [(1.0, 1.0, {MAIN: (CHILD, 0.0), WORKER: (WORK, 1.0)})]
    seen = recording(looks, [(0.0, "Quantizer", MAIN, True), (1.0, "Quantizer", MAIN, False)], 1.0)
    assert seconds(split.rows(seen))["Quantizer"] == {Part.CHILDREN: 1.0}


def test_stages_side_by_side_have_a_row_each():
    looks = [(1.0, 2.0, {MAIN: (WORK, 1.0), WORKER: (IMPORT, 1.0)})]
    marks = [(0.0, "A", MAIN, True), (0.0, "B", WORKER, True), (1.0, "A", MAIN, False), (1.0, "B", WORKER, False)]
    assert seconds(split.rows(recording(looks, marks, 1.0)))["A"] == {Part.WORK: 1.0}
    assert seconds(split.rows(recording(looks, marks, 1.0)))["B"] == {Part.IMPORTS: 1.0}


def test_a_stage_that_never_ended_lasts_to_the_end():
    looks = [(1.0, 1.0, {MAIN: (WORK, 1.0)})]
    rows = split.rows(recording(looks, [(0.5, "Trainer", MAIN, True)], 2.0))
    assert {row.stage: row.wall for row in rows} == {"(before)": 0.5, "Trainer": 1.5}


def test_parts_sum_to_the_wall_time_of_a_real_recording():
    profile = Sampler()
    for stage in ("first", "second"):
        profile.mark(stage, True)
        busy(0.2)
        profile.mark(stage, False)
        time.sleep(0.05)
    rows = split.rows(seen := profile.stop())
    assert [row.stage for row in rows] == ["(before)", "first", "(between)", "second"]
    for row in rows:
        assert math.isclose(sum(row.parts.values()), row.wall, rel_tol=1e-9), row.stage
    assert math.isclose(split.total(rows).wall, seen.ended - seen.began, rel_tol=1e-9)


def busy(for_seconds):
    """Computes for so long by this thread's own CPU time, so that other processes cannot take it away."""
    end = time.thread_time() + for_seconds
    while time.thread_time() < end:
        sum(range(1000))


def test_real_threads_are_told_apart_by_what_they_do():
    profile = Sampler()
    profile.mark("sleeps", True)
    time.sleep(0.5)
    profile.mark("sleeps", False)
    profile.mark("joins", True)
    worker = threading.Thread(target=busy, args=(0.5,))
    worker.start()
    worker.join()
    profile.mark("joins", False)
    profile.mark("child", True)
    subprocess.run(["sleep", "0.5"])
    profile.mark("child", False)
    rows = {row.stage: row for row in split.rows(profile.stop())}
    for stage, part in (("sleeps", Part.WAITING), ("joins", Part.WORK), ("child", Part.CHILDREN)):
        # On a machine with other work a thread waits for its turn too.
        assert rows[stage].parts[part] > 0.15, (stage, rows[stage])
    assert rows["joins"].cpu > 0.2 > rows["sleeps"].cpu


def test_a_long_run_is_looked_at_less_often(monkeypatch):
    monkeypatch.setattr(sampler, "_MANY", 3)
    profile = Sampler()
    time.sleep(1.0)
    looks = len(profile.stop().ticks)
    assert 1 <= looks < 0.5 / INTERVAL_S


def compresses(data):
    return bz2.compress(data, 1)


def test_what_gives_the_interpreters_lock_away_is_not_seen_more_often_than_it_runs():
    data, spent = bytes(range(256)) * 4, {"computes": 0.0, "compresses": 0.0}
    switch_s = sys.getswitchinterval()
    profile = Sampler()
    while sum(spent.values()) < 3.0:
        began = time.thread_time()
        sum(range(100_000))
        between = time.thread_time()
        compresses(data)
        spent["computes"] += between - began
        spent["compresses"] += time.thread_time() - between
    seen = profile.stop()
    assert sys.getswitchinterval() == switch_s
    looks = [{frame.function for frame in seen.stacks[one.stack]} for tick in seen.ticks for one in tick.threads]
    share = sum("compresses" in functions for functions in looks) / len(looks)
    # At Python's own interval it is seen four times as often as it runs.
    assert 0.3 < share / (spent["compresses"] / sum(spent.values())) < 2.5


class Returning:
    """Stands for a frame whose function returns when it is looked at: it tells its caller once."""

    def __init__(self, code, caller):
        self.f_code, self.f_globals, self.caller = code, {}, caller

    @property
    def f_back(self):
        caller, self.caller = self.caller, None
        return caller


def test_a_function_may_return_while_it_is_looked_at():
    stacks = sampler.Stacks()
    frame = Returning(compresses.__code__, Returning(busy.__code__, None))
    number = stacks.number(sampler._stack(frame))
    assert [found.function for found in stacks.all()[number]] == ["busy", "compresses"]


def test_the_sampler_costs_little():
    def deep(levels):
        return busy(1.0) if levels == 0 else deep(levels - 1)

    profile = Sampler()
    began = time.process_time()
    deep(100)
    used = time.process_time() - began
    looks = len(profile.stop().ticks)
    assert looks > 5
    assert (used - 1.0) / looks < 0.05 * INTERVAL_S


def check_trace(value):
    """Checks the format strictly: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU."""
    assert set(value) == {"displayTimeUnit", "traceEvents"}
    assert value["displayTimeUnit"] in ("ms", "ns")
    rows, names = {}, {}
    for event in value["traceEvents"]:
        assert event["ph"] in ("M", "X")
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name", "thread_sort_index")
            if event["name"] == "thread_name":
                names[event["tid"]] = event["args"]["name"]
            continue
        assert set(event) == {"ph", "pid", "tid", "name", "ts", "dur"}
        assert event["name"]
        assert isinstance(event["ts"], int)
        assert isinstance(event["dur"], int)
        assert event["ts"] >= 0
        assert event["dur"] >= 0
        rows.setdefault(event["tid"], []).append(event)
    assert set(rows) <= set(names)
    for events in rows.values():
        open_until: list[int] = []
        for before, event in zip([events[0], *events], events, strict=False):
            assert before["ts"] <= event["ts"]
            while open_until and open_until[-1] <= event["ts"]:
                open_until.pop()
            end = event["ts"] + event["dur"]
            assert not open_until or end <= open_until[-1], f"{event} reaches out of its caller"
            open_until.append(end)
    return {names[row]: events for row, events in rows.items()}


def calls(events):
    return [(event["name"].split(" ")[0], event["ts"] / 1e6, event["dur"] / 1e6) for event in events]


def test_the_trace_shows_stages_parts_and_calls(tmp_path):
    looks = [
        (1.0, 1.0, {MAIN: (WORK, 1.0), WORKER: (WORK, 0.0)}),
        (2.0, 2.0, {MAIN: (DEEPER, 2.0)}),
        (3.0, 3.0, {MAIN: (WORK, 3.0), WORKER: (WORK, 1.0)}),
        (4.0, 4.0, {MAIN: (IMPORT, 4.0)}),
    ]
    seen = recording(looks, [(0.0, "Trainer", MAIN, True), (4.0, "Trainer", MAIN, False)], 4.0)
    for name in ("trace.json", "trace.json.gz"):
        trace.write(seen, tmp_path / name)
    text = (tmp_path / "trace.json").read_text()
    assert gzip.decompress((tmp_path / "trace.json.gz").read_bytes()).decode() == text
    rows = check_trace(json.loads(text))
    assert list(rows) == ["stages", "parts", "main", "worker"]
    assert calls(rows["stages"]) == [("Trainer", 0.0, 4.0)]
    assert calls(rows["parts"]) == [("work", 0.0, 3.0), ("imports", 3.0, 1.0)]
    assert calls(rows["main"]) == [
        ("command", 0.0, 4.0),
        ("sort", 0.0, 3.0),
        ("partition", 1.0, 1.0),
        ("_load_unlocked", 3.0, 1.0),
    ]
    assert calls(rows["worker"]) == [
        ("command", 0.0, 1.0),
        ("sort", 0.0, 1.0),
        ("command", 2.0, 1.0),
        ("sort", 2.0, 1.0),
    ]


def test_a_real_recording_makes_a_valid_trace(tmp_path):
    profile = Sampler()
    profile.mark("Trainer", True)
    worker = threading.Thread(target=busy, args=(0.2,), name="reader")
    worker.start()
    busy(0.2)
    worker.join()
    profile.mark("Trainer", False)
    trace.write(profile.stop(), tmp_path / "trace.json")
    rows = check_trace(json.loads((tmp_path / "trace.json").read_text()))
    assert {"stages", "parts", "main", "reader"} <= set(rows)
    assert any(event["name"].startswith("busy ") for event in rows["reader"])


def test_what_a_user_sees(tmp_path):
    printed = io.StringIO()
    with Profile() as profile:
        for stage in ("Transform", "Window", "Champion"):
            profile.stage(stage, True)
            busy(0.25 if stage == "Transform" else 0.0)
            profile.stage(stage, False)
        profile.end(tmp_path)
        profile.show(Console(printed))
    lines = printed.getvalue().splitlines()
    assert lines[0] == "where the time went, in seconds"
    assert [lines[1].split()[at] for at in (0, 1, -1)] == ["stage", "wall", "CPU"]
    assert "work" in lines[1].split()
    assert [line.split("  ")[0] for line in lines[3:-1]] == ["Transform", "(4 shorter)", "total"]
    assert f"trace: {tmp_path / 'trace.json.gz'} " in lines[-1]
    values = profile.to_json()["stages"]["Transform"]
    assert values["wall"] >= values["work"] > 0.1
    assert "profiler" not in [thread.name for thread in threading.enumerate()]


def test_a_run_without_it_loads_and_starts_nothing_of_it():
    program = """
import sys, threading
import evergreen.pipeline.commands.run, evergreen.pipeline.runner
from evergreen.pipeline.run_log import RunLog
print([name for name in sys.modules if "profiling" in name], [thread.name for thread in threading.enumerate()])
"""
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout == "[] ['MainThread']\n"
