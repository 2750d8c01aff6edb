"""What the Pusher's kill tests share: models, a base path, and a process that is killed at one call after the other."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from evergreen.components.pusher import publish, versions
from evergreen.components.pusher.manifest import MANIFEST_FILE, read_manifest

CHILD = Path(__file__).parent / "components" / "publish_child.py"
# What the child adds to a version, or finds in one that is restored.
EXTRAS = (MANIFEST_FILE, versions.WARMUP_FILE)


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
    return {name: content for name, content in files.items() if name not in EXTRAS}


class World:
    """Four models and a base path; `at_start` says how many of them are published before the action that is killed."""

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
        self.keep_as_template()

    def keep_as_template(self) -> None:
        shutil.rmtree(self.template, ignore_errors=True)
        if self.base.exists():
            shutil.copytree(self.base.parent, self.template)

    def reset(self) -> None:
        shutil.rmtree(self.base.parent, ignore_errors=True)
        if self.template.exists():
            shutil.copytree(self.template, self.base.parent)

    def push(self, model: int, now: float, tflite: bool = True) -> publish.Outcome:
        candidate = publish.Candidate(
            saved_model=self.models[model],
            model_artifact_id=model,
            model_uri=f"/workspace/model/{model}",
            name="kill",
            run="a-run",
            span=1,
            tflite=self.tflites[model] if tflite else None,
            tflite_variant="dynamic_int8",
            withdraw_tflite=not tflite,
        )
        return publish.publish(self.base, candidate, keep=2, now=lambda: now)

    def order(self, action: str, **values: Any) -> dict[str, Any]:
        paths = {"base": str(self.base), "model": str(self.models[3]), "tflite": str(self.tflites[3])}
        return {"action": action, **paths, "id": 3, "now": 1000.0, **values}

    def held(self) -> tuple[list[int], list[int]]:
        return list(versions.list_entries(self.base)), list(versions.list_entries(self.lite))

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


@contextmanager
def killable() -> Iterator[Callable[[dict[str, Any]], dict[str, Any]]]:
    """Starts the process that acts and is killed; gives a function that takes an order and returns its outcome."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, str(CHILD)], stdin=pipe, stdout=pipe, text=True) as one:
        assert one.stdin is not None and one.stdout is not None
        why_not = json.loads(one.stdout.readline())["why_not"]

        def run(order: dict[str, Any]) -> dict[str, Any]:
            one.stdin.write(json.dumps(order) + "\n")
            one.stdin.flush()
            return json.loads(one.stdout.readline())

        try:
            if why_not:
                pytest.skip(why_not)
            yield run
        finally:
            one.stdin.close()
            assert one.wait(30) == 0


@contextmanager
def in_memory(otherwise: Path) -> Iterator[Path]:
    """Gives a folder in memory where the machine has one: the same system calls, five times as fast as a busy disk."""
    if not os.access("/dev/shm", os.W_OK):
        yield otherwise
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def every_kill(world: World, child: Callable, order: dict[str, Any]) -> Iterator[list[str]]:
    """Kills at one call after the other and yields the names of all up to there, until the action comes to its end."""
    kill_at = 0
    while True:
        kill_at += 1
        world.reset()
        outcome = child({**order, "kill_at": kill_at})
        if outcome["status"] == 0:
            assert kill_at == len(outcome["calls"]) + 1
            return
        assert outcome["status"] == -signal.SIGKILL, f"{kill_at}: {outcome}"
        yield outcome["calls"]
