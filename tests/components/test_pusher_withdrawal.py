"""Withdrawal: of TFLite versions when a new version has none, and of whole versions that did not serve."""

from __future__ import annotations

import dataclasses
import errno
import os

import pytest
from filelock import FileLock
from pusher_world import Project, make_model, tree

from evergreen.components import atomic
from evergreen.components.errors import ConfigError, EvergreenError, LockHeld, ModelRejected
from evergreen.components.pusher import catalog, publish, versions, withdrawal


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


def withdrawing(project, number):
    """A candidate of which no TFLite variant passed."""
    return dataclasses.replace(project.candidate(number, tflite=False), withdraw_tflite=True)


def test_without_a_variant_the_earlier_tflite_versions_are_withdrawn(project):
    project.push(1)
    project.push(2)
    outcome = publish.publish(project.base, withdrawing(project, 3), keep=3, now=lambda: 2000.0)
    assert project.held() == ([1001, 1002, 2000], [])
    assert [word for word in outcome.warnings if "1002" in word]
    assert (project.lite / "withdrawn-1002" / "model.tflite").read_bytes() == b"tflite 2"
    project.now = 3000.0
    project.push(4, keep=2)
    assert project.held() == ([2000, 3001], [3001])
    assert not list(project.lite.glob("withdrawn-*")), "retention took their SavedModels"


def test_a_withdrawal_that_was_killed_is_completed_by_the_next_push(project, monkeypatch):
    project.push(1)
    with monkeypatch.context() as patch:
        # As if killed behind the commit.
        patch.setattr(publish, "finish", lambda base: ())
        publish.publish(project.base, withdrawing(project, 2), keep=3, now=lambda: 2000.0)
    assert project.held() == ([1001, 2000], [1001])
    assert any("Withdrew" in sentence for sentence in publish.recover(project.base))
    assert project.held() == ([1001, 2000], [])


def test_a_withdrawal_whose_version_never_came_is_dropped(project, monkeypatch):
    project.push(1)

    def refuse(staging, target):
        raise OSError(errno.EIO, "Input/output error", str(target))

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "commit", refuse)
        with pytest.raises(EvergreenError):
            publish.publish(project.base, withdrawing(project, 2), keep=3, now=lambda: 2000.0)
    assert publish.recover(project.base) == []
    assert project.held() == ([1001], [1001])
    assert not (project.lite / ".withdraw").exists()


def test_a_withdrawn_version_goes_with_its_pair_and_its_reason_stays(project):
    project.push(1)
    project.push(2)
    files = tree(project.base / "1002")
    path = publish.withdraw(project.base, 1002, "It answered with NaN.", now=lambda: 3000.0)
    assert project.held() == ([1001], [1001])
    assert versions.live_version(project.base) == 1001
    assert path == project.base / "withdrawn-1002" and tree(path) == files
    assert (project.lite / "withdrawn-1002" / "model.tflite").read_bytes() == b"tflite 2"
    (withdrawn,) = withdrawal.list_withdrawn(project.base).values()
    assert (withdrawn.version, withdrawn.reason, withdrawn.path) == (1002, "It answered with NaN.", path)
    assert withdrawn.since == "1970-01-01T00:50:00Z"
    assert catalog.live_manifest(project.base).model_artifact_id == 1, "the champion is the earlier model"


def test_withdrawing_twice_changes_nothing(project):
    project.push(1)
    project.push(2)
    first = publish.withdraw(project.base, 1002, "first reason")
    before = tree(project.base.parent)
    assert publish.withdraw(project.base, 1002, "second reason") == first
    assert tree(project.base.parent) == before


def test_a_version_that_is_not_there_cannot_be_withdrawn(project):
    with pytest.raises(ConfigError, match="no version 7"):
        publish.withdraw(project.base, 7, "")
    assert not project.base.exists()
    project.push(1)
    (project.base / "7").write_text("a file that is named like a version")
    with pytest.raises(ConfigError) as caught:
        publish.withdraw(project.base, 8, "")
    assert "1001" in caught.value.reason
    with pytest.raises(ConfigError):
        publish.withdraw(project.base, 7, "")


