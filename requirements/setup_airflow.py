"""Makes `.venv-airflow/`: Airflow in a virtual environment of its own, for the tests of examples/airflow.

    python requirements/setup_airflow.py

The pins are airflow.txt (`make requirements` remakes them). Called again it returns at once where nothing changed. No
part of `make setup`: a user's Airflow is there already.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # `python -I` leaves the script's folder out

from machine import AIRFLOW, Python, SetupError, candidates, find_uv, index_settings, probe, say
from setup_venv import ROOT, TOOLS

VENV = ROOT / ".venv-airflow"
STAMP = VENV / ".evergreen-setup"
LOCK = ROOT / ".venv-airflow.lock"


def find_python(uv: Path) -> Python:
    """Returns a Python that Airflow runs on.

    Args:
        uv: the command.

    Raises:
        SetupError: there is none.
    """
    for path in candidates(AIRFLOW, uv, dict(os.environ)):
        python = probe(path)
        if python is not None and python.version in AIRFLOW.pythons:
            return python
    raise SetupError("no Python for Airflow was found", "It runs on 3.10 to 3.13.", "Install one of them.")


def install(uv: Path) -> None:
    """Makes the environment anew.

    Args:
        uv: the command.

    Raises:
        SetupError: there is no Python, or uv failed.
    """
    python = find_python(uv)
    say(f"{AIRFLOW.name} on Python {python.version_text} into {VENV.name}")
    shutil.rmtree(VENV, ignore_errors=True)
    environment = {**os.environ, **index_settings(dict(os.environ)), "VIRTUAL_ENV": str(VENV)}
    pins = str(ROOT / AIRFLOW.requirements)
    for command in (
        ["venv", "--quiet", "--python", str(python.path), str(VENV)],
        ["pip", "install", "--quiet", "--compile-bytecode", "-r", pins],
    ):
        done = subprocess.run([str(uv), *command], env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SetupError(
                f"`uv {command[0]}` failed with exit status {done.returncode}",
                done.stderr.strip()[-400:],
                "Mend the cause (often the network) and try again.",
            )


def set_up() -> Path:
    """Brings `.venv-airflow` up to date, or finds that it is.

    Returns:
        Its folder.

    Raises:
        SetupError: it cannot be done on this machine as it is.
    """
    wanted = hashlib.sha256((ROOT / AIRFLOW.requirements).read_bytes()).hexdigest()
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not STAMP.exists() or STAMP.read_text() != wanted or probe(VENV / "bin" / "python") is None:
            install(find_uv(TOOLS))
            STAMP.write_text(wanted)
    return VENV


if __name__ == "__main__":
    try:
        set_up()
    except SetupError as error:
        say(str(error))
        sys.exit(1)
