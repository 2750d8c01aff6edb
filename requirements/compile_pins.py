"""Remakes the pins: of both stacks from setup.py and their own *.in files, airflow.txt from its *.in file alone.

`make requirements` runs it: pins that still fit stay as they are. `make requirements UPGRADE=1` takes the newest of
everything. The files name neither this machine nor its package index.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from machine import AIRFLOW, TFX_1_16, TFX_1_21, SetupError, find_uv, index_settings, say, version_text
from setup_venv import ROOT, TOOLS


def main() -> int:
    """Compiles the files and returns the exit status."""
    parser = argparse.ArgumentParser(description="Remakes the pins.")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that fit")
    upgrade = ["--upgrade"] if parser.parse_args().upgrade else []
    environment = {
        **os.environ,
        **index_settings(dict(os.environ)),
        "UV_CUSTOM_COMPILE_COMMAND": "make requirements",  # the files' header
    }
    try:
        uv = find_uv(TOOLS)
    except SetupError as error:
        say(str(error))
        return 1
    for stack in (TFX_1_16, TFX_1_21, AIRFLOW):
        # One file for several Pythons needs `--universal`, which marks what only some of them take.
        versions = ["--universal"] if len(stack.pythons) > 1 else []
        versions += ["--python-version", version_text(min(stack.pythons))]
        source = stack.requirements.replace(".txt", ".in")
        ours = [] if stack is AIRFLOW else ["--extra", "dev", "setup.py"]
        command = [str(uv), "pip", "compile", "--quiet", "--annotation-style", "line", *ours]
        command += [*versions, *upgrade, source, "--output-file", stack.requirements]
        done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
        if done.returncode:
            return done.returncode
        say(f"{stack.requirements} is made")
    return 0


if __name__ == "__main__":
    sys.exit(main())
