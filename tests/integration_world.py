"""A project in a folder of its own, driven by the real command line: what the integration tests stand on.

The commands run inside the test's process, where TensorFlow is imported once; `spawn` starts one as a process of its
own, for what must be killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

ROOT = Path(__file__).parent.parent
FLIGHTS = ROOT / "examples" / "flights"


@dataclass(frozen=True)
class Answer:
    """What a command answered: its exit status, and all that it printed."""

    status: int
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@contextlib.contextmanager
def _printed_into(path: str) -> Iterator[None]:
    """Sends the file descriptors 1 and 2 into a file for the time of the block."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    stdout, stderr = sys.stdout, sys.stderr
    with open(path, "w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        # pytest's own sys.stdout does not write to the descriptor.
        with (
            open(os.dup(1), "w", buffering=1, encoding="utf-8") as sys.stdout,
            open(os.dup(2), "w", buffering=1, encoding="utf-8") as sys.stderr,
        ):
            try:
                yield
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
    sys.stdout, sys.stderr = stdout, stderr
    os.dup2(saved[0], 1)
    os.dup2(saved[1], 2)
    for descriptor in saved:
        os.close(descriptor)


class Project:
    """A model project.

    Args:
      folder: its folder, which holds evergreen.yaml.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.config_file = folder / "evergreen.yaml"

    @property
    def spans(self) -> Path:
        return self.folder / "data"

    @property
    def base_path(self) -> Path:
        return self.folder / "serving"

    @property
    def workspace(self) -> Path:
        return self.folder / ".evergreen"

    def evergreen(self, *arguments: str) -> Answer:
        """Runs a command in this process."""
        from evergreen.pipeline import cli

        path = list(sys.path)
        with tempfile.NamedTemporaryFile("r", encoding="utf-8") as printed:
            with _printed_into(printed.name):
                status = cli.main([*arguments, "-c", str(self.config_file)])
            # A process of its own would end here; the next project's modules must not be looked for in this one's.
            sys.path[:] = path
            return Answer(status, Path(printed.name).read_text(encoding="utf-8"))

    def spawn(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts a command as a process of its own, with its output in a pipe."""
        command = [str(Path(sys.executable).with_name("evergreen")), *arguments, "-c", str(self.config_file)]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1, start_new_session=True
        )

    def change(self, **sections: Any) -> None:
        """Changes keys of the YAML: a dict updates a section, anything else replaces a key."""
        values = yaml.safe_load(self.config_file.read_text(encoding="utf-8"))
        for name, value in sections.items():
            if isinstance(value, dict) and isinstance(values.get(name), dict):
                values[name].update(value)
            else:
                values[name] = value
        self.config_file.write_text(yaml.safe_dump(values), encoding="utf-8")

    def versions(self) -> list[dict[str, Any]]:
        """What `evergreen versions` lists, newest first."""
        return self.evergreen("versions", "--json").json

    def runs(self) -> list[dict[str, Any]]:
        """What `evergreen runs` lists, newest first."""
        return self.evergreen("runs", "--all", "--json").json

    def store(self) -> Any:
        """The project's metadata store."""
        from evergreen.pipeline.config import load
        from evergreen.pipeline.store import Store

        config = load(self.config_file)
        return Store(config.connection, config.name)

    def states(self) -> set[int]:
        """The states of all executions in ML Metadata; 2 is RUNNING."""
        return {e.last_known_state for e in self.store().mlmd.get_executions()}

    def pushed(self) -> list[int]:
        """The versions of all PushedModel artifacts in ML Metadata, in the order of the pushes."""
        from evergreen.components.span_records import property_value

        artifacts = self.store().mlmd.get_artifacts_by_type("PushedModel")
        assert all(artifact.state == artifact.LIVE for artifact in artifacts)
        return [int(property_value(artifact, "pushed_version")) for artifact in artifacts]

    def published_files(self) -> dict[str, bytes]:
        """Every file in both base paths with its contents."""
        found = {}
        for base in (self.base_path, self.base_path.with_name(self.base_path.name + "_lite")):
            for path in sorted(base.rglob("*")):
                if path.is_file() and path.parent != base:
                    found[str(path.relative_to(self.folder))] = path.read_bytes()
        return found


def flights_data() -> Any:
    """Returns the example's module `data`."""
    sys.path.insert(0, str(FLIGHTS))
    try:
        import data

        return data
    finally:
        sys.path.remove(str(FLIGHTS))


def every_nth(path: Path, step: int) -> None:
    """Thins a Parquet file out to every n-th row, in place."""
    table = pq.read_table(path)
    pq.write_table(table.take(list(range(0, table.num_rows, step))), path)


def flights_project(folder: Path, steps: int = 60, **trainer: Any) -> Project:
    """Makes a small copy of the flights example: its functions and schema, few steps, no data yet.

    Args:
      folder: where; it may exist.
      steps: training steps.
      **trainer: more keys of the section `trainer`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("evergreen.yaml", "features.py", "model.py"):
        shutil.copy(FLIGHTS / name, folder / name)
    schema = (ROOT / "schemas" / "flights" / "schema.pbtxt").read_text(encoding="utf-8")
    # The thresholds of drift are for whole months; a few hundred flights differ by chance.
    (folder / "schema.pbtxt").write_text(re.sub(r"threshold: [0-9.]+", "threshold: 0.9", schema), encoding="utf-8")
    project = Project(folder)
    project.change(
        workspace=".evergreen",
        schema="schema.pbtxt",
        data={"path": "data", "min_rows": 500},
        trainer={"steps": steps, "early_stopping": None, **trainer},
        # A model of a minute is no good model: the gates' own tests judge it, these runs are to publish.
        evaluate={"min": {"auc": 0.3}, "max_regression": {"auc": 0.4}},
        quantize={"max_drop": {"auc": 0.1}},
        publish={"base_path": "serving"},
    )
    return project


def deliver(project: Project, months: list[int], step: int = 12) -> None:
    """Delivers months of flights, every `step`-th row of them, each finished by its marker."""
    data = flights_data()
    aside = project.folder / "aside"
    data.write_spans(aside, months)
    for month in months:
        every_nth(aside / str(month) / "flights.parquet", step)
        target = project.spans / str(month)
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(aside / str(month), target)
