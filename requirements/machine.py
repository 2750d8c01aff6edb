"""What this machine has: its C library and so the stack, its Pythons, uv, and the package index that it is set up for.

Used by setup_venv.py before anything is installed, so it needs only the standard library of Python 3.8.
"""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Iterator, NamedTuple, Sequence, Tuple

Version = Tuple[int, int]
OLDEST_UV = (0, 5, 0)


class SetupError(Exception):
    """What is missing, why, and what to do about it: one message of three lines."""

    def __init__(self, headline: str, reason: str, next_step: str) -> None:
        super().__init__(f"{headline}\n  {reason}\n  {next_step}")


class Stack(NamedTuple):
    """A set of pins and the Pythons that it runs on, the preferred one first."""

    name: str
    requirements: str
    pythons: tuple[Version, ...]


class Python(NamedTuple):
    """An interpreter that was really run: its path, version (major, minor), and whether its C headers are there."""

    path: Path
    version: Version
    headers: bool

    @property
    def version_text(self) -> str:
        """The version as people write it, such as `3.10`."""
        return version_text(self.version)


TFX_1_16 = Stack("TFX 1.16", "requirements/tfx-1.16.txt", ((3, 10),))
TFX_1_21 = Stack("TFX 1.21", "requirements/tfx-1.21.txt", ((3, 13), (3, 12), (3, 11), (3, 10)))
AIRFLOW = Stack("Airflow 3", "requirements/airflow.txt", ((3, 12), (3, 13), (3, 11), (3, 10)))

PROBE = """
import os, sys, sysconfig
print(sys.executable)
print(*sys.version_info[:2])
print(int(os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h"))))
"""


def say(text: str) -> None:
    """Tells the user what the set-up does; on stderr, so that commands after it own stdout."""
    print(f"evergreen set-up: {text}", file=sys.stderr, flush=True)


def version_text(version: Sequence[int]) -> str:
    """Returns a version as people write it, such as `3.10`."""
    return ".".join(map(str, version))


def glibc() -> Version | None:
    """Returns the version of the GNU C library, None on a system with another one."""
    try:
        text = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, OSError, ValueError):
        return None
    found = re.fullmatch(r"glibc (\d+)\.(\d+).*", text)
    return (int(found.group(1)), int(found.group(2))) if found else None


def choose_stack(library: Version | None = None) -> Stack:
    """Returns the newest stack whose wheels load here.

    Args:
        library: the version of glibc; this machine's by default.
    """
    library = library or glibc()
    return TFX_1_21 if library is not None and library >= (2, 39) else TFX_1_16


def probe(path: Path) -> Python | None:
    """Runs an interpreter and returns what it says of itself, None where it does not run.

    Running it is the only proof: a shim of pyenv exists for versions that are not active, and fails.

    Args:
        path: the interpreter, or a shim of it.
    """
    try:
        done = subprocess.run(
            [str(path), "-I", "-c", PROBE],
            capture_output=True,
            text=True,
            timeout=30,
            stdin=subprocess.DEVNULL,
            check=True,
        )
        executable, version, headers = done.stdout.split("\n")[:3]
        major, minor = map(int, version.split())
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return Python(Path(executable), (major, minor), headers == "1")


def on_path(version: Version, environment: dict[str, str]) -> Iterator[Path]:
    """Yields the commands on PATH that could be a Python of a version."""
    for name in (f"python{version_text(version)}", "python3", "python"):
        for folder in environment.get("PATH", "").split(os.pathsep):
            path = Path(folder) / name
            if folder and os.access(path, os.X_OK):
                yield path


def in_pyenv(version: Version, environment: dict[str, str]) -> Iterator[Path]:
    """Yields pyenv's Pythons of a version, newest patch first, whether or not pyenv is on PATH."""
    homes = [environment.get("PYENV_ROOT"), str(Path(environment.get("HOME", "/")) / ".pyenv")]
    for home in dict.fromkeys(home for home in homes if home):
        found = (Path(home) / "versions").glob(f"{version_text(version)}.*/bin/python{version_text(version)}")
        yield from sorted(
            found, key=lambda path: [int(part) for part in re.findall(r"\d+", path.parts[-3])], reverse=True
        )


