"""The scheduler's loop over runs that take no time, on a clock that the test moves."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from schedule_world import project, utc

from evergreen.pipeline import config as configuration
from evergreen.pipeline.run_result import RunResult
from evergreen.pipeline.schedule import state
from evergreen.pipeline.schedule.loop import Loop
from evergreen.pipeline.schedule.state import Places

START = utc(2013, 4, 1, 12)
LIMIT_S = 60.0
# A run that takes no time: leaves a temporary file, writes a line into a ledger, then its result, and ends.
RUN = """
import json, os, sys, time
open(os.path.join(os.environ["TMPDIR"], "left"), "w").close()
ledger, span, scheduled, trigger, result_file, result, seconds = sys.argv[1:]
with open(ledger, "a") as file:
    file.write(f"{span} {scheduled} {trigger}\\n")
time.sleep(float(seconds))
if result != "{}":
    with open(result_file, "w") as file:
        file.write(result)
"""


class FakeClock:
    """A clock that goes on when somebody waits; real time passes while a process runs."""

    def __init__(self, now: float):
        self.time = now
        self.working = lambda: False

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def wait(self, limit: float) -> None:
        self.time += limit
        if self.working():
            time.sleep(0.01)

    def wake(self) -> None:
        pass


class World:
    """A project with a scheduler over runs that do nothing.

    Args:
      folder: the project's folder.
      schedule: the section, as YAML.
      spans: how many spans there are.
    """

    def __init__(self, folder: Path, schedule: str = "{every: 10s}", spans: int = 1, max_runs: int | None = None):
        self.folder = folder
        self.file = project(folder, schedule, spans=spans)
        self.ledger = folder / "ledger"
        self.places = Places(folder / "workspace")
        self.clock = FakeClock(START)
        self.result: RunResult | None = RunResult("published", "r1", "1", 7)
        self.seconds = 0.0
        self.says: list[str] = []
        self.start(max_runs)

    def start(self, max_runs: int | None = None) -> None:
        """Starts a scheduler, after whatever became of the one before."""
        self.loop = Loop(
            lambda: configuration.load(self.file), self.command, self.says.append, self.clock, max_runs=max_runs
        )
        self.clock.working = lambda: self.loop._work is not None

    def command(self, config, running) -> list[str]:
        job = running.job
        values = {} if self.result is None else self.result.__dict__
        arguments = [self.ledger, running.span, job.scheduled, job.trigger, running.result_file, json.dumps(values)]
        return [sys.executable, "-S", "-c", RUN, *map(str, arguments), str(self.seconds)]

    @property
    def runs(self) -> list[str]:
        return self.ledger.read_text().splitlines() if self.ledger.exists() else []

    def until(self, happened) -> None:
        """Goes round until something happens."""
        end = time.monotonic() + LIMIT_S
        while not happened():
            assert time.monotonic() < end, self.says
            self.loop.turn()
            self.clock.wait(self.loop.pause())

    def remembered(self) -> state.State:
        return state.read(self.places.state)
