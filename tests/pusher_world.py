"""A small world for the Pusher's tests: models that look like SavedModels, and an empty base path."""

from __future__ import annotations

import os
from pathlib import Path

from evergreen.components.pusher import publish, versions


def make_model(path: Path, size: int = 2000) -> Path:
    (path / "variables").mkdir(parents=True)
    (path / "assets").mkdir()
    (path / "saved_model.pb").write_text(f"graph of {path}")
    (path / "variables" / "variables.index").write_text("index")
    (path / "variables" / "variables.data-00000-of-00001").write_bytes(os.urandom(size))
    (path / "assets" / "carrier").write_text("AA\n")
    return path


def tree(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


class Project:
    """A workspace with models 1, 2, ... and an empty base path, the one of `project_world`'s YAML."""

    def __init__(self, root: Path):
        self.root = root
        self.base = root / "serving" / "flights"
        self.lite = root / "serving" / "flights_lite"
        self.now = 1000.0

    def candidate(self, number: int, tflite: bool = True) -> publish.Candidate:
        home = self.root / "models" / str(number)
        if not home.exists():
            make_model(home / "Format-Serving")
            (home / "model.tflite").write_bytes(f"tflite {number}".encode())
        return publish.Candidate(
            saved_model=home / "Format-Serving",
            model_artifact_id=number,
            model_uri=str(home),
            name="flights",
            run=f"run-{number}",
            span=number,
            span_version=1,
            model_created=number * 1000,
            pushed_by="31",
            metrics={"auc": 0.6 + number / 100},
            champion_on_span={"auc": 0.6} if number > 1 else None,
            tflite=home / "model.tflite" if tflite else None,
            tflite_variant="dynamic_int8",
        )

    def push(self, number: int, *, tflite: bool = True, keep: int = 3, **kwargs) -> publish.Outcome:
        self.now += 1
        return publish.publish(self.base, self.candidate(number, tflite), keep=keep, now=lambda: self.now, **kwargs)

    def held(self) -> tuple[list[int], list[int]]:
        return list(versions.list_entries(self.base)), list(versions.list_entries(self.lite))