def of_uv(version: Version, uv: Path) -> Iterator[Path]:
    """Yields the Python of a version that uv has installed before."""
    environment = {**os.environ, "UV_PYTHON_PREFERENCE": "only-managed", "UV_PYTHON_DOWNLOADS": "never"}
    done = subprocess.run(
        [str(uv), "python", "find", "--no-project", version_text(version)],
        capture_output=True,
        text=True,
        env=environment,
        cwd="/",
        check=False,
    )
    if done.returncode == 0 and done.stdout.strip():
        yield Path(done.stdout.strip())


def candidates(stack: Stack, uv: Path, environment: dict[str, str]) -> Iterator[Path]:
    """Yields the interpreters that may run a stack: those on PATH, then pyenv's, then uv's."""
    for version in stack.pythons:
        yield from on_path(version, environment)
    for version in stack.pythons:
        yield from in_pyenv(version, environment)
    for version in stack.pythons:
        yield from of_uv(version, uv)


def find_python(stack: Stack, uv: Path) -> Python:
    """Returns a Python for a stack: from PATH, else of pyenv, else uv's own, else one that uv installs.

    Args:
        stack: the stack that it shall run.
        uv: the command.

    Raises:
        SetupError: there is none, and uv could not install one; or there is no C++ compiler.
    """
    check_compiler()
    headless: Python | None = None
    for path in candidates(stack, uv, dict(os.environ)):
        python = probe(path)
        if python is None or python.version not in stack.pythons:
            continue
        if python.headers:
            return python
        headless = headless or python
    return install_python(stack, uv, headless)


def install_python(stack: Stack, uv: Path, headless: Python | None) -> Python:
    """Lets uv download a Python for a stack.

    Args:
        stack: the stack that it shall run.
        uv: the command.
        headless: a Python that would do had it its headers, for the message.

    Raises:
        SetupError: the download failed.
    """
    version = stack.pythons[0]
    wanted = " or ".join(map(version_text, stack.pythons))
    say(f"no Python {wanted} with its headers is here; uv downloads {version_text(version)}")
    done = subprocess.run(
        [str(uv), "python", "install", version_text(version)],
        stdout=sys.stderr,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    for path in of_uv(version, uv) if done.returncode == 0 else ():
        python = probe(path)
        if python is not None:
            return python
    said = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1].strip()
    if headless is not None:
        raise SetupError(
            f"the C headers of Python {headless.version_text} are missing ({headless.path})",
            "A package of TFX (pyfarmhash) is compiled at installation and needs Python.h.",
            f"Install them (Debian, Ubuntu: apt install python{headless.version_text}-dev), then `make setup` again.",
        )
    raise SetupError(
        f"no Python {wanted} was found: not on PATH, not among pyenv's, not among uv's",
        f"{stack.name} is what runs on this machine's C library, and it needs one; uv could not download it: {said}",
        f"Install it with its headers (`pyenv install {version_text(version)}`, or your distribution's packages "
        f"python{version_text(version)} and python{version_text(version)}-dev), then run `make setup` again.",
    )


def check_compiler() -> None:
    """Makes sure that C++ can be compiled.

    Raises:
        SetupError: no compiler is on PATH.
    """
    if not any(map(shutil.which, [*os.environ.get("CXX", "").split()[:1], "c++", "g++"])):
        raise SetupError(
            "no C++ compiler was found",
            "A package of TFX (pyfarmhash) is compiled at installation.",
            "Install one (Debian, Ubuntu: apt install g++), then run `make setup` again.",
        )