def test_its_number_is_never_used_again_and_its_model_not_published_again(project):
    project.push(1)
    project.push(2)
    publish.withdraw(project.base, 1002, "It answered with NaN.")
    project.now = 0.0
    with pytest.raises(ModelRejected, match="version 1002 and withdrawn") as caught:
        project.push(2)
    assert caught.value.reason == "It answered with NaN."
    assert project.push(3).version == 1003
    # A version of somebody else, numbered far ahead.
    make_model(project.base / "5000")
    publish.withdraw(project.base, 5000, "Not ours.")
    assert project.push(4).version == 5001


def test_a_withdrawn_version_that_is_moved_back_goes_again(project):
    project.push(1)
    project.push(2)
    path = publish.withdraw(project.base, 1002, "It answered with NaN.")
    path.rename(project.base / "1002")
    assert any("Withdrew" in sentence for sentence in publish.recover(project.base))
    assert project.held() == ([1001], [1001])
    path.rename(project.base / "1002")
    (project.base / "withdrawn-1002.json").unlink()
    publish.recover(project.base)
    assert project.held() == ([1001, 1002], [1001, 1002]), "without the record it is a version like others"


def test_the_pair_of_the_version_that_is_live_again_comes_back(project):
    """The version without a TFLite model had taken it away."""
    project.push(1)
    publish.publish(project.base, withdrawing(project, 2), keep=3, now=lambda: 2000.0)
    assert project.held() == ([1001, 2000], [])
    publish.withdraw(project.base, 2000, "It does not load.")
    assert project.held() == ([1001], [1001])
    assert (project.lite / "1001" / "model.tflite").read_bytes() == b"tflite 1"


def test_withdrawing_the_only_version_leaves_none(project):
    project.push(1)
    publish.withdraw(project.base, 1001, "It does not load.")
    assert project.held() == ([], [])
    assert catalog.live_manifest(project.base) is None
    assert project.push(2, champion_model_uri="").published


def test_retention_deletes_withdrawn_versions_in_the_end(project):
    for number in (1, 2):
        project.push(number)
    publish.withdraw(project.base, 1002, "It does not load.")
    project.push(3)
    assert list(withdrawal.list_withdrawn(project.base)) == [1002]
    for number in (4, 5):
        project.push(number, keep=2)
    assert project.held()[0] == [1004, 1005]
    assert withdrawal.list_withdrawn(project.base) == {}
    assert not list(project.base.parent.rglob("withdrawn*"))


def test_retention_bounds_how_many_withdrawn_versions_lie_there(project):
    """Night after night a version is withdrawn; the live one stays, and none of the others is older than it."""
    project.push(1)
    for number in (2, 3, 4, 5):
        publish.withdraw(project.base, project.push(number, keep=2).version, "It does not load.")
    project.push(6, keep=2)
    assert list(withdrawal.list_withdrawn(project.base)) == [1004, 1005]
    assert sorted(p.name for p in project.lite.glob("withdrawn-*")) == ["withdrawn-1004", "withdrawn-1005"]


@pytest.mark.parametrize("text", ["", "not JSON", "[]"])
def test_a_record_that_cannot_be_read_counts_all_the_same(project, text):
    project.push(1)
    project.push(2)
    (project.base / "withdrawn-1002.json").write_text(text)
    publish.recover(project.base)
    assert project.held() == ([1001], [1001])
    assert withdrawal.list_withdrawn(project.base)[1002].reason == ""


def test_a_withdrawal_waits_for_a_push_and_gives_up_with_its_own_error(project):
    project.push(1)
    with FileLock(str(project.base / ".publish.lock")), pytest.raises(LockHeld):
        publish.withdraw(project.base, 1001, "", lock_seconds=0.1)
