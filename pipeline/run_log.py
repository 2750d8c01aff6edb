"""A run's log: one file for the run and one for each stage.

TensorFlow, Beam and TFX write hundreds of lines to the process's standard streams, from C++ too. While a run works, the
file descriptors 1 and 2 point into its log; the user's terminal stays reachable through `terminal`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO


class RunLog:
    """The log of one run, as a context manager that takes the standard streams for as long as it is open.

    Args:
      folder: the workspace's folder of logs.
      run_id: the run; `<folder>/<run_id>/run.log` and `<stage>.log` are its files.
      on_stage: told of each stage's beginning (True) and end (False).
    """

    def __init__(self, folder: Path, run_id: str, on_stage: Callable[[str, bool], None] | None = None):
        self.run_id = run_id
        self.folder = folder / run_id
        self._on_stage = on_stage or (lambda stage, begins: None)
        self.terminal: TextIO = sys.stdout
        self._saved: tuple[int, int] = (-1, -1)
        self._run_file: TextIO | None = None

    def __enter__(self) -> RunLog:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._flush()
        self._saved = (os.dup(1), os.dup(2))
        self.terminal = os.fdopen(os.dup(self._saved[0]), "w", buffering=1, encoding=sys.stdout.encoding or "utf-8")
        self._run_file = open(self.folder / "run.log", "a", encoding="utf-8", buffering=1)
        self._point(self._run_file.fileno())
        # absl's handler comes up with TensorFlow and writes to standard error, which is the log by then.
        logging.getLogger().setLevel(logging.INFO)
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        os.dup2(self._saved[0], 1)
        os.dup2(self._saved[1], 2)
        for descriptor in self._saved:
            os.close(descriptor)
        self.terminal.flush()
        if self._run_file is not None:
            self._run_file.close()

    @contextlib.contextmanager
    def stage(self, node_id: str) -> Iterator[None]:
        """Sends the standard streams to the stage's own file for the time of the block.

        Args:
          node_id: the stage.

        Yields:
          Nothing.
        """
        assert self._run_file is not None
        self._on_stage(node_id, True)
        began = time.monotonic()
        self.write(f"{node_id} starts\n")
        self._flush()
        with open(self.folder / f"{node_id}.log", "a", encoding="utf-8") as file:
            self._point(file.fileno())
            ended = "failed"
            try:
                yield
                ended = "ended"
            finally:
                self._flush()
                self._point(self._run_file.fileno())
                self.write(f"{node_id} {ended} after {time.monotonic() - began:.1f} s\n")
                self._on_stage(node_id, False)

    def write(self, text: str) -> None:
        """Appends lines to the run's own file, with the time before the first."""
        if self._run_file is not None:
            self._run_file.write(time.strftime("%Y-%m-%dT%H:%M:%S ") + text)

    def _point(self, descriptor: int) -> None:
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)

    def _flush(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(ValueError, OSError):
                stream.flush()