def uv_version(uv: Path) -> tuple[int, ...]:
    """Returns a uv's version, (0,) where it does not run."""
    try:
        done = subprocess.run([str(uv), "--version"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return (0,)
    found = re.match(r"uv (\d+)\.(\d+)\.(\d+)", done.stdout)
    return tuple(map(int, found.groups())) if found else (0,)


def find_uv(tools: Path) -> Path:
    """Returns uv: the machine's own where it is new enough, else ours, which is installed where it is not yet there.

    Args:
        tools: the folder of our own.

    Raises:
        SetupError: it can neither be found nor installed.
    """
    ours = tools / "bin" / "uv"
    for path in (shutil.which("uv"), str(ours)):
        if path and uv_version(Path(path)) >= OLDEST_UV:
            return Path(path)
    say("getting uv, which installs the rest")
    said = ""
    for python in pythons_with_pip():
        shutil.rmtree(tools, ignore_errors=True)
        done = subprocess.run([str(python), "-m", "venv", str(tools)], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            install = [str(tools / "bin" / "python"), "-m", "pip", "install"]
        else:  # Debian without python3-venv: its pip, where there is one, can still install into an empty folder
            shutil.rmtree(tools, ignore_errors=True)
            install = [str(python), "-m", "pip", "install", "--target", str(tools)]
        done = subprocess.run(
            [*install, "-qq", f"uv>={version_text(OLDEST_UV)}"],
            capture_output=True,
            text=True,
            env={**os.environ, "PIP_USER": "0"},
            check=False,
        )
        if uv_version(ours) >= OLDEST_UV:
            return ours
        said = (done.stderr.strip().splitlines() or [said])[-1].strip()
    shutil.rmtree(tools, ignore_errors=True)
    raise SetupError(
        "uv, which installs the packages, could not be had",
        f"No uv {version_text(OLDEST_UV)} or newer is on PATH, and pip could not install it: {said}",
        "Install uv, or Python's venv module (Debian, Ubuntu: apt install python3-venv), then run `make setup` again.",
    )


def pythons_with_pip() -> Iterator[Path]:
    """Yields the Pythons to try for a private uv: the one that runs this, then any other that the stacks could use."""
    environment = dict(os.environ)
    seen = {Path(sys.executable).resolve()}
    yield Path(sys.executable)
    for version in TFX_1_21.pythons:
        for path in (*on_path(version, environment), *in_pyenv(version, environment)):
            python = probe(path)
            if python is not None and python.path.resolve() not in seen:
                seen.add(python.path.resolve())
                yield python.path


def index_settings(environment: dict[str, str]) -> dict[str, str]:
    """Returns what to add to uv's environment so that it uses the package index that pip is set up for here.

    uv reads no settings of pip. Where uv has settings of its own they stand. `extra-index-url` is left out: all that is
    pinned is on PyPI or a mirror of it, and uv would take a version from the first index that has it although only the
    other one has the file for this Python.

    Args:
        environment: the variables of the process.
    """
    home = Path(environment.get("HOME", "/"))
    config = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    of_uv = [Path("/etc/uv/uv.toml"), config / "uv" / "uv.toml", environment.get("UV_CONFIG_FILE")]
    if any(name.startswith(("UV_INDEX", "UV_DEFAULT_INDEX", "UV_FIND_LINKS")) for name in environment) or any(
        path and Path(path).exists() for path in of_uv
    ):
        return {}
    pip = pip_settings(environment, [Path("/etc/pip.conf"), home / ".pip" / "pip.conf", config / "pip" / "pip.conf"])
    settings = {
        "UV_DEFAULT_INDEX": pip.get("index-url"),
        "UV_FIND_LINKS": ",".join(pip.get("find-links", "").split()),
        "UV_INSECURE_HOST": " ".join(pip.get("trusted-host", "").split()),
        "SSL_CERT_FILE": environment.get("SSL_CERT_FILE") or pip.get("cert"),
        "HTTPS_PROXY": environment.get("HTTPS_PROXY") or environment.get("https_proxy") or pip.get("proxy"),
        "UV_HTTP_TIMEOUT": environment.get("UV_HTTP_TIMEOUT") or pip.get("default-timeout") or pip.get("timeout"),
        "UV_OFFLINE": "1" if pip.get("no-index", "").lower() in ("1", "true", "yes", "on") else None,
    }
    return {name: value for name, value in settings.items() if value}


def pip_settings(environment: dict[str, str], files: Sequence[Path]) -> dict[str, str]:
    """Returns pip's settings as it would read them: from its files, then from its variables, the later ones winning.

    Args:
        environment: the variables of the process.
        files: pip's files, the strongest last.
    """
    settings: dict[str, str] = {}
    named = environment.get("PIP_CONFIG_FILE")
    for path in [] if named == os.devnull else [*files, *([Path(named)] if named else [])]:
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except configparser.Error:
            continue
        for section in ("global", "install"):
            if parser.has_section(section):
                settings.update(parser.items(section))
    for name, value in environment.items():
        if name.startswith("PIP_"):
            settings[name[4:].lower().replace("_", "-")] = value
    return settings
