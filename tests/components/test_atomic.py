"""Whole files and whole directories, or nothing."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from evergreen.components import atomic


def tree(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


@pytest.fixture
def umask_022():
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_write_file_replaces_and_leaves_nothing_beside_it(tmp_path):
    target = tmp_path / "state"
    atomic.write_file(target, "one")
    atomic.write_file(target, b"two")
    assert tree(tmp_path) == {"state": b"two"}


def test_write_file_that_fails_keeps_the_earlier_contents(tmp_path, monkeypatch):
    target = tmp_path / "state"
    atomic.write_file(target, "one")

    def full(descriptor, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        atomic.write_file(target, "two")
    assert tree(tmp_path) == {"state": b"one"}


def test_write_file_finishes_short_writes(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    atomic.write_file(tmp_path / "state", "0123456789")
    assert (tmp_path / "state").read_text() == "0123456789"


def test_others_may_read_what_is_written(tmp_path, umask_022):
    atomic.write_file(tmp_path / "state", "x")
    with atomic.new_directory(tmp_path / "directory") as staging:
        (staging / "file").write_text("x")
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "directory").stat().st_mode) == 0o755


def test_copy_tree_copies_contents_and_never_links(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "variables" / "deep").mkdir(parents=True)
    (source / "empty").mkdir()
    (source / "variables" / "deep" / "data").write_bytes(os.urandom(3000))
    (source / "private").write_text("x")
    (source / "private").chmod(0o600)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("linked")
    (source / "link").symlink_to(tmp_path / "elsewhere" / "file")
    (source / "linked_directory").symlink_to(tmp_path / "elsewhere")
    target.mkdir()
    atomic.copy_tree(source, target)
    assert tree(target) == {
        "variables/deep/data": (source / "variables/deep/data").read_bytes(),
        "private": b"x",
        "link": b"linked",
        "linked_directory/file": b"linked",
    }
    assert (target / "empty").is_dir()
    for path in target.rglob("*"):
        assert not path.is_symlink()
        assert path.is_dir() or path.stat().st_nlink == 1
    assert (target / "private").stat().st_mode & 0o044 == 0o044 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_copy_tree_syncs_every_file_and_directory(tmp_path, monkeypatch):
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "variables").mkdir(parents=True)
    (source / "a").write_text("a")
    (source / "variables" / "b").write_text("b")
    target.mkdir()
    synced = set()
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.add(os.readlink(f"/proc/self/fd/{descriptor}")))
    atomic.copy_tree(source, target)
    assert synced == {str(target / name) for name in ("a", "variables", "variables/b")} | {str(target)}


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        atomic.copy_file(tmp_path / "pipe", tmp_path / "copy")


def test_new_directory_is_seen_only_when_it_is_whole(tmp_path):
    target = tmp_path / "7"
    with atomic.new_directory(target) as staging:
        (staging / "sub").mkdir()
        (staging / "sub" / "file").write_text("x")
        assert not target.exists()
        assert staging.parent == tmp_path and staging.name.startswith(".")
    assert tree(tmp_path) == {"7/sub/file": b"x"}


def test_new_directory_leaves_nothing_after_an_exception(tmp_path):
    def fill(staging):
        (staging / "file").write_text("x")
        raise RuntimeError

    with pytest.raises(RuntimeError), atomic.new_directory(tmp_path / "7") as staging:
        fill(staging)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["directory", "file", "dangling link"])
def test_commit_never_replaces(tmp_path, kind):
    target = tmp_path / "7"
    if kind == "directory":
        target.mkdir()  # os.rename alone would replace it without a word
    elif kind == "file":
        target.write_text("x")
    else:
        target.symlink_to("nowhere")
    staging = atomic.stage(target)
    with pytest.raises(FileExistsError):
        atomic.commit(staging, target)


def test_remove_hides_before_it_deletes(tmp_path, monkeypatch):
    target = tmp_path / "7"
    target.mkdir()
    (target / "file").write_text("x")

    def killed(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        atomic.remove(target)
    assert [p.name[0] for p in tmp_path.iterdir()] == ["."]
    monkeypatch.undo()
    assert len(atomic.sweep(tmp_path)) == 1
    assert list(tmp_path.iterdir()) == []


def test_sweep_takes_leftovers_only(tmp_path):
    for name in ("7", ".staging-8-1-ab", ".removed-6-1-ab", ".evergreen"):
        (tmp_path / name).mkdir()
    (tmp_path / ".staging-.highest-version-1-ab").write_text("9")
    (tmp_path / ".highest-version").write_text("8")
    (tmp_path / ".staging-link").symlink_to(tmp_path / "7")
    assert len(atomic.sweep(tmp_path)) == 4
    assert sorted(p.name for p in tmp_path.iterdir()) == [".evergreen", ".highest-version", "7"]
    assert atomic.sweep(tmp_path / "missing") == []


def test_sweep_of_one_target_leaves_another_writers(tmp_path):
    for name in (".staging-state.json-1-ab", ".staging-resume-1-ab", ".removed-state.json-1-ab"):
        (tmp_path / name).write_text("x")
    assert len(atomic.sweep(tmp_path, "state.json")) == 2
    assert [p.name for p in tmp_path.iterdir()] == [".staging-resume-1-ab"]


def test_make_directory_makes_what_is_missing_above_it(tmp_path):
    atomic.make_directory(tmp_path / "a" / "b" / "c")
    atomic.make_directory(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError):
        atomic.make_directory(tmp_path / "file")
