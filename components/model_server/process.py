"""A model server as a process of its own: tensorflow_model_server where there is one, else the built-in server.

It runs on free ports, within bounds of memory and time, writes its log into a file, and ends with the block or with
this process, however that ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import grpc

from evergreen.components import ahead
from evergreen.components.errors import EvergreenError
from evergreen.components.model_server.client import Client, ServerError, Status

TENSORFLOW_SERVING = "tensorflow_model_server"
BUILT_IN = "built-in"
_HOST = "127.0.0.1"
# Below what Linux gives to outgoing connections, one of which could take a port before the server does.
_PORTS = range(20000, 32768)
_WATCH_S, _ASK_S, _GRACE_S = 0.1, 0.5, 5.0
_LOG_LINES = 12


class ServerEnded(EvergreenError):
    """The server is no longer there: it ended by itself, or passed its bound of memory or time."""


def find_server() -> tuple[str, list[str]]:
    """Finds the model server of this machine.

    Returns:
      TENSORFLOW_SERVING or BUILT_IN, and how its command line begins.
    """
    found = shutil.which(TENSORFLOW_SERVING)
    if found:
        return TENSORFLOW_SERVING, [found]
    return BUILT_IN, [sys.executable, "-m", "evergreen.serving"]


def free_port() -> int:
    """Returns a TCP port that nobody listens on now."""
    for port in random.SystemRandom().sample(_PORTS, 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((_HOST, port))
            return port
    raise EvergreenError("no free port was found", f"100 of {_PORTS.start} to {_PORTS.stop - 1} were tried")


def prepare(environment: Mapping[str, str]) -> None:
    """Starts a built-in server without flags, where that is this machine's server; the next `ServerProcess` takes it.

    Args:
      environment: changed for it, by variable; only a `ServerProcess` with the same takes it.
    """
    if find_server()[0] == BUILT_IN:
        ahead.start(_name(environment), lambda: _waiting(environment))


def _name(environment: Mapping[str, str]) -> str:
    return f"model server {sorted(environment.items())}"


def _waiting(environment: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "evergreen.components.model_server.waiting", str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **environment},
        start_new_session=True,
        text=True,
    )


class ServerProcess(contextlib.AbstractContextManager["ServerProcess"]):
    """A running server. Starting it returns at once; `wait_available` waits for a model.

    It is to be started by a thread that lives as long as it is needed: Linux ends it with that thread.

    Args:
      flags: of tensorflow_model_server, without the ports.
      log: the file for all that it prints.
      max_bytes: memory at which it is killed; None for no bound.
      seconds: after so many seconds it is killed; None for no bound.
      environment: changed for it, by variable.

    Attributes:
      which: TENSORFLOW_SERVING or BUILT_IN.
      grpc_address: `host:port`.
      rest_address: `host:port`.
      log: as given.
    """

    def __init__(
        self,
        flags: Sequence[str],
        log: str | os.PathLike[str],
        max_bytes: int | None = None,
        seconds: float | None = None,
        environment: Mapping[str, str] | None = None,
    ):
        self.which, self._command = find_server()
        self.log = Path(log)
        ports = free_port(), free_port()
        self.grpc_address, self.rest_address = (f"{_HOST}:{port}" for port in ports)
        self._max_bytes, self._seconds = max_bytes, seconds
        self._began = time.monotonic()
        self._peak, self._killed_because = 0, ""
        arguments = [f"--port={ports[0]}", f"--rest_api_port={ports[1]}", *flags]
        self._process = self._take(arguments, environment or {}) or self._start(arguments, environment or {})
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="model server's bounds", daemon=True)
        self._watcher.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _take(self, arguments: list[str], environment: Mapping[str, str]) -> subprocess.Popen[str] | None:
        """Tells a server that was prepared its flags; returns None where none was."""
        process = ahead.take(_name(environment)) if self.which == BUILT_IN else None
        if process is None:
            return None
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin as told:  # `check` says that it has died
            told.write(json.dumps({"arguments": arguments, "log": str(self.log.absolute())}) + "\n")
        return process

    def _start(self, arguments: list[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
        guard = [sys.executable, "-m", "evergreen.components.model_server.guarded", str(os.getpid())]
        with open(self.log, "ab") as output:
            return subprocess.Popen(
                [*guard, *self._command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
                text=True,
            )

    @property
    def pid(self) -> int:
        """The process id, which is that of its process group too."""
        return self._process.pid

    def peak_bytes(self) -> int:
        """Returns the most memory that it has used so far, in bytes; 0 where the system does not say."""
        self._measure()
        return self._peak

    def wait_available(self, model: str, version: int, seconds: float) -> Status:
        """Waits until a version answers requests, as `Client.wait_available` does.

        Args:
          model: its name.
          version: the version.
          seconds: how long to wait.

        Raises:
          ServerError: the version cannot be loaded, in the server's words, or is not there in time.
          ServerEnded: the server ended.
        """
        end = time.monotonic() + seconds
        with Client(self.grpc_address) as client:
            while True:
                self.check()
                try:
                    return client.wait_available(model, version, min(_ASK_S, max(0.0, end - time.monotonic())))
                except ServerError as error:
                    if error.code is not grpc.StatusCode.DEADLINE_EXCEEDED:
                        raise
                    if time.monotonic() >= end:
                        self.check()
                        raise ServerError(
                            f"version {version} of `{model}` did not become available within {seconds:g} s",
                            error.details,
                            f"the server's log is {self.log}",
                            error.code,
                        ) from None

    def check(self) -> None:
        """Raises ServerEnded where the server has ended, with the reason."""
        status = self._process.poll()
        if status is None:
            return
        words = self._killed_because
        if not words:
            ending = f"crashed ({signal.Signals(-status).name})" if status < 0 else f"ended with status {status}"
            words = f"it {ending}" + "".join(f"\n  {line}" for line in self.last_lines())
        raise ServerEnded(f"the model server ({self.which}) has ended", words)

    def last_lines(self) -> list[str]:
        """Returns the last lines of its log."""
        try:
            text = self.log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        return [line for line in text.splitlines() if line.strip()][-_LOG_LINES:]

    def stop(self) -> None:
        """Ends it: as it wants to be ended, and by force after some seconds."""
        self._ended.set()
        self._watcher.join()
        self._measure()
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE_S)
        self._kill()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _watch(self) -> None:
        while not self._ended.wait(_WATCH_S) and self._process.poll() is None:
            self._measure()
            if self._max_bytes is not None and self._peak > self._max_bytes:
                used, allowed = (f"{size / 1e6:,.0f} MB" for size in (self._peak, self._max_bytes))
                self._killed_because = f"it used {used} of memory, more than the {allowed} allowed"
            elif self._seconds is not None and time.monotonic() - self._began > self._seconds:
                self._killed_because = f"it was not done within the {self._seconds:g} s allowed"
            if self._killed_because:
                self._kill()
                return

    def _measure(self) -> None:
        """Reads the peak of its memory; a process that has ended has none, and the last one counts."""
        with contextlib.suppress(OSError, ValueError):
            for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    self._peak = max(self._peak, int(line.split()[1]) * 1024)
