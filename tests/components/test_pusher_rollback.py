"""Rollback and release: the earlier model under a new number, publishing held until a person releases it."""

from __future__ import annotations

import dataclasses
import errno
import json
import os

import pytest
from filelock import FileLock
from pusher_world import Project, make_model, tree

from evergreen.components import atomic
from evergreen.components.errors import ConfigError, EvergreenError, LockHeld, ModelRejected
from evergreen.components.pusher import catalog, hold, publish, rollback, versions
from evergreen.components.pusher.manifest import MANIFEST_FILE, read_manifest


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path)
    for number in (1, 2, 3):
        project.push(number)
    return project


def roll_back(project, to=None, **kwargs):
    return rollback.roll_back(project.base, to, now=lambda: 2000.0, **kwargs)


def files(path):
    return {name: content for name, content in tree(path).items() if name != MANIFEST_FILE}


def test_a_rollback_publishes_the_version_before_again_and_holds_publishing(project):
    done = roll_back(project, register=lambda: "77")
    assert (done.version, done.restores, done.was_live, done.warnings) == (2000, 1002, 1003, ())
    assert project.held() == ([1001, 1002, 1003, 2000], [1001, 1002, 1003, 2000])
    for parent in (project.base, project.lite):
        assert files(parent / "2000") == files(parent / "1002")
    manifest, earlier = read_manifest(done.path), read_manifest(project.base / "1002")
    assert manifest == dataclasses.replace(
        earlier, version=2000, published="1970-01-01T00:33:20Z", pushed_by="77", restores=1002
    )
    assert catalog.live_manifest(project.base).model_uri == project.candidate(2).model_uri, "the champion goes back too"
    held = versions.read_hold(project.base)
    assert held.since == "1970-01-01T00:33:20Z" and "1003" in held.reason and "1002" in held.reason
    with pytest.raises(ModelRejected, match="held since 1970-01-01T00:33:20Z"):
        project.push(4)


def test_after_the_release_publishing_goes_on(project):
    roll_back(project)
    released = hold.release(project.base)
    assert "restores version 1002" in released.reason
    assert hold.release(project.base) is None
    # Neither the model that was restored nor the one that was rolled back is published again.
    again, bad = project.push(2), project.push(3)
    assert (again.version, again.published, again.live) == (2000, False, True)
    assert (bad.version, bad.published, bad.live) == (1003, False, False)
    with pytest.raises(ModelRejected, match="another model went live"):
        project.push(4, champion_model_uri=project.candidate(3).model_uri)
    assert project.push(4, champion_model_uri=project.candidate(2).model_uri).version == 2001


def test_any_earlier_version_can_be_named(project):
    assert roll_back(project, 1001).restores == 1001
    assert catalog.live_manifest(project.base).model_artifact_id == 1


def test_going_back_twice_does_not_bring_back_what_the_first_went_away_from(project):
    assert roll_back(project).restores == 1002
    second = roll_back(project)
    assert (second.version, second.restores, second.was_live) == (2001, 1001, 2000)
    with pytest.raises(ConfigError, match="no earlier version"):
        roll_back(project)
    assert roll_back(project, 1003).restores == 1003, "but a person may"


def test_the_tflite_model_that_a_later_version_had_withdrawn_comes_along(project):
    without = dataclasses.replace(project.candidate(4, tflite=False), withdraw_tflite=True)
    publish.publish(project.base, without, keep=4, now=lambda: 1500.0)
    assert project.held()[1] == []
    done = roll_back(project)
    assert (done.restores, project.held()[1]) == (1003, [2000])
    assert (project.lite / "2000" / "model.tflite").read_bytes() == b"tflite 3"
    assert read_manifest(done.path).tflite == {"variant": "dynamic_int8", "bytes": 8}


def test_where_the_restored_version_has_no_tflite_model_the_later_ones_go(project):
    bare = project.push(4, tflite=False)
    project.push(5)
    done = roll_back(project)
    assert done.restores == bare.version and read_manifest(done.path).tflite is None
    assert project.held()[1] == []
    assert any("has no TFLite model" in sentence for sentence in done.warnings)


def test_what_cannot_be_restored_is_refused_with_the_reason(project):
    publish.withdraw(project.base, 1003, "It answered with NaN.")
    make_model(project.base / "77")
    (project.base / "78").mkdir()
    broken = project.push(4).version
    (project.base / str(broken) / "variables" / "variables.index").unlink()
    project.push(5)
    before = tree(project.base.parent)
    for to, reason in (
        (1003, "it was withdrawn at .*: It answered with NaN."),
        (1005, "it is live"),
        (9, "holds 77, 78, 1002, 1004, 1005"),
        (77, "not published by Evergreen"),
        (78, "no saved_model.pb"),
        (broken, "files are missing"),
    ):
        with pytest.raises(ConfigError, match=f"version {to} cannot be restored\n.*{reason}"):
            roll_back(project, to)
    assert tree(project.base.parent) == before


def test_the_model_that_is_live_already_is_refused(project):
    roll_back(project)
    with pytest.raises(ConfigError, match="the live version 2000 holds the same model"):
        roll_back(project, 1002)


def test_nothing_to_go_back_to(tmp_path):
    project = Project(tmp_path)
    with pytest.raises(ConfigError, match="nothing to roll back"):
        roll_back(project)
    assert not project.base.exists()
    project.push(1)
    with pytest.raises(ConfigError, match="no earlier version"):
        roll_back(project)
    assert versions.read_hold(project.base) is None


def test_a_push_does_not_go_on_meanwhile(project):
    with FileLock(str(project.base / ".publish.lock")):
        with pytest.raises(LockHeld):
            roll_back(project, lock_seconds=0.1)
        (project.base / ".hold.json").write_text("{}")
        with pytest.raises(LockHeld):
            hold.release(project.base, lock_seconds=0.1)


def refuse_the_commit(project, monkeypatch):
    rename = os.rename

    def refuse(source, target):
        if str(target) == str(project.base / "2000"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)


@pytest.mark.parametrize("earlier", [None, {"reason": "A person said so.", "since": "2024-05-01T00:00:00Z"}])
def test_a_rollback_that_fails_leaves_the_hold_as_it_was(project, monkeypatch, earlier):
    if earlier:
        (project.base / ".hold.json").write_text(json.dumps(earlier))
    refuse_the_commit(project, monkeypatch)
    with pytest.raises(EvergreenError, match="cannot roll back in") as caught:
        roll_back(project)
    assert "Free some space" in caught.value.next_step
    assert project.held() == ([1001, 1002, 1003], [1001, 1002, 1003])
    held = versions.read_hold(project.base)
    assert (held and (held.reason, held.since)) == (earlier and (earlier["reason"], earlier["since"]))


def test_a_hold_outlives_the_version_that_brought_it(project):
    """Only a person releases it."""
    done = roll_back(project)
    publish.withdraw(project.base, done.version, "It does not load either.")
    publish.recover(project.base)
    assert versions.read_hold(project.base) is not None
    assert versions.live_version(project.base) == 1003
    atomic.remove(project.base / "withdrawn-2000")
    (project.base / "withdrawn-2000.json").unlink()
    publish.recover(project.base)
    assert versions.read_hold(project.base) is not None
