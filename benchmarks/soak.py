"""A year of retraining, killed twenty times: is anything lost, done twice or left over, and what is the schedule worth?

The months of 2013 arrive as spans, each as soon as the one before is dealt with, and `evergreen schedule --every 5s`
retrains on them. One month is late, one has a damaged file, one is delivered again. At places that a seed chooses,
evenly over the stages of a run, SIGKILL goes to the scheduler, the run, the run with its children, the scheduler with
its sentinel, or everything at once; a scheduler that was killed is started again. At the end everything is checked, and
the live model is scored on each next month against the first one. Exits 1 where a check fails.

    .venv/bin/python benchmarks/soak.py [--months 12] [--kills 20] [--steps 300] [--seed 0] [--out FILE] [--json]
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import soak_check
import soak_worth
from soak_check import Check
from soak_world import GATE_1, STAGES, VICTIMS, Delivery, Ledger, Scheduler, World, line, script

from evergreen.components.pusher import versions

LIMIT_S = 1800.0  # for one month, however often its runs are killed
IDLE_S = 30.0  # for which the scheduler is measured with nothing to do
_LOOK_S = 0.3


class Stuck(Exception):
    """What should have happened did not, within LIMIT_S."""


@dataclass(frozen=True)
class Kill:
    """A kill that is planned.

    Attributes:
      stage: where the run should be, one of STAGES.
      share: how far through the stage, 0 to 1.
      victim: one of VICTIMS.
    """

    stage: str
    share: float
    victim: str


def plan_kills(deliveries: Sequence[Delivery], count: int, seed: int) -> dict[int, list[Kill]]:
    """Spreads kills over the deliveries that start a run, and over the stages.

    Args:
      deliveries: what arrives.
      count: how many kills.
      seed: chooses stages, moments and victims.

    Returns:
      By the number of the delivery, the kills that hit its runs.
    """
    draw = random.Random(seed)
    places = [number for number, one in enumerate(deliveries) if one.starts_run]
    draw.shuffle(places)
    stages = itertools.chain.from_iterable(draw.sample(STAGES, len(STAGES)) for _ in itertools.count())
    victims = itertools.chain.from_iterable(draw.sample(VICTIMS, len(VICTIMS)) for _ in itertools.count())
    planned: dict[int, list[Kill]] = {}
    for number in itertools.islice(itertools.cycle(places), count):
        # A month that is refused comes no further than gate 1.
        reached = GATE_1 if deliveries[number].how == "corrupt" else STAGES
        stage = next(stage for stage in stages if stage in reached)
        planned.setdefault(number, []).append(Kill(stage, draw.random(), next(victims)))
    return planned


@dataclass
class Replay:
    """One replay of the year.

    Args:
      world: the project.
      ledger: takes what happens.
      log: takes every line of the schedulers.

    Attributes:
      live: by month, the version that was live when the month had been dealt with.
      hits: stage and victim of each kill.
      memory: the schedulers' own resident memory when they ended, in bytes.
      idle: the share of a core that the last one took with nothing to do.
    """

    world: World
    ledger: Ledger
    log: Any
    live: dict[int, int] = field(default_factory=dict)
    hits: list[tuple[str, str]] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    idle: float = 0.0
    _durations: dict[str, float] = field(default_factory=dict)
    _scheduler: Scheduler | None = None

    def run(self, deliveries: Sequence[Delivery], planned: dict[int, list[Kill]]) -> int:
        """Replays.

        Args:
          deliveries: what arrives.
          planned: the kills, by the number of the delivery.

        Returns:
          The exit status of the last scheduler, which was told to end.
        """
        try:
            for number, delivery in enumerate(deliveries):
                self._arrive(delivery, planned.get(number, []))
            scheduler = self._schedule()
            self.idle = scheduler.cpu_share(IDLE_S)
            self.memory.append(scheduler.memory())
            return scheduler.terminate(120)
        finally:
            for process in self.world.processes():
                process.kill()

    def _schedule(self) -> Scheduler:
        """Returns the scheduler that is at work, a new one where it was killed."""
        if self._scheduler is None or not self._scheduler.alive:
            self._scheduler = Scheduler(self.world, self._durations, self._heard)
        return self._scheduler

    def _heard(self, text: str) -> None:
        self.log.write(text + "\n")
        self.log.flush()
        moment, _, said = text.partition(" ")[2].partition(" ")
        if text.startswith("20") and len(moment) == 8 and not said.startswith(("the run of", "schedules")):
            self.ledger.add("schedule", said)

    def _arrive(self, delivery: Delivery, kills: Sequence[Kill]) -> None:
        """Delivers, kills what is to be killed, and waits until the schedule has dealt with it."""
        self._wait_for_late(delivery)
        self.ledger.add("delivery", self.world.deliver(delivery))
        if not delivery.starts_run:
            return
        month = delivery.month
        for kill in kills:
            self._kill(kill, lambda: self.world.settled(month))
        self._until(lambda: self.world.settled(month), f"month {month}")
        live = versions.live_version(self.world.config.publish.base_path)
        self.live[month] = live or 0

    def _wait_for_late(self, delivery: Delivery) -> None:
        """Where a month is left out, waits until the schedule has reported that."""
        due = max(self.live, default=0) + 1
        if delivery.month <= due:
            return
        before = self.world.state().counts.get("late", 0)
        self._until(lambda: self.world.state().counts.get("late", 0) > before, f"the report that month {due} is late")
        self.live[due] = self.live[due - 1]

    def _kill(self, kill: Kill, over: Callable[[], bool]) -> None:
        scheduler = self._schedule()
        scheduler.until_stage(kill.stage, over, LIMIT_S)
        time.sleep(kill.share * scheduler.typical_s(kill.stage))
        stage = scheduler.stage
        self.memory.append(scheduler.memory())
        victim = scheduler.kill(kill.victim)
        self.hits.append((stage, victim))
        self.ledger.add("kill", f"{victim} in {stage}")
        if victim in ("run", "group"):
            self._until(lambda: scheduler.stage == "idle", "the scheduler to see the end of the run")
        else:
            scheduler.process.wait()

    def _until(self, happened: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + LIMIT_S
        while not happened():
            if time.monotonic() > end:
                raise Stuck(f"waited in vain for {what}")
            if not self._schedule().alive:
                raise Stuck(f"the scheduler ended by itself while it was waited for {what}")
            time.sleep(_LOOK_S)


def soak(folder: Path, options: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Replays, checks and measures.

    Args:
      folder: an empty folder.
      options: the command line's.
      say: is called with each line of the ledger.

    Returns:
      What was found, ready for JSON.
    """
    world = World(folder, options.steps)
    ledger = Ledger(say)
    deliveries = script(options.months)
    watcher = soak_check.Watcher(Path(world.config.publish.base_path))
    with open(folder / "schedule.log", "w", encoding="utf-8") as log:
        replay = Replay(world, ledger, log)
        try:
            status = replay.run(deliveries, plan_kills(deliveries, options.kills, options.seed))
        except Stuck as error:
            ledger.add("stuck", str(error))
            status = -1
        finally:
            watcher.close()
    found = soak_check.checks(world, deliveries, watcher)
    found.append(Check("the schedule ended when it was told to", status == 0, f"exit status {status}"))
    found.append(Check("as many kills as were asked for", len(replay.hits) == options.kills, f"{len(replay.hits)}"))
    worth = None
    if status == 0 and all(replay.live.values()):
        worth = soak_worth.measure(Path(world.config.publish.base_path), replay.live, options.months)
        loaded = sorted(set(replay.live.values()))
        found.append(Check("every version that was live loads and answers", True, f"{len(loaded)} versions"))
    else:
        found.append(Check("every version that was live loads and answers", False, f"live by month: {replay.live}"))
    for run in soak_check.tried(world):
        version = f" version {run.pushed_version}" if run.pushed_version else ""
        told = f": {run.reason}" if run.reason and run.result.value != "killed" else ""
        text = f"span {run.label} version {run.version}, {run.seconds:.0f} s, {run.result.value}{version}{told}"
        ledger.add("run", text, run.started / 1000)
    return {
        "months": options.months,
        "steps": options.steps,
        "seed": options.seed,
        "seconds": time.time() - ledger.began,
        "ledger": sorted(ledger.entries, key=lambda entry: entry[0]),
        "kills": replay.hits,
        "checks": [dataclasses.asdict(check) for check in found],
        "held": all(check.held for check in found),
        "scheduler_bytes": max(replay.memory, default=0),
        "scheduler_idle": replay.idle,
        "auc": None if worth is None else dataclasses.asdict(worth),
        "gains": worth and {"first": worth.gain(worth.first), "window": worth.gain(worth.window)},
        "fates": {one.month: one.how for one in deliveries if one.how not in ("whole", "short")},
    }


