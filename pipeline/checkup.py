"""What is wrong with this machine: Python and packages, bytecode, disk, memory, what a server needs.

`checkup_project` looks at the project. A check reads and measures, changes nothing that stays, and imports none of the
heavy packages: their versions come from their metadata.
"""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from pathlib import Path

from packaging.specifiers import SpecifierSet

from evergreen.pipeline.console import size

# What the two supported stacks consist of; requirements/ has the complete sets.
STACKS: Mapping[str, Mapping[str, str]] = {
    "1.16": {
        "python": "==3.10.*",
        "tensorflow": "==2.16.*",
        "tf-keras": "==2.16.*",
        "apache-beam": "<2.66",
        "protobuf": "==3.20.*",
        "numpy": "==1.*",
        "pyarrow": "==10.*",
        "ml-metadata": "==1.16.*",
        "tensorflow-transform": "==1.16.*",
        "tensorflow-data-validation": "==1.16.*",
        "tfx-bsl": "==1.16.*",
    },
    "1.21": {
        "python": ">=3.10,<3.14",
        "tensorflow": "==2.21.*",
        "tf-keras": "==2.21.*",
        "apache-beam": ">=2.69",
        "protobuf": "==6.*",
        "numpy": ">=1.26",
        "pyarrow": ">=14",
        "ml-metadata": "==1.21.*",
        "tensorflow-transform": "==1.21.*",
        "tensorflow-data-validation": "==1.21.*",
        "tfx-bsl": "==1.21.*",
    },
}
NEWEST_STACK, NEWEST_STACK_GLIBC = "1.21", (2, 39)
HEAVY_PACKAGES = ("tfx", "tensorflow", "apache_beam")
_SAMPLE = 300
_GB = 1e9
DISK_FAIL, DISK_WARN = 1 * _GB, 5 * _GB
MEMORY_FAIL, MEMORY_WARN = 1.5 * _GB, 4 * _GB


class Level(str, Enum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """What one look found.

    Attributes:
      name: what was looked at.
      level: how bad it is.
      found: what was found.
      mend: what to do about it; empty where nothing needs doing.
    """

    name: str
    level: Level
    found: str
    mend: str = ""


def checkup() -> Iterator[Check]:
    """Looks at the machine."""
    yield from packages()
    yield c_library()
    yield bytecode()
    yield memory()
    yield model_server()


def _installed(package: str) -> str | None:
    if package == "python":
        return platform.python_version()
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def packages() -> Iterator[Check]:
    """Compares Python's and the packages' versions with the supported stacks."""
    tfx = _installed("tfx")
    stack = next((name for name in STACKS if tfx is not None and tfx.startswith(name + ".")), None)
    if stack is None:
        supported = " or ".join(f"tfx {name}" for name in STACKS)
        yield Check(
            "stack", Level.FAIL, f"tfx {tfx}" if tfx else "tfx is not installed", f"install {supported}: make setup"
        )
        return
    wrong = []
    for package, wanted in STACKS[stack].items():
        version = _installed(package)
        if version is None or not SpecifierSet(wanted).contains(version, prereleases=True):
            wrong.append(f"{package} {version or 'is missing'}, expected {wanted}")
    if wrong:
        mend = f"install the pins of requirements/tfx-{stack}.txt: make setup"
        yield Check("stack", Level.FAIL, f"tfx {tfx}: " + "; ".join(wrong), mend)
    else:
        found = f"tfx {tfx}, TensorFlow {_installed('tensorflow')}, Python {_installed('python')}"
        yield Check("stack", Level.OK, found)


def c_library() -> Check:
    """Looks whether the C library is new enough for the installed stack's wheels."""
    name, text = platform.libc_ver()
    version = tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
    tfx = _installed("tfx") or ""
    if name != "glibc" or len(version) < 2:
        return Check(
            "C library",
            Level.WARN,
            f"{name or 'unknown'} {text}".strip(),
            "the wheels are made for glibc (Debian, Ubuntu)",
        )
    if tfx.startswith(NEWEST_STACK + ".") and version < NEWEST_STACK_GLIBC:
        needed = ".".join(map(str, NEWEST_STACK_GLIBC))
        return Check(
            "C library",
            Level.FAIL,
            f"glibc {text}, tfx {tfx} needs {needed}",
            "use tfx 1.16 on this system: make setup",
        )
    return Check("C library", Level.OK, f"glibc {text}")


def bytecode() -> Check:
    """Looks whether the heavy packages are compiled; without bytecode each run compiles them anew."""
    bare = []
    for package in HEAVY_PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            continue
        folder = Path(next(iter(spec.submodule_search_locations)))
        sources = list(islice((path for path in _sources(folder)), _SAMPLE))
        compiled = sum(os.path.exists(importlib.util.cache_from_source(path)) for path in sources)
        if sources and compiled < 0.9 * len(sources):
            bare.append((package, compiled / len(sources), folder.parent))
    if not bare:
        return Check("bytecode", Level.OK, "compiled")
    found = ", ".join(f"{package} {share:.0%}" for package, share, _ in bare) + " compiled"
    flag = "env -u PYTHONDONTWRITEBYTECODE " if sys.dont_write_bytecode else ""
    mend = f"{flag}{sys.executable} -m compileall -q -j 0 {bare[0][2]}"
    return Check(
        "bytecode",
        Level.WARN,
        f"{found}: each command compiles the rest anew, which takes longer than loading it",
        mend,
    )


def _sources(folder: Path) -> Iterator[str]:
    """Yields a package's source files, those of its upper folders first, where imports begin."""
    for directory, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        yield from (os.path.join(directory, name) for name in sorted(names) if name.endswith(".py"))


def memory() -> Check:
    """Looks at the memory that a process may still take, within the limit of a container."""
    available = _available_memory()
    if available is None:
        return Check("memory", Level.OK, "unknown on this system")
    found = f"{size(available)} available"
    mend = "close other programs, raise the container's limit, or lower trainer.global_batch_size"
    if available < MEMORY_FAIL:
        return Check("memory", Level.FAIL, found + ", TensorFlow and TFX need 1.5 GB before any data", mend)
    if available < MEMORY_WARN:
        return Check("memory", Level.WARN, found, mend)
    return Check("memory", Level.OK, found)


def _available_memory(proc: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> float | None:
    try:
        lines = dict(line.split(":", 1) for line in proc.read_text().splitlines() if ":" in line)
        available = float(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    try:
        limit = float((cgroup / "memory.max").read_text())
        used = float((cgroup / "memory.current").read_text())
    except (OSError, ValueError):  # no limit: the file says `max`
        return available
    return min(available, limit - used)


def model_server() -> Check:
    """Looks for TensorFlow Serving's own server."""
    path = shutil.which("tensorflow_model_server")
    if path:
        return Check("model server", Level.OK, path)
    return Check("model server", Level.OK, "no tensorflow_model_server on PATH; the built-in server is used")


def disk(name: str, folder: Path) -> Check:
    """Looks at the free space of the disk on which a folder lies, or will.

    Args:
      name: what the folder is to the user.
      folder: the folder.
    """
    free = shutil.disk_usage(existing(folder)).free
    found = f"{size(free)} free for {folder}"
    mend = "remove what is not needed there, or move it to another disk"
    if free < DISK_FAIL:
        return Check(name, Level.FAIL, found, mend)
    return Check(name, Level.WARN if free < DISK_WARN else Level.OK, found, mend if free < DISK_WARN else "")


def existing(folder: Path) -> Path:
    """Returns the folder, or the nearest above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.is_dir())
