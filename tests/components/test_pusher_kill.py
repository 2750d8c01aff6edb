"""SIGKILL at every system call that changes files: complete versions only, and whoever comes next mends the rest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import system_calls
from kill_world import World, every_kill, in_memory, killable

from evergreen.components.pusher import publish, versions, withdrawal

LEAST_KILL_POINTS = 50


@pytest.fixture(scope="module")
def child():
    with killable() as run:
        yield run


@pytest.fixture
def memory_path(tmp_path):
    with in_memory(tmp_path) as folder:
        yield folder


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # this process is not killed


@pytest.mark.parametrize("at_start", [0, 2], ids=["first push", "push with retention"])
def test_a_push_killed_at_any_call_leaves_complete_versions_only(memory_path, child, at_start):
    world = World(memory_path, at_start)
    outcomes = {"before the commit": 0, "after the commit": 0, "between the renames": 0}
    most: list[str] = []
    for calls in every_kill(world, child, world.order("push")):
        most = calls
        world.check_complete()
        seen = {*versions.list_entries(world.base), *versions.list_entries(world.lite)}
        live = versions.live_version(world.base)
        committed = live == 1000
        assert committed or live == world.before
        # A SavedModel that can be seen always has its pair. A lone TFLite version was about to be committed, or is the
        # pair of one that retention was deleting.
        assert set(versions.list_entries(world.base)) <= set(versions.list_entries(world.lite))
        lone = versions.lone_lite_versions(world.base)
        assert lone in ([], [1000], [101])
        outcomes["after the commit" if committed else "before the commit"] += 1
        outcomes["between the renames"] += lone == [1000]

        again = world.push(3, now=1000.0)
        world.check_complete()
        assert world.leftovers() == []
        assert world.held()[0] == world.held()[1] and len(world.held()[0]) <= 2
        assert versions.live_version(world.base) == again.version
        assert again.published is not committed
        assert again.version == 1000 if committed else again.version > max(seen, default=0)

        later = world.push(1, now=1000.0)
        assert later.version > again.version
        assert world.held() == ([again.version, later.version], [again.version, later.version])
        world.check_complete()
    assert len(most) > LEAST_KILL_POINTS
    assert {"openat", "write", "fsync", "rename"} <= set(most)
    assert outcomes["before the commit"] and outcomes["after the commit"] and outcomes["between the renames"]


def test_a_push_that_withdraws_the_tflite_versions_killed_at_any_call(memory_path, child):
    world = World(memory_path, 2)
    for _ in every_kill(world, child, world.order("push", tflite=None)):
        world.check_complete()
        committed = versions.live_version(world.base) == 1000
        publish.recover(world.base)
        world.check_complete()
        assert world.leftovers() == []
        assert world.held()[1] == ([] if committed else [101, 102])


def test_a_withdrawal_killed_at_any_call_is_done_or_not(memory_path, child):
    """Version 1000 took the earlier TFLite models away; they come back with the version that is live again."""
    world = World(memory_path, 2)
    world.push(3, now=1000.0, tflite=False)
    world.push(4, now=1001.0)
    world.keep_as_template()
    ends, points = set(), 0
    for version in (1001, 1000):
        for _ in every_kill(world, child, world.order("withdraw", version=version)):
            points += 1
            world.check_complete()
            assert versions.live_version(world.base) in (1000, 1001)
            publish.recover(world.base)
            world.check_complete()
            assert world.leftovers() == []
            withdrawn = list(withdrawal.list_withdrawn(world.base))
            ends.add((version, bool(withdrawn)))
            assert withdrawn in ([], [version])
            assert set(world.held()[0]) == {1000, 1001} - set(withdrawn)
            assert world.held()[1] == ([1001] if 1001 in world.held()[0] else [])
            # Either way the next push gets a number of its own.
            assert world.push(1, now=0.0).version == 1002
    assert ends == {(1001, False), (1001, True), (1000, False), (1000, True)} and points > 20


def test_a_rollback_killed_at_any_call_is_done_and_held_or_not(memory_path, child):
    world = World(memory_path, 2)
    ends, points = set(), 0
    for calls in every_kill(world, child, world.order("rollback")):
        points = len(calls)
        world.check_complete()
        live = versions.live_version(world.base)
        assert live in (102, 1000)
        publish.recover(world.base)
        world.check_complete()
        assert world.leftovers() == []
        assert versions.live_version(world.base) == live
        held = versions.read_hold(world.base)
        assert (held is not None) is (live == 1000), "the hold comes with the version"
        assert world.held()[0] == world.held()[1]
        ends.add(live)
    assert ends == {102, 1000} and points > LEAST_KILL_POINTS


def test_a_call_that_nobody_knows_stops_the_run(child):
    """Guards the guard: a way to change files that is in no list must not go by unnoticed."""
    script = (
        "import sys, os; sys.path.insert(0, sys.argv[1]); import system_calls;"
        "system_calls.run(lambda: os.memfd_create('x'), 0)"
    )
    folder = str(Path(system_calls.__file__).parent)
    done = subprocess.run([sys.executable, "-c", script, folder], capture_output=True, text=True)
    assert "change files?" in done.stderr