def show(found: dict[str, Any]) -> None:
    """Prints what was found, the ledger first."""
    print("\nledger (minutes:seconds)")
    for entry in found["ledger"]:
        print(line(entry))
    print(f"\n{len(found['kills'])} kills:")
    for who, hits in itertools.groupby(sorted(found["kills"], key=lambda hit: hit[1]), lambda hit: hit[1]):
        print(f"  {who:10} in {', '.join(stage for stage, _ in hits)}")
    print("\nchecks")
    for check in found["checks"]:
        print(f"  {'held  ' if check['held'] else 'FAILED'} {check['name']}: {check['found']}")
    auc = found["auc"]
    if auc is not None:
        print("\nAUC by month, before training on it\n  month  retrained  first alone  first whole window alone")
        for month, score in auc["live"].items():
            window = f"{auc['window'][month]:24.4f}" if month in auc["window"] else ""
            print(f"  {soak_worth.MONTHS[month - 1]:5}  {score:9.4f}  {auc['first'][month]:11.4f}  {window}".rstrip())
        gains = found["gains"]
        print(
            f"  where it was newer, retrained is better by {gains['first']:.4f} and by {gains['window']:.4f} on average"
        )
    idle = f"with nothing to do it took {found['scheduler_idle']:.2%} of a core"
    held = f"the scheduler held {found['scheduler_bytes'] / 1e6:.0f} MB at the most"
    print(f"\n{found['seconds'] / 60:.1f} minutes; {held}; {idle}")


def main() -> int:
    """Soaks and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--months", type=int, default=12, choices=range(3, 13), metavar="3..12")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=300, help="training steps of a retraining")
    parser.add_argument("--seed", type=int, default=0, help="chooses the places of the kills")
    parser.add_argument("--out", type=Path, help="draws the AUC by month into this file, PNG or SVG")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="evergreen-soak-"))
    found = soak(folder, options, lambda text: print(text, file=sys.stderr, flush=True))
    if options.out is not None and found["auc"] is not None:
        title = f"Flights of 2013, retrained month by month, {len(found['kills'])} times killed"
        soak_worth.draw(soak_worth.Worth(**found["auc"]), found["fates"], title, options.out)
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        show(found)
    if found["held"]:
        shutil.rmtree(folder)
        return 0
    print(f"a check failed; everything lies in {folder}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
