"""What the soak runs in: a project, spans that arrive, and a real `evergreen schedule` that is watched and killed.

Every process that the scheduler starts inherits an environment variable, by which it is found whatever group it is in.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "flights"
sys.path.insert(0, str(EXAMPLE))

import data  # noqa: E402
import psutil  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
import yaml  # noqa: E402

from evergreen.pipeline import config as configuration  # noqa: E402
from evergreen.pipeline import settings  # noqa: E402
from evergreen.pipeline.schedule import look, state  # noqa: E402
from evergreen.pipeline.schedule.state import Places, State  # noqa: E402

MARK = "EVERGREEN_SOAK"
EVERY = "5s"
WAIT_FOR_SPAN = "15s"
# Where a kill may hit, beside the stages of a run: `launch` is before the first one, `idle` between two runs.
STAGES = ("launch", "start-up", *settings.STAGES, "idle")
GATE_1 = STAGES[: STAGES.index("SpanValidator") + 1]
# `run` is the run's first process alone; `pair` the scheduler and its sentinel, so that only the next start can clear
# up; `all` everything at once, as a power cut does.
VICTIMS = ("scheduler", "run", "group", "pair", "all")
_TYPICAL_S = 1.0
_LINE = re.compile(r"(start|done|skipped|failed)\s+(\S+)")
_TOLD = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + chr(10))"


@dataclass(frozen=True)
class Delivery:
    """A month that arrives.

    Attributes:
      month: 1 to 12.
      how: `whole`, `late` (after the next one), `corrupt` (its file is cut off), `short` (a tenth of its rows is
        missing) or `again` (the whole month, after one of the last two).
    """

    month: int
    how: str = "whole"

    @property
    def version(self) -> int:
        """The span version that it becomes."""
        return int(self.how == "again")

    @property
    def starts_run(self) -> bool:
        """Whether it starts a run: a late month enters later windows."""
        return self.how != "late"


def script(months: int) -> list[Delivery]:
    """Returns what arrives and in which order: one month is late, one corrupt, one is delivered again.

    Args:
      months: how many months are replayed, 3 to 12; of less than ten the last one is corrupt, then delivered again.
    """
    if months < 10:
        whole = [Delivery(month) for month in range(1, months - 1)]
        return [*whole, Delivery(months, "corrupt"), Delivery(months - 1, "late"), Delivery(months, "again")]
    fates = {5: (), 6: ((6, "whole"), (5, "late")), 8: ((8, "corrupt"),), 10: ((10, "short"), (10, "again"))}
    arriving = (fates.get(month, ((month, "whole"),)) for month in range(1, months + 1))
    return [Delivery(*one) for together in arriving for one in together]


class World:
    """The project.

    Args:
      folder: an empty folder.
      steps: training steps of a retraining.
    """

    def __init__(self, folder: Path, steps: int):
        self.folder = folder
        self.spans = folder / "data"
        self.told = folder / "told.jsonl"
        self.tmp = folder / "tmp"
        for path in (self.spans, self.tmp):
            path.mkdir()
        for name in ("features.py", "model.py"):
            shutil.copy(EXAMPLE / name, folder / name)
        self.file = folder / "evergreen.yaml"
        self.file.write_text(yaml.safe_dump(self._settings(steps)), encoding="utf-8")
        self.config = configuration.load(self.file)
        self.places = Places(self.config.workspace_dir)
        self.mark = f"{os.getpid()}-{time.time_ns()}"

    def _settings(self, steps: int) -> dict[str, Any]:
        settings = yaml.safe_load((EXAMPLE / "evergreen.yaml").read_text(encoding="utf-8"))
        settings["workspace"] = "workspace"
        settings["schema"] = str(ROOT / "schemas" / "flights" / "schema.pbtxt")
        # From the first month on, and with every version kept: they are compared in the end.
        settings["data"] |= {"path": "data", "min_window": 1}
        settings["publish"] = {"base_path": "serving/flights", "keep": 99}
        settings["trainer"]["steps"] = settings["trainer"]["hyperparameters"]["decay_steps"] = steps
        settings["schedule"] = {
            "every": EVERY,
            "wait_for_span": WAIT_FOR_SPAN,
            "poll": "1s",
            # Whoever is killed twenty times needs more than four attempts.
            "retries": {"attempts": 99, "first": "1s", "longest": "2s"},
            "max_consecutive_failures": 99,
            "notify": [{"command": [sys.executable, "-S", "-c", _TOLD, str(self.told)]}],
        }
        return settings

    def deliver(self, delivery: Delivery) -> str:
        """Puts a month into the data directory, finished by its marker. Returns it in words."""
        aside = self.folder / "aside"
        data.write_spans(aside, [delivery.month])
        name, _ = data.FORMATS["parquet"]
        file = aside / str(delivery.month) / name
        if delivery.how == "short":
            table = pq.read_table(file)
            pq.write_table(table.take(pa.array([n for n in range(table.num_rows) if n % 10])), file)
        elif delivery.how == "corrupt":
            file.write_bytes(file.read_bytes()[:-2000])
        folder = self.spans / str(delivery.month)
        folder.mkdir(exist_ok=True)
        marker = folder / data.SUCCESS_MARKER
        marker.unlink(missing_ok=True)
        os.replace(file, folder / name)
        marker.touch()
        shutil.rmtree(aside)
        how = {"whole": "", "late": ", late", "corrupt": ", cut off", "short": ", without a tenth of its rows"}
        return f"month {delivery.month} arrives" + how.get(delivery.how, " again, whole")

    def state(self) -> State:
        """Reads what the scheduler remembers."""
        return state.read(self.places.state)

    def settled(self, month: int) -> bool:
        """Whether a run came to a verdict on a month as it lies there now, and none goes on."""
        remembered = self.state()
        digest = look.look(self.config).complete.get(str(month))
        return remembered.running is None and digest is not None and remembered.settled.get(str(month)) == digest

    def notices(self) -> list[dict[str, Any]]:
        """Lists the events that the schedule told, each once."""
        lines = self.told.read_text(encoding="utf-8").splitlines() if self.told.exists() else []
        return list({event["id"]: event for event in map(json.loads, filter(None, lines))}.values())

    def processes(self) -> list[psutil.Process]:
        """Lists the living processes of the scheduler and of everything that it ever started."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


