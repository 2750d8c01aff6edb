"""Makes `.venv/`: finds a Python, chooses the stack that this machine can run, installs its pins and Evergreen itself.

`make setup` runs it by setup.sh. It needs nothing but the standard library of Python 3.8. Called again it returns at
once where nothing changed; where a set-up was cut off, the next one starts `.venv/` again from uv's cache, so nothing
is downloaded twice. The search for Pythons and uv stands in machine.py.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # `python -I` leaves the script's folder out

from machine import Python, SetupError, Stack, choose_stack, find_python, find_uv, index_settings, probe, say

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
TOOLS = VENV / "tools"  # a uv of our own, where the machine has none; outlives a `.venv` that is made again
LOCK = VENV / ".evergreen-lock"
STAMP = VENV / ".evergreen-setup.json"
UNFINISHED = VENV / ".evergreen-unfinished"
FOLDERS = ("pipeline", "components", "serving")


def fingerprint(stack: Stack) -> dict[str, str]:
    """Returns what a finished set-up rests on; the stamp of one that differs is out of date.

    Args:
        stack: the stack that this machine runs.
    """
    digest = hashlib.sha256()
    for path in (ROOT / stack.requirements, ROOT / "setup.py", Path(__file__)):
        digest.update(path.read_bytes())
    return {"root": str(ROOT), "stack": stack.name, "digest": digest.hexdigest()}


def read_stamp() -> dict[str, str]:
    """Returns the stamp of the last finished set-up, empty where there is none."""
    try:
        stamp: dict[str, str] = json.loads(STAMP.read_text(encoding="utf-8"))
        return stamp
    except (OSError, ValueError):
        return {}


def why_anew(stack: Stack, stamp: dict[str, str]) -> str | None:
    """Says why the `.venv` that is there cannot be kept; None where it can, or where there is none.

    Args:
        stack: the stack that this machine runs.
        stamp: the stamp of the last finished set-up.
    """
    if not (VENV / "bin").exists():
        return None
    if UNFINISHED.exists():
        return "the last set-up was cut off"
    if stamp and stamp.get("root") != str(ROOT):
        return f"the checkout moved here from {stamp.get('root')}"  # its scripts name that folder
    python = probe(VENV / "bin" / "python")
    if python is None:
        return "its Python does not run"
    if python.version not in stack.pythons:
        return f"it has Python {python.version_text}, which {stack.name} does not run on"
    return None


def clear() -> None:
    """Empties `.venv` but for the lock, the mark of an unfinished set-up and our uv."""
    for path in VENV.iterdir():
        if path in (LOCK, UNFINISHED, TOOLS):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def run(uv: Path, settings: dict[str, str], *arguments: str) -> None:
    """Runs uv on `.venv`, its progress shown on a terminal.

    Args:
        uv: the command.
        settings: variables of the environment to add.
        *arguments: what follows `uv`.

    Raises:
        SetupError: uv failed; it has said why on stderr.
    """
    quiet = () if sys.stderr.isatty() else ("--quiet",)
    environment = {**os.environ, **settings, "VIRTUAL_ENV": str(VENV)}
    done = subprocess.run(
        [str(uv), *quiet, *arguments], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        raise SetupError(
            f"`uv {' '.join(arguments[:2])}` failed with exit status {done.returncode}",
            "uv's own message stands above; what it downloaded so far is kept in its cache.",
            "Mend the cause (often the network or the disk: 4 GB are needed) and run `make setup` again.",
        )


def install(stack: Stack, uv: Path, python: Python | None) -> None:
    """Installs the stack's pins and Evergreen, editable, and compiles everything to bytecode.

    Bytecode is compiled here and not at the first import because containers often set PYTHONDONTWRITEBYTECODE, under
    which every command would compile TFX anew.

    Args:
        stack: the stack to install.
        uv: the command.
        python: the Python to make `.venv` of; None keeps the one that is there.
    """
    settings = index_settings(dict(os.environ))
    UNFINISHED.touch()
    if python is not None:
        clear()
        run(uv, settings, "venv", "--allow-existing", "--prompt", "evergreen", "--python", str(python.path), str(VENV))
        say(f"installing {stack.requirements} (about 3 GB; the first time takes a few minutes)")
    try:
        run(uv, settings, "pip", "install", "--compile-bytecode", "-r", stack.requirements)
    except SetupError:
        if python is None:  # uv downloads everything before it changes anything: what was there still works
            UNFINISHED.unlink()
        raise
    run(uv, settings, "pip", "install", "--no-deps", "--no-build-isolation", "--offline", "-e", str(ROOT))
    subprocess.run(
        [str(VENV / "bin" / "python"), "-m", "compileall", "-q", "-x", "/templates/", *FOLDERS], cwd=ROOT, check=False
    )
    check()
    UNFINISHED.unlink()


def check() -> None:
    """Loads the compiled parts that fail quietly where the C++ library is too old for them.

    Raises:
        SetupError: they cannot be loaded.
    """
    code = "import ml_metadata, tfx_bsl.cc; ml_metadata.__version__"
    done = subprocess.run(
        [str(VENV / "bin" / "python"), "-c", code], capture_output=True, text=True, cwd=VENV, check=False
    )
    if done.returncode:
        raise SetupError(
            "ML Metadata was installed and cannot be loaded",
            "\n  ".join(done.stderr.strip().splitlines()[-3:]),
            "TFX 1.21 needs the libstdc++ of GCC 13 or newer: upgrade it, or use a distribution that has it.",
        )


def set_up() -> None:
    """Brings `.venv` up to date, or finds that it is.

    Raises:
        SetupError: it cannot be done on this machine as it is.
    """
    stack = choose_stack()
    wanted = fingerprint(stack)
    stamp = read_stamp()
    anew = why_anew(stack, stamp)
    if anew is None and stamp == wanted and (VENV / "bin" / "evergreen").exists():
        return
    python = None
    if anew is not None or not (VENV / "bin").exists():
        if anew is not None:
            say(f".venv is made anew: {anew}")
        uv = find_uv(TOOLS)
        python = find_python(stack, uv)
        say(f"{stack.name} on Python {python.version_text} ({python.path})")
    else:
        uv = find_uv(TOOLS)
        say(f"{stack.name}: .venv is brought up to date")
    install(stack, uv, python)
    STAMP.write_text(json.dumps(wanted), encoding="utf-8")
    say("done: the command is .venv/bin/evergreen")


def main() -> int:
    """Runs one set-up at a time and returns the exit status."""
    VENV.mkdir(exist_ok=True)
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say("another set-up of this checkout is running; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            set_up()
        except SetupError as error:
            say(str(error))
            return 1
        except KeyboardInterrupt:
            say("stopped; `make setup` goes on from here")
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
