"""Training in a child process: where TensorFlow has started with too few logical devices, and to coordinate a cluster.

    python -m evergreen.components.trainer.child REQUEST RESULT PARENT [private]

The child reads a request, trains, and writes the report or the refusal. Its progress comes over its standard output,
one marked line each; its log goes to standard error, which it shares with the parent. It dies with its parent. The
coordinator of a local cluster runs in a network of its own where the system has one; see `network`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from evergreen.components import progress, user_code
from evergreen.components.errors import EvergreenError, Failure
from evergreen.components.trainer import cluster, network, watchdog
from evergreen.components.trainer import parent as parents
from evergreen.components.trainer.request import Request
from evergreen.components.trainer.settings import MULTI_WORKER, ON_CLUSTERS

_MARK = "evergreen-progress "


def train(request: Request) -> dict[str, Any]:
    """Trains in a child process.

    Args:
      request: what to do.

    Returns:
      The report.

    Raises:
      EvergreenError: what the training refuses, as it would here.
      LostProcess: a cluster lost a process that it cannot do without.
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
        environment = {**user_code.child_environment(request.project_dir), **(environment or {})}
        prefix = _network(request, environment)
        command = [*prefix, sys.executable, "-m", module, request_file, self._result_file, str(os.getpid())]
        self.process = subprocess.Popen(
            [*command, *(["private"] if prefix else [])],
            stdout=subprocess.PIPE,
            env=environment,
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
          LostProcess: a cluster lost a process that it cannot do without.
          RuntimeError: the child failed, or left nothing.
        """
        if not self.has_result:
            raise RuntimeError(f"the training process ended with {self.process.poll()} and left no result")
        with open(self._result_file, encoding="utf-8") as file:
            result = json.load(file)
        if "report" in result:
            return dict(result["report"])
        if "error" in result:
            raise Failure(**result["error"]).exception()
        if "lost" in result:
            raise cluster.LostProcess(result["lost"])
        raise RuntimeError(f"the training process failed:\n{result['traceback']}")

    def close(self) -> None:
        """Ends the child if it runs still, and removes its files."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._folder.cleanup()


@contextlib.contextmanager
def along(request: Request, environment: Mapping[str, str]) -> Iterator[Child]:
    """Runs a process that computes its share of a training and leaves nothing, for the time of a `with`.

    Args:
      request: the training that another process leads; its folders are not written to.
      environment: variables that the process gets besides this one's.

    Yields:
      The process.
    """
    with tempfile.TemporaryDirectory() as folder:
        model_dir, run_dir = os.path.join(folder, "model"), os.path.join(folder, "run")
        own = dataclasses.replace(request, chief=False, model_dir=model_dir, run_dir=run_dir)
        with contextlib.closing(Child(own, environment)) as process:
            yield process


def _network(request: Request, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Returns what to put before the child's command: a local cluster is kept from all others where that is possible.

    A training that reads or writes a remote file system needs the network, as does one whose cluster is elsewhere.
    """
    if request.settings.strategy not in ON_CLUSTERS or cluster.read(environment) is not None:
        return ()
    base = () if request.base_model is None else (request.base_model.uri,)
    uris = (*(one.uri for one in request.window), request.transform_graph, request.model_dir, request.run_dir, *base)
    prefix = () if any("://" in uri for uri in uris) else network.private_prefix()
    if not prefix:
        network.warn_of_open_ports()
    return prefix


def _run(request: Request) -> dict[str, Any]:
    if request.settings.strategy == MULTI_WORKER and not request.checkpoint_dir:
        from evergreen.components.trainer import job  # which needs no TensorFlow

        return job.train(request)
    from evergreen.components.trainer import devices, training

    devices.configure(request.settings)
    return training.run(request)


def _relay(line: str) -> None:
    """Passes a line of the child on: progress to the listener, anything else to standard output."""
    if line.startswith(_MARK):
        progress.report(*json.loads(line.removeprefix(_MARK)))
    else:
        sys.stdout.write(line)


def main(request_file: str, result_file: str, parent: str, private: str = "") -> None:
    """Trains as the child.

    Args:
      request_file: a request as JSON.
      result_file: where the report or the refusal goes.
      parent: the parent's process id.
      private: not empty where the child has a network of its own.
    """
    parents.die_with(int(parent))
    if private:
        network.raise_loopback()
    with open(request_file, encoding="utf-8") as file:
        request = Request.from_json(file.read())
    progress.set_listener(lambda fraction, text: print(_MARK + json.dumps([fraction, text]), flush=True))
    watchdog.set_end(lambda reason: _end(result_file, {"lost": reason}))
    result: dict[str, Any]
    try:
        result = {"report": _run(request)}
    except EvergreenError as error:
        result = {"error": dataclasses.asdict(Failure.of(error))}
    except cluster.LostProcess as error:
        result = {"lost": str(error)}
    except Exception:
        result = {"traceback": traceback.format_exc()}
    if request.settings.strategy in ON_CLUSTERS:
        # TensorFlow may wait for a process that is gone while the interpreter takes it down.
        _end(result_file, result)
    _write(result_file, result)


def _write(result_file: str, result: dict[str, Any]) -> None:
    with open(result_file + ".part", "w", encoding="utf-8") as file:
        json.dump(result, file)
    os.replace(result_file + ".part", result_file)


def _end(result_file: str, result: dict[str, Any]) -> None:
    """Leaves the result and ends this process at once, whatever its threads wait for."""
    _write(result_file, result)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