class Scheduler:
    """One process of `evergreen schedule`, whose lines are read as they come.

    Args:
      world: the project.
      durations: seconds that stages took, by name; what is seen is added.
      heard: is called with each line, from another thread.
    """

    def __init__(self, world: World, durations: dict[str, float], heard: Callable[[str], None]):
        self._world = world
        self._durations = durations
        self._heard = heard
        self._changed = threading.Condition()
        self._stage, self._since = "idle", time.monotonic()
        command = [str(Path(sys.executable).with_name("evergreen")), "schedule", "--every", EVERY]
        self.process = subprocess.Popen(
            [*command, "-c", str(world.file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            env={**os.environ, MARK: world.mark, "TMPDIR": str(world.tmp)},
            start_new_session=True,
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def stage(self) -> str:
        """Where the run is, one of STAGES."""
        return self._stage

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._heard(line.rstrip())
            self._follow(line)

    def _follow(self, line: str) -> None:
        found = _LINE.match(line)
        stage = self._stage
        if found is not None and found[1] == "start":
            stage = found[2].partition(".")[0]
        elif found is not None and found[1] == "done" and "(cached)" not in line:
            self._durations[found[2].partition(".")[0]] = time.monotonic() - self._since
        elif re.match(r"\S+ \S+ run of .* on span", line):
            stage = "launch"
        elif re.match(r"\S+ \S+ (span|attempt) \d", line):
            stage = "idle"
        if stage != self._stage:
            if self._stage == "launch":
                self._durations["launch"] = time.monotonic() - self._since
            with self._changed:
                self._stage, self._since = stage, time.monotonic()
                self._changed.notify_all()

    def until_stage(self, wanted: str, over: Callable[[], bool], limit_s: float) -> None:
        """Waits for a run to come to a stage, or for its end.

        Args:
          wanted: the stage.
          over: whether there is nothing to wait for any more.
          limit_s: how long at most, in seconds.
        """
        end = time.monotonic() + limit_s
        while self._stage != wanted and not over() and time.monotonic() < end and self.process.poll() is None:
            with self._changed:
                if self._stage != wanted:
                    self._changed.wait(0.2)

    def typical_s(self, stage: str) -> float:
        """Returns how long a stage takes, as far as is known."""
        return self._durations.get(stage, _TYPICAL_S)

    def kill(self, victim: str) -> str:
        """Sends SIGKILL.

        Args:
          victim: one of VICTIMS; where no run goes on, it is the scheduler.

        Returns:
          Who was killed.
        """
        running = self._world.state().running
        pid = running.pid if running is not None else 0
        living = [process.pid for process in self._world.processes()]
        if victim in ("run", "group") and pid not in living:
            victim = "scheduler"
        if victim == "run":
            targets = [pid]
        elif victim == "group":
            targets = [one for one in living if _group(one) == pid]
        elif victim == "pair":
            # The sentinel leads a session of its own, as the run does.
            targets = [one for one in living if one == self.process.pid or _parent(one) == self.process.pid]
            targets = [one for one in targets if one != pid]
        elif victim == "all":
            targets = living
        else:
            targets = [self.process.pid]
        for one in targets:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        return victim

    @property
    def alive(self) -> bool:
        """Whether the scheduler itself lives."""
        return self.process.poll() is None

    def memory(self) -> int:
        """Returns the scheduler's own resident memory in bytes."""
        with contextlib.suppress(psutil.Error):
            return int(psutil.Process(self.process.pid).memory_info().rss)
        return 0

    def cpu_share(self, seconds: float) -> float:
        """Returns the share of a core that the scheduler takes over some seconds."""
        one = psutil.Process(self.process.pid)
        before = one.cpu_times()
        time.sleep(seconds)
        after = one.cpu_times()
        return float(after.user + after.system - before.user - before.system) / seconds

    def terminate(self, limit_s: float) -> int:
        """Asks it to end, as systemd does.

        Returns:
          Its exit status.
        """
        self.process.terminate()
        try:
            return self.process.wait(limit_s)
        finally:
            self.process.kill()
            self._thread.join(10)


def _group(pid: int) -> int:
    with contextlib.suppress(ProcessLookupError):
        return os.getpgid(pid)
    return 0


def _parent(pid: int) -> int:
    with contextlib.suppress(psutil.Error):
        return int(psutil.Process(pid).ppid())
    return 0


@dataclass
class Ledger:
    """What happened when.

    Attributes:
      say: is called with each entry in words.
      entries: `(seconds since the beginning, what kind, words)`.
      began: the beginning, seconds since 1970.
    """

    say: Callable[[str], None]
    entries: list[tuple[float, str, str]] = dataclasses.field(default_factory=list)
    began: float = dataclasses.field(default_factory=time.time)

    def add(self, kind: str, text: str, when: float | None = None) -> None:
        """Adds an entry.

        Args:
          kind: `delivery`, `kill`, `schedule`, `run` or `told`.
          text: what happened.
          when: seconds since 1970; the present by default.
        """
        entry = ((time.time() if when is None else when) - self.began, kind, text)
        self.entries.append(entry)
        self.say(line(entry))


def line(entry: tuple[float, str, str]) -> str:
    """Writes an entry of the ledger as a line."""
    seconds, kind, text = entry
    return f"{int(seconds) // 60:3}:{int(seconds) % 60:02} {kind:8} {text}"
