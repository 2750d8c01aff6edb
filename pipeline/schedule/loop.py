"""The scheduler's loop in the foreground: asks the policy, starts runs, watches them, and remembers.

Whatever is decided is written down before it is done, and what a run comes to is in the run's own result file: the loop
may be killed between any two lines.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import os
import random
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from evergreen.components import atomic
from evergreen.components.errors import ConfigError, EvergreenError
from evergreen.pipeline import config as configuration
from evergreen.pipeline import run_result
from evergreen.pipeline.config import Config
from evergreen.pipeline.schedule import look as looking
from evergreen.pipeline.schedule import policy, state, supervise, times, verdicts
from evergreen.pipeline.schedule.clock import Clock, SystemClock
from evergreen.pipeline.schedule.health import Endpoint, Snapshot
from evergreen.pipeline.schedule.notify import Notifier
from evergreen.pipeline.schedule.policy import Decision
from evergreen.pipeline.schedule.project import live_version, next_run, project_digest, rules, settings_of
from evergreen.pipeline.schedule.state import Places, Running
from evergreen.pipeline.schedule.verdicts import End
from evergreen.pipeline.settings_schedule import ScheduleSettings, seconds, size_bytes

# Also how late a change of the machine's clock, of the configuration or of the live model is noticed.
IDLE_S = 15.0
_WORKING_S = 0.5
_BETWEEN_S = 5.0  # ticks, and readings of the memory, while a run goes on
_KEPT_EVENTS = 100  # that could not be delivered yet
_STOP_S = 60.0  # for a run to come to its safe point, after `grace`


@dataclass
class _Work:
    """A run that goes on.

    Attributes:
      process: its process.
      since: when it began, on the monotonic clock.
      settings: what held when it began.
      read: when its memory was last read.
      cut_off: why it is being ended.
      interrupted: when it was asked to stop; None where it was not.
    """

    process: supervise.Process
    since: float
    settings: ScheduleSettings
    read: float = 0.0
    cut_off: str = ""
    interrupted: float | None = None


class Loop:
    """The scheduler of one project. The caller holds its lock.

    Args:
      load: reads the configuration anew.
      command: the command line of a run, from the configuration and what is to be run.
      say: writes a line to the log.
      clock: where time comes from.
      max_runs: ends after so many; None for never.
    """

    def __init__(
        self,
        load: Callable[[], Config],
        command: Callable[[Config, Running], Sequence[str]],
        say: Callable[[str], None],
        clock: Clock | None = None,
        max_runs: int | None = None,
    ):
        self._load = load
        self._command = command
        self._say = say
        self.clock: Clock = clock or SystemClock()
        self._left = max_runs
        self._config = load()
        self._settings = settings_of(self._config)
        self._rules = rules(self._config)
        self._project = project_digest(self._config)
        self._places = Places(self._config.workspace_dir)
        self._places.folder.mkdir(parents=True, exist_ok=True)
        self.state = state.read(self._places.state)
        self._work: _Work | None = None
        self._end: End | None = None
        self._trouble = ""
        self._stopped: float | None = None
        self._hurried = False
        self._ticked = float("-inf")
        self._live: tuple[float, int, float] = (float("-inf"), 0, 0.0)
        self._notifier = Notifier(say)
        self._told: collections.deque[str] = collections.deque()
        port = self._settings.port
        self.endpoint = Endpoint(port, self._config.name) if port is not None else None

    def stop(self) -> None:
        """Ends the loop: nothing new is started, and a run that goes on gets its grace; at once when asked again."""
        if self._stopped is not None:
            self._hurried = True
        else:
            self._stopped = self.clock.monotonic()
        self.clock.wake()

    def run(self) -> int:
        """Goes round until it is stopped, or has made `max_runs` runs.

        Returns:
          The exit status: 0, or 1 where it was to make more runs and the schedule is paused.
        """
        try:
            self._recover()
            while not self._turned():
                self.clock.wait(IDLE_S if self._trouble else self.pause())
            return 1 if self.state.paused is not None and self._left is not None and self._stopped is None else 0
        finally:
            if self._work is not None:
                self._work.process.close()
            self._notifier.close()
            with contextlib.suppress(OSError):
                self._forget_told()
            if self.endpoint is not None:
                self.endpoint.close()

    def _turned(self) -> bool:
        """Goes round once, and lives through a full disk: what cannot be written down is not done yet."""
        try:
            over = self.turn()
            self._trouble = ""
            return over
        except OSError as error:
            trouble = f"the schedule cannot go on, and tries again: {error}"
            if trouble != self._trouble:
                self._say(trouble)
            self._trouble = trouble
            if self.endpoint is not None:
                # It does not hang: another scheduler would not find more room.
                known = self.endpoint.snapshot
                self.endpoint.snapshot = dataclasses.replace(known, beat=time.monotonic(), paused=trouble)
            return self._stopped is not None and self._work is None

    def turn(self) -> bool:
        """Goes round once.

        Returns:
          Whether that was the last time.
        """
        if self._work is not None:
            self._look_after(self._work)
        if self._end is not None:
            self._finish(self._end)
        now = self.clock.monotonic()
        if self._work is None or now - self._ticked >= _BETWEEN_S:
            self._ticked = now
            self._take_up_changes()
            if self._stopped is None and (self._left is None or self._left > 0):
                self._tick()
            self._publish()
        if self._work is not None:
            return False
        done = self._left is not None and (self._left <= 0 or self.state.paused is not None)
        return self._stopped is not None or done

    def pause(self) -> float:
        """Returns for how many seconds there is nothing to do."""
        if self._work is not None:
            return _WORKING_S
        limits, now = [IDLE_S], self.clock.now()
        if self._rules.timetable is not None and self.state.cursor is not None and self.state.paused is None:
            limits.append(self._rules.timetable.after(self.state.cursor) - now)
        if self.state.queue and self.state.queue[0].not_before > now:
            limits.append(self.state.queue[0].not_before - now)
        if self.state.queue or self._settings.watches_spans:
            limits.append(seconds(self._settings.poll))
        return max(min(limits), 0.01)

    def _tick(self) -> None:
        seen: list[looking.Look] = []

        def look() -> looking.Look:
            seen.append(looking.look(self._config))
            return seen[0]

        decision = policy.tick(self.state, self._rules, self.clock.now(), look)
        start = decision.start
        if start is not None:
            job, span, digest = start
            token = uuid.uuid4().hex
            temporary = os.path.join(tempfile.gettempdir(), f"evergreen-run-{token}")
            result_file = str(self._places.result(token))
            running = Running(job, span, digest, self.clock.now(), result_file, temporary=temporary)
            decision.change(running=running)
        self._apply(decision)
        if start is not None and self.state.running is not None:
            self._start(self.state.running)

    def _start(self, running: Running) -> None:
        attempt = f", attempt {running.job.attempt}" if running.job.attempt > 1 else ""
        what = "gate 1 only" if running.job.decide_only else f"trigger {running.job.trigger}"
        self._say(f"run of {times.text(running.job.scheduled)} on span {running.span}: {what}{attempt}")
        try:
            os.makedirs(running.temporary, mode=0o700)
            environment = {**os.environ, "TMPDIR": running.temporary}
            process = supervise.Process(self._command(self._config, running), environment)
        except OSError as error:
            result = run_result.RunResult("failed", reason=f"it cannot be started: {error}", retryable=True)
            self._finish(End(result, None))
            return
        self._work = _Work(process, self.clock.monotonic(), self._settings, self.clock.monotonic())
        self._remember(dataclasses.replace(running, pid=process.pid, created=process.created))

    def _remember(self, running: Running) -> None:
        self.state = dataclasses.replace(self.state, running=running)
        state.write(self._places.state, self.state)

    def _look_after(self, work: _Work) -> None:
        """Ends a run that has ended by itself, that exceeds a limit, or whose grace is over."""
        now = self.clock.monotonic()
        if not work.process.ended:
            self._limit(work, now)
            return
        self._work = None
        status = work.process.close()
        running = self.state.running
        assert running is not None
        self._end = End(run_result.read(Path(running.result_file)), status, work.cut_off, now - work.since)

    def _limit(self, work: _Work, now: float) -> None:
        limit = work.settings.memory_limit
        if now - work.read >= _BETWEEN_S:
            work.read = now
            # Also without a limit: what is seen here is known to belong to the run when it must end.
            if work.process.memory() > (size_bytes(limit) if limit else float("inf")):
                self._say(f"the run holds more than {limit} of memory and is ended")
                work.cut_off = "memory"
                work.process.kill()
        if work.interrupted is not None:
            if now - work.interrupted > _STOP_S:
                work.process.kill()
            return
        if now - work.since > seconds(work.settings.time_limit):
            self._say(f"the run has taken longer than {work.settings.time_limit} and is ended")
            work.cut_off = "time"
        elif self._stopped is not None and (self._hurried or now - self._stopped > seconds(work.settings.grace)):
            self._say("the run is stopped at a safe point")
            work.cut_off = "stop"
        else:
            return
        work.interrupted = now
        work.process.interrupt()

    def _finish(self, end: End) -> None:
        running = self.state.running
        if running is not None and running.temporary:
            shutil.rmtree(running.temporary, ignore_errors=True)
        decision = verdicts.ended(self.state, self._rules, self.clock.now(), end, random.random())
        paused = decision.state.paused
        if paused is not None and paused.lifts and not paused.project:
            decision.change(paused=dataclasses.replace(paused, project=self._project))
        self._live = (float("-inf"), 0, 0.0)
        self._apply(decision)
        self._end = None
        self._places.remove_results()

    def _apply(self, decision: Decision) -> None:
        """Remembers a decision, then says what there is to say."""
        now = times.text(self.clock.now())
        events = [
            {"id": uuid.uuid4().hex, "event": event, "message": message, "model": self._config.name, "time": now}
            | values
            for event, message, values in decision.notices
            if any(event in entry.on for entry in self._settings.notify)
        ]
        if events:
            decision.change(outbox=(*decision.state.outbox, *events)[-_KEPT_EVENTS:])
        if decision.state != self.state:
            state.write(self._places.state, decision.state)
            self.state = decision.state
        for line in decision.says:
            self._say(line)
        for event in events:
            self._notifier.send(self._settings.notify, event, self._told.append)
        if self._left is not None:
            self._left -= decision.finished

    def _recover(self) -> None:
        """Takes up what an earlier scheduler left when it was killed."""
        for event in self.state.outbox:
            self._notifier.send(self._settings.notify, event, self._told.append)
        atomic.sweep(self._places.folder, self._places.state.name)
        running = self.state.running
        if running is None:
            return
        killed = supervise.sweep(running.pid, running.created)
        if killed:
            self._say(f"ended what an earlier run had left: {killed} processes")
        self._finish(End(run_result.read(Path(running.result_file)), None))

    def _take_up_changes(self) -> None:
        """Reads the configuration again where the project has changed, and hears whoever wants to go on."""
        if self._places.resume.exists():
            self._places.resume.unlink(missing_ok=True)
            self._apply(policy.resume(self.state, self.clock.now()))
        project = project_digest(self._config)
        paused = self.state.paused
        waits = paused is not None and paused.lifts and paused.project != project
        if project == self._project and not waits:
            return
        self._project = project
        try:
            config = self._load()
            configuration.check_files(config)
            if config.workspace_dir != self._places.workspace:
                raise ConfigError("`workspace` has changed", str(config.workspace_dir), "start the scheduler anew")
            self._config, self._settings, self._rules = config, settings_of(config), rules(config)
        except EvergreenError as error:
            decision = Decision(self.state)
            verdicts.pause(decision, self.clock.now(), f"{error.headline}: {error.reason}", lifts=True)
            held = decision.state.paused
            assert held is not None
            decision.change(paused=dataclasses.replace(held, project=project) if held.lifts else held)
            self._apply(decision)
            return
        if waits:
            self._apply(policy.resume(self.state, self.clock.now()))

    def _forget_told(self) -> None:
        """Takes what was delivered, or given up, out of the outbox."""
        told = {self._told.popleft() for _ in range(len(self._told))}
        if told:
            decision = Decision(self.state)
            decision.change(outbox=tuple(event for event in self.state.outbox if event["id"] not in told))
            self._apply(decision)

    def _publish(self) -> None:
        """Tells monitoring how things stand, and reports a model that has grown stale."""
        self._forget_told()
        now, monotonic = self.clock.now(), self.clock.monotonic()
        if monotonic - self._live[0] > 60:
            self._live = (monotonic, *live_version(self._config, self.state))
        _, version, published = self._live
        if version and self._stopped is None:
            self._apply(policy.stale(self.state, self._rules, now, version, published))
        due = next_run(self.state, self._rules)
        if self.endpoint is not None:
            limit, paused = self._settings.max_model_age, self.state.paused
            self.endpoint.snapshot = Snapshot(
                beat=time.monotonic(),
                next_run=due,
                last_success=self.state.last_success,
                live_version=version,
                live_published=published,
                max_model_age=seconds(limit) if limit else None,
                running=self.state.running.started if self.state.running else 0.0,
                paused=paused.reason if paused else "",
                waiting=len(self.state.queue),
                failures=self.state.failures,
                counts=dict(self.state.counts),
                seconds=self.state.seconds,
            )
        beat = json.dumps({"time": now, "pid": os.getpid(), "next_run": due, "live_version": version or None})
        # Not durable: after a power cut nothing beats anyway.
        aside = self._places.heartbeat.with_name(".heartbeat")
        with contextlib.suppress(OSError):
            aside.write_text(beat + "\n", encoding="utf-8")
            os.replace(aside, self._places.heartbeat)
