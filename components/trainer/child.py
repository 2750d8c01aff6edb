"""Training in a child process, for a process whose TensorFlow has started with too few logical devices.

    python -m evergreen.components.trainer.child REQUEST RESULT PARENT

The child reads a request, trains, and writes the report or the refusal. Its progress comes over its standard output,
one marked line each; its log goes to standard error, which it shares with the parent. It dies with its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from typing import Any

from evergreen.components import errors, progress, user_code
from evergreen.components.errors import EvergreenError
from evergreen.components.trainer.request import Request

_PR_SET_PDEATHSIG = 1
_MARK = "evergreen-progress "


def train(request: Request) -> dict[str, Any]:
    """Trains in a child process.

    Args:
      request: what to do.

    Returns:
      The report.

    Raises:
      EvergreenError: what the training refuses, as it would here.
      RuntimeError: the child failed.
    """
    with contextlib.closing(Child(request)) as child:
        child.relay()
        child.process.wait()
        return child.result()


class Child:
    """A process that trains.

    Args:
      request: what to do.
      environment: variables that it gets besides this process's.

    Attributes:
      process: the process.
    """

    def __init__(self, request: Request, environment: Mapping[str, str] | None = None):
        self._folder = tempfile.TemporaryDirectory()
        request_file = os.path.join(self._folder.name, "request.json")
        self._result_file = os.path.join(self._folder.name, "result.json")
        with open(request_file, "w", encoding="utf-8") as file:
            file.write(request.to_json())
        module = "evergreen.components.trainer.child"
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, request_file, self._result_file, str(os.getpid())],
            stdout=subprocess.PIPE,
            env={**user_code.child_environment(request.project_dir), **(environment or {})},
            text=True,
        )

    def relay(self) -> None:
        """Passes on what the child prints until it ends: progress to the listener, the rest to standard output."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            _relay(line)

    @property
    def has_result(self) -> bool:
        """Whether the child came to an end of its own: a report, a refusal or an exception."""
        return os.path.exists(self._result_file)

    def result(self) -> dict[str, Any]:
        """Returns the report of a child that has ended.

        Raises:
          EvergreenError: what the training refused.
          RuntimeError: the child failed, or left nothing.
        """
        if not self.has_result:
            raise RuntimeError(f"the training process ended with {self.process.poll()} and left no result")
        with open(self._result_file, encoding="utf-8") as file:
            result = json.load(file)
        if "report" in result:
            return dict(result["report"])
        if "error" in result:
            raise getattr(errors, result["error"])(*result["parts"])
        raise RuntimeError(f"the training process failed:\n{result['traceback']}")

    def close(self) -> None:
        """Ends the child if it runs still, and removes its files."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._folder.cleanup()


def _relay(line: str) -> None:
    """Passes a line of the child on: progress to the listener, anything else to standard output."""
    if line.startswith(_MARK):
        progress.report(*json.loads(line.removeprefix(_MARK)))
    else:
        sys.stdout.write(line)


def main(request_file: str, result_file: str, parent: str) -> None:
    """Trains as the child.

    Args:
      request_file: a request as JSON.
      result_file: where the report or the refusal goes.
      parent: the parent's process id.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        sys.exit(1)  # the parent died before it could take the child with it
    from evergreen.components.trainer import devices, training

    with open(request_file, encoding="utf-8") as file:
        request = Request.from_json(file.read())
    progress.set_listener(lambda fraction, text: print(_MARK + json.dumps([fraction, text]), flush=True))
    result: dict[str, Any]
    try:
        devices.configure(request.settings)
        result = {"report": training.run(request)}
    except EvergreenError as error:
        result = {"error": type(error).__name__, "parts": [error.headline, error.reason, error.next_step]}
    except Exception:
        result = {"traceback": traceback.format_exc()}
    with open(result_file + ".part", "w", encoding="utf-8") as file:
        json.dump(result, file)
    os.replace(result_file + ".part", result_file)


if __name__ == "__main__":
    main(*sys.argv[1:])
