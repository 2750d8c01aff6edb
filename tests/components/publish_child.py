"""A process that publishes and kills itself with SIGKILL at the n-th step that changes the file system.

Not a test: tests/components/test_pusher_kill.py starts it, writes one JSON line for each push to its standard input,
and reads one line with the outcome. Each push runs in a fork, so that the imports are paid for once. Every call by
which Python changes files is counted: opening for writing, write (killed before it and again with half of the bytes
written), fsync, rename, replace, mkdir, unlink, rmdir and truncate.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from evergreen.components import atomic
from evergreen.components.pusher import publish

_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Killer:
    """Counts the steps and kills the process at the one asked for; 0 only counts."""

    def __init__(self, at: int):
        self.at = at
        self.steps = 0
        self.inside = False

    def step(self) -> None:
        self.steps += 1
        if self.steps == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        for name in ("rename", "replace", "mkdir", "unlink", "remove", "rmdir", "ftruncate"):
            setattr(os, name, self.counted(getattr(os, name)))
        # SIGKILL takes nothing back that the kernel has; leaving the real sync out saves most of the test's time.
        os.fsync = self.counted(lambda descriptor: None)
        really_open, really_write = os.open, os.write

        def open_(path, flags, *args, **kwargs):
            if not flags & _FLAGS:
                return really_open(path, flags, *args, **kwargs)
            return self.counted(really_open)(path, flags, *args, **kwargs)

        def write(descriptor, data):
            self.step()
            written = really_write(descriptor, data[: len(data) // 2])
            self.step()
            return written + really_write(descriptor, data[written:])

        os.open, os.write = open_, write
        sys.addaudithook(self.audit)

    def counted(self, call):
        def wrapper(*args, **kwargs):
            self.step()
            self.inside = True
            try:
                return call(*args, **kwargs)
            finally:
                self.inside = False

        return wrapper

    def audit(self, event: str, args: tuple) -> None:
        """Stops where something is changed by a way that is not counted, so that no step is missed unnoticed."""
        changes = event in ("os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.truncate", "os.link", "os.symlink")
        if event == "open" and isinstance(args[2], int) and args[2] & _FLAGS:
            changes = True
        if event == "os.mkdir" and os.path.isdir(args[0]):
            changes = False  # FileLock asks for a directory that is there
        if changes and not self.inside:
            print(f"not counted: {event} {args}", file=sys.stderr, flush=True)
            os._exit(70)


def push(order: dict) -> None:
    """Publishes in this process, which may not survive it."""
    atomic._CHUNK_BYTES = 1000
    killer = Killer(order["kill_at"])
    killer.install()
    publish.publish(
        order["base"],
        publish.Candidate(
            saved_model=Path(order["model"]),
            model_artifact_id=order["id"],
            model_uri=f"/workspace/model/{order['id']}",
            name="kill",
            run="a-run",
            span=1,
            tflite=Path(order["tflite"]),
            tflite_variant="dynamic_int8",
        ),
        keep=2,
        now=lambda: order["now"],
    )


def main() -> None:
    """Serves orders until standard input ends."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                push(json.loads(line))
                status = 0
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        print(json.dumps({"status": os.waitstatus_to_exitcode(status)}), flush=True)


if __name__ == "__main__":
    main()
