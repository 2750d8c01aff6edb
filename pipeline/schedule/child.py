"""The program of a scheduled run: `evergreen` with the given arguments, in a process that ends with its scheduler.

python -m evergreen.pipeline.schedule.child <scheduler's process id> run -c FILE ...
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from evergreen.components.trainer import parent
from evergreen.pipeline import cli


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Runs the command.

    Returns:
      The exit status.
    """
    parent.die_with(int(sys.argv[1]))
    # `-m` puts the current folder first, whose modules could hide others; the command `evergreen` does not.
    sys.path[:] = [path for path in sys.path if path not in ("", os.getcwd())]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    return cli.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
