"""The process that converts, beside the one that asks for it.

    python -m evergreen.components.quantizer.converter PARENT LOAD

It imports TensorFlow once, which takes seconds, and forks for each job before TensorFlow has started a thread. Jobs
come over its standard input, answers go over its standard output, one JSON line each with the job's number, in the
order in which they end. It dies with its parent.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Iterable
from typing import Any

import numpy as np

from evergreen.components import ahead
from evergreen.components.quantizer.convert import ConversionFailed
from evergreen.components.quantizer.worker import ending
from evergreen.components.trainer import parent as parents

_POLL_S = 0.02
# Jobs at a time, as far as there are cores. Each may need several times the model's memory.
_AT_ONCE = 2
# TensorFlow loads its converter when it is first asked for: now, once, and not in each fork.
_CONVERSIONS = ("tensorflow", "tensorflow.lite.python.lite")
_ALL = (*_CONVERSIONS, "evergreen.components.quantizer.front", "matplotlib.figure", "matplotlib.backends.backend_svg")


def _do(job: dict[str, Any]) -> dict[str, Any]:
    """Does a job in the forked process."""
    from evergreen.components.quantizer import convert

    rows = None
    if "rows" in job:
        with np.load(job["rows"]) as file:
            rows = {name: file[name] for name in file.files}
    try:
        if job["do"] == "convert":
            content = convert.convert(job["saved_model"], job["variant"], rows, job["denied"], job["select"])
        elif job["do"] == "preprocessing":
            # Not above: it loads TensorFlow Transform, and the other jobs need none.
            from evergreen.components.quantizer import front

            content = front.convert(job["transform_graph"], job["names"])
        elif job["do"] == "page":
            from evergreen.components.quantizer import page

            content = page.render(job["report"]).encode()
        else:
            content = json.dumps(convert.activation_errors(job["saved_model"], rows or {})).encode()
    except ConversionFailed as failure:
        return {"failure": str(failure)}
    except Exception as error:
        traceback.print_exc()
        return {"failure": f"conversion failed: {convert.reason(str(error))}"}
    with open(job["output"], "wb") as file:
        file.write(content)
    return {"done": True}


def _fork(job: dict[str, Any]) -> int:
    """Does a job in a fork, which writes what came of it beside the job's output.

    Returns:
      The fork's process id.
    """
    server = os.getpid()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            parents.die_with(server)
            gc.enable()
            log = os.open(job["output"] + ".log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.dup2(log, 1)
            os.dup2(log, 2)
            with open(job["output"] + ".json", "w", encoding="utf-8") as file:
                json.dump(_do(job), file)
            code = 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return child


def _outcome(job: dict[str, Any], child: int, began: float) -> dict[str, Any] | None:
    """Looks how a fork is; returns the answer when it has ended, or has taken too long and is ended here."""
    ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        if time.monotonic() < began + job["seconds"]:
            return None
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return {"failure": f"conversion failed: not done within {job['seconds']:g} s (`quantize.convert_seconds`)"}
    code = os.waitstatus_to_exitcode(status)
    if code:
        return {"failure": f"conversion failed: the converter {ending(code)}"}
    with open(job["output"] + ".json", encoding="utf-8") as file:
        answer: dict[str, Any] = json.load(file)
        return answer


def _load(modules: Iterable[str]) -> None:
    """Imports what forks will need. None of it is looked at by a fork's garbage collector, and so copied."""
    gc.disable()
    for module in modules:
        importlib.import_module(module)
    gc.freeze()


def main(parent: str, load: str) -> None:
    """Does jobs until the parent closes the pipe.

    Args:
      parent: the parent's process id.
      load: "all" to load first what any job needs; else that comes with the job that needs it.
    """
    parents.die_with(int(parent))
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    # What TensorFlow and Python print goes to the log; an answer must not stand among it.
    os.dup2(2, 1)
    _load(_ALL if load else _CONVERSIONS)
    waiting: list[dict[str, Any]] = []
    running: dict[int, tuple[dict[str, Any], float]] = {}
    rest, is_open = b"", True
    while is_open:
        while waiting and len(running) < min(_AT_ONCE, ahead.cores()):
            job = waiting.pop(0)
            running[_fork(job)] = job, time.monotonic()
        if select.select([0], [], [], _POLL_S if running else None)[0]:
            read = os.read(0, 1 << 16)
            *lines, rest = (rest + read).split(b"\n")
            waiting += map(json.loads, lines)
            is_open = bool(read)
        for child, (job, began) in list(running.items()):
            answer = _outcome(job, child, began)
            if answer is not None:
                del running[child]
                answers.write(json.dumps({**answer, "number": job["number"]}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
