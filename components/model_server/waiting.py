"""A built-in server that is ready before its flags are known: `python -m ...waiting PARENT`.

It loads what the server needs, waits for a line of JSON on its standard input, and becomes the server: `arguments` are
its flags, `log` is the file for all that it prints from then on. It ends when nothing comes, and with its parent.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys

from evergreen.components.trainer import parent as parents


def main(parent: str) -> int:
    """Waits, then serves.

    Args:
      parent: the parent's process id.
    """
    parents.die_with(int(parent))
    # As `python -m evergreen.serving` loads them: TensorFlow first, in the server's way.
    gc.disable()  # what is loaded now stays
    for module in ("evergreen.serving.runtime", "evergreen.serving.app"):
        importlib.import_module(module)
    gc.freeze()
    gc.enable()
    line = sys.stdin.readline()
    if not line:
        return 0
    told = json.loads(line)
    log = os.open(told["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    status: int = importlib.import_module("evergreen.serving.__main__").main(told["arguments"])
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
