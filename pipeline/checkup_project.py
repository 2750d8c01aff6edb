"""What is wrong with a project: its files and functions, the places it writes to, its spans, its lock."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from evergreen.components import user_code
from evergreen.components.errors import EvergreenError
from evergreen.pipeline import locks, spans, sqlite_file
from evergreen.pipeline.checkup import Check, Level, disk, existing
from evergreen.pipeline.config import Config, check_files
from evergreen.pipeline.settings import is_uri

IMPORT_SECONDS = 180
CONNECT_SECONDS = 3
_LOAD = """
import sys
from evergreen.components import user_code
from evergreen.components.errors import EvergreenError
for function in sys.argv[2:]:
    try:
        user_code.load(function, sys.argv[1])
    except EvergreenError as error:
        sys.exit(f"{error.headline}: {error.reason}")
"""


def checkup_project(config: Config, with_functions: bool = True) -> Iterator[Check]:
    """Looks at a project.

    Args:
      config: its configuration.
      with_functions: also import the user's functions, in a process of their own; takes as long as TensorFlow does.
    """
    places = {"workspace": config.workspace_dir}
    if not is_uri(config.publish.base_path):
        places["base path"] = Path(config.publish.base_path)
    for name, folder in places.items():
        yield disk(f"disk of the {name}", folder)
        yield writable(name, folder)
    yield metadata(config)
    yield lock(config.lock_path)
    yield data(config)
    files = named_files(config)
    yield files
    if with_functions and files.level is Level.OK:
        yield functions(config)


def _failed(name: str, error: EvergreenError) -> Check:
    return Check(name, Level.FAIL, f"{error.headline}: {error.reason}", error.next_step)


def writable(name: str, folder: Path) -> Check:
    """Tries to write where a folder is, or will be made, and to rename a directory there, as publishing does."""
    parent = existing(folder)
    trial = parent / f".evergreen-doctor-{os.getpid()}-{secrets.token_hex(4)}"
    renamed = trial.with_name(trial.name + "-renamed")
    try:
        trial.mkdir()
        (trial / "file").write_text("trial")
        os.rename(trial, renamed)
        done = renamed.is_dir() and not trial.exists()
    except OSError as error:
        return Check(name, Level.FAIL, f"{parent}: {error.strerror}", f"make {parent} writable for this user")
    finally:
        for leftover in (trial, renamed):
            (leftover / "file").unlink(missing_ok=True)
            if leftover.is_dir():
                leftover.rmdir()
    if not done:
        return Check(name, Level.FAIL, f"{parent}: renaming a directory is not one step", "use a local disk")
    return Check(
        name, Level.OK, f"{folder} can be written" + ("" if parent == folder else " (it is made by the first run)")
    )


def metadata(config: Config) -> Check:
    """Opens the metadata store's file, or reaches its server."""
    place = config.connection
    if place.kind == "sqlite":
        if not os.path.exists(place.path):
            return Check("metadata", Level.OK, "no run yet")
        trouble = sqlite_file.examine(place.path, thorough=True, seconds=CONNECT_SECONDS)
        if trouble is not None:
            return Check("metadata", Level.FAIL, f"{place.path}: {trouble.reason}", trouble.mend)
        return Check("metadata", Level.OK, f"{place.path} is sound")
    try:
        socket.create_connection((place.host, place.port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        return Check("metadata", Level.FAIL, f"{place.describe()}: {error}", "start the server, or correct `metadata`")
    return Check("metadata", Level.OK, f"{place.describe()} answers")


def lock(path: Path) -> Check:
    """Looks whether a run works now."""
    try:
        held = locks.is_held(path)
    except OSError as error:
        return Check("run lock", Level.FAIL, f"{path}: {error.strerror}", "make it writable for this user")
    if held:
        return Check("run lock", Level.WARN, "a run works in this workspace now", "`evergreen status` shows it")
    return Check("run lock", Level.OK, "free")


def data(config: Config) -> Check:
    """Looks for the spans."""
    try:
        found = spans.discover(config.data)
    except EvergreenError as error:
        return _failed("spans", error)
    complete = [span for span in found if span.complete]
    waiting = [span for span in found if not span.complete]
    text = f"{len(complete)} complete"
    if complete:
        text += f", the newest is {complete[-1].name}"
    if not waiting:
        return Check("spans", Level.OK, text)
    text += f"; {len(waiting)} not complete, such as {waiting[-1].name}: {waiting[-1].reason}"
    return Check(
        "spans", Level.WARN if complete else Level.FAIL, text, "deliver the rest, with the marker where one is required"
    )


def named_files(config: Config) -> Check:
    """Looks for the schema and the modules that the configuration names, without importing them."""
    try:
        check_files(config)
    except EvergreenError as error:
        return _failed("files", error)
    return Check("files", Level.OK, "schema and functions are there")


def functions(config: Config) -> Check:
    """Imports the user's functions in a process of their own, so that no crash of theirs comes into this one."""
    named = [
        config.features,
        config.trainer.model,
        config.trainer.run_fn,
        *(extra.function for extra in config.components),
    ]
    wanted = [function for function in named if function is not None]
    try:
        done = subprocess.run(
            [sys.executable, "-c", _LOAD, str(config.project_dir), *wanted],
            capture_output=True,
            text=True,
            timeout=IMPORT_SECONDS,
            env=user_code.child_environment(config.project_dir),
            check=False,
        )
    except subprocess.TimeoutExpired:
        mend = "look for work at import time: data should be read inside of functions"
        return Check("functions", Level.FAIL, f"importing them took more than {IMPORT_SECONDS} s", mend)
    if done.returncode == 0:
        return Check("functions", Level.OK, ", ".join(wanted))
    lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
    found = lines[-1] if lines else f"the process ended with {done.returncode}"
    return Check("functions", Level.FAIL, found, "correct the module")
