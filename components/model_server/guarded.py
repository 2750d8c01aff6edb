"""Becomes another program that does not outlive its parent: `python -m ...guarded PARENT PROGRAM [ARGUMENT ...]`.

The kernel's promise to kill a process when its parent dies holds over `exec`, so it can be had for a program that is
not ours.
"""

from __future__ import annotations

import os
import sys

from evergreen.components.trainer import parent as parents


def main(parent: str, *command: str) -> None:
    """Runs the program in the place of this process.

    Args:
      parent: the parent's process id.
      command: the program's path and its arguments.
    """
    parents.die_with(int(parent))
    os.execv(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
