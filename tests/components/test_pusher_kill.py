"""SIGKILL at every step of a push that changes the file system: complete versions only, and the next push mends it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from evergreen.components.pusher import publish, versions
from evergreen.components.pusher.manifest import MANIFEST_FILE, read_manifest

CHILD = Path(__file__).with_name("publish_child.py")
LEAST_KILL_POINTS = 50


def make_model(path: Path, content: str) -> Path:
    """Writes files that look like a SavedModel; one is longer than the chunk in which the child copies."""
    (path / "variables").mkdir(parents=True)
    (path / "assets").mkdir()
    (path / "saved_model.pb").write_text(f"graph of {content}")
    (path / "variables" / "variables.index").write_text(f"index of {content}")
    (path / "variables" / "variables.data-00000-of-00001").write_bytes(content.encode() * 600)
    (path / "assets" / "carrier").write_text("AA\nUA\n")
    return path


def tree(path: Path) -> dict[str, bytes]:
    files = {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}
    files.pop(MANIFEST_FILE, None)
    return files


class World:
    """Three models and a base path; `at_start` says how many of them are published before the push that is killed."""

    def __init__(self, root: Path, at_start: int):
        self.base = root / "serving" / "m"
        self.lite = root / "serving" / "m_lite"
        self.models = {i: make_model(root / f"model{i}", f"model {i}") for i in (1, 2, 3, 4)}
        self.tflites = {}
        for i in self.models:
            self.tflites[i] = root / f"model{i}.tflite"
            self.tflites[i].write_bytes(f"tflite {i}".encode() * 400)
        for i in range(1, at_start + 1):
            self.push(i, now=100.0 + i)
        self.before = versions.live_version(self.base)
        self.template = root / "template"
        if self.base.exists():
            shutil.copytree(self.base.parent, self.template)

    def reset(self) -> None:
        shutil.rmtree(self.base.parent, ignore_errors=True)
        if self.template.exists():
            shutil.copytree(self.template, self.base.parent)

    def push(self, model: int, now: float) -> publish.Outcome:
        candidate = publish.Candidate(
            saved_model=self.models[model],
            model_artifact_id=model,
            model_uri=f"/workspace/model/{model}",
            name="kill",
            run="a-run",
            span=1,
            tflite=self.tflites[model],
            tflite_variant="dynamic_int8",
        )
        return publish.publish(self.base, candidate, keep=2, now=lambda: now)

    def order(self, kill_at: int) -> str:
        paths = {"base": str(self.base), "model": str(self.models[3]), "tflite": str(self.tflites[3])}
        return json.dumps({**paths, "id": 3, "kill_at": kill_at, "now": 1000.0})

    def check_complete(self) -> None:
        """Every version that a server could load is whole, in both base paths."""
        for version, path in versions.list_entries(self.base).items():
            manifest = read_manifest(path)
            assert manifest is not None and manifest.version == version
            assert tree(path) == tree(self.models[manifest.model_artifact_id])
        for version, path in versions.list_entries(self.lite).items():
            manifest = read_manifest(path)
            assert manifest is not None and manifest.version == version
            assert tree(path) == {"model.tflite": self.tflites[manifest.model_artifact_id].read_bytes()}

    def leftovers(self) -> list[str]:
        return [p.name for p in self.base.parent.rglob(".*") if p.name.startswith((".staging", ".removed"))]


@pytest.fixture
def child():
    process = subprocess.Popen([sys.executable, str(CHILD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(order: str) -> int:
        process.stdin.write(order + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())["status"]

    yield run
    process.stdin.close()
    assert process.wait(30) == 0


@pytest.fixture
def memory_path(tmp_path):
    """A folder in memory where the machine has one: the same system calls, five times as fast as a busy disk."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.mark.parametrize("at_start", [0, 2], ids=["first push", "push with retention"])
def test_a_push_killed_at_any_step_leaves_complete_versions_only(memory_path, monkeypatch, child, at_start):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # this process is not killed
    world = World(memory_path, at_start)
    outcomes = {"before the commit": 0, "after the commit": 0, "between the renames": 0}
    kill_at = 0
    while True:
        kill_at += 1
        world.reset()
        status = child(world.order(kill_at))
        if status == 0:
            break
        assert status == -signal.SIGKILL, f"step {kill_at}"

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
        assert list(versions.list_entries(world.base)) == list(versions.list_entries(world.lite))
        assert len(versions.list_entries(world.base)) <= 2
        assert versions.live_version(world.base) == again.version
        assert again.published is not committed
        assert again.version == 1000 if committed else again.version > max(seen, default=0)

        later = world.push(4, now=1000.0)
        assert later.version > again.version
        assert list(versions.list_entries(world.base)) == [again.version, later.version]
        assert list(versions.list_entries(world.lite)) == [again.version, later.version]
        world.check_complete()
    assert kill_at > LEAST_KILL_POINTS
    assert outcomes["before the commit"] and outcomes["after the commit"] and outcomes["between the renames"]


def test_the_child_would_notice_a_step_that_is_not_counted(tmp_path):
    """Guards the guard: a way to change files that the child does not count must stop it."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import publish_child; publish_child.Killer(0).install();"
        "open(sys.argv[2], 'w')"
    )
    done = subprocess.run([sys.executable, "-c", script, str(CHILD.parent), str(tmp_path / "x")], capture_output=True)
    assert done.returncode == 70
    assert b"not counted: open" in done.stderr
