"""A scheduler without a clock, without runs and without TensorFlow: what the tests of the schedule stand on."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from evergreen.pipeline.run_result import RunResult
from evergreen.pipeline.schedule import policy, times, verdicts
from evergreen.pipeline.schedule.look import Look
from evergreen.pipeline.schedule.policy import Decision, Rules
from evergreen.pipeline.schedule.state import Running, State
from evergreen.pipeline.schedule.verdicts import End
from evergreen.pipeline.settings_schedule import ScheduleSettings
from evergreen.pipeline.span_pattern import Pattern

YAML = """\
name: flights
workspace: {folder}/workspace
data: {{path: {folder}/data, pattern: "{pattern}"}}
schema: schema.pbtxt
features: features:preprocessing_fn
trainer: {{model: "model:build_model"}}
evaluate: {{label: late, metrics: [auc]}}
publish: {{base_path: {folder}/models/flights}}
schedule: {schedule}
"""


def utc(*parts: int) -> float:
    """Returns a moment by year, month, day, hour, ... in UTC."""
    return datetime.datetime(*parts, tzinfo=datetime.timezone.utc).timestamp()  # type: ignore[misc,arg-type]


def rules(pattern: str = "{YYYY}-{MM}-{DD}/*.parquet", **settings: Any) -> Rules:
    """Returns the rules of a section `schedule`; daily at 03:00 UTC by default."""
    if not {"cron", "every", "on_new_span", "on_drift", "on_metric_drop"} & set(settings):
        settings["cron"] = "0 3 * * *"
    section = ScheduleSettings.model_validate(settings)
    spans = Pattern(pattern)

    def expected(scheduled: float) -> str | None:
        span = times.expected_span(spans, scheduled, section)
        return None if span is None else spans.label(span)

    return Rules(section, times.timetable(section), expected)


class Scheduler:
    """The policy, driven by hand.

    Args:
      given: the rules.
      now: the present.
      spans: labels of the complete spans.
    """

    def __init__(self, given: Rules, now: float, spans: tuple[str, ...] = ()):
        self.rules = given
        self.now = now
        self.state = State()
        self.spans = dict.fromkeys(spans, "files")
        self.missing: dict[str, str] = {}
        self.says: list[str] = []
        self.events: list[str] = []
        self.started: list[tuple[float, str, str]] = []
        self.decided_only: list[str] = []
        self.looks = 0
        self.tick()

    def look(self) -> Look:
        """Looks at the spans."""
        self.looks += 1
        return Look(dict(sorted(self.spans.items())), self.missing)

    def tick(self) -> None:
        """Ticks once."""
        decision = policy.tick(self.state, self.rules, self.now, self.look)
        if decision.start is not None:
            job, span, digest = decision.start
            decision.change(running=Running(job, span, digest, self.now, "result.json"))
            self.started.append((job.scheduled, span, job.trigger))
            if job.decide_only:
                self.decided_only.append(span)
        self.take(decision)

    def take(self, decision: Decision) -> None:
        """Takes a decision over."""
        self.state = decision.state
        self.says += decision.says
        self.events += [event for event, _, _ in decision.notices]

    def until(self, moment: float, step: float = 600.0) -> None:
        """Lets time pass, with a tick at every step."""
        while self.now < moment:
            self.now = min(self.now + step, moment)
            self.tick()

    def end(self, result: str = "published", **values: Any) -> None:
        """Ends the run that goes on."""
        keys = ("status", "cut_off", "seconds")
        process = {"status": 0, "cut_off": "", "seconds": 60.0, **{k: v for k, v in values.items() if k in keys}}
        rest = {key: value for key, value in values.items() if key not in keys}
        self.finish(End(RunResult(result, run="r1", **rest), **process))

    def finish(self, end: End, draw: float = 0.5) -> None:
        """Ends the run that goes on as its process ended."""
        self.take(verdicts.ended(self.state, self.rules, self.now, end, draw))

    @property
    def results(self) -> list[str]:
        """How the runs ended, in their order."""
        return [ended.result for ended in self.state.ended]


def project(folder: Path, schedule: str = "{every: 10s}", pattern: str = "{SPAN}/*.parquet", spans: int = 1) -> Path:
    """Makes a project that can be loaded and looked at, not trained. Returns its YAML."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "evergreen.yaml"
    file.write_text(YAML.format(folder=folder, pattern=pattern, schedule=schedule))
    (folder / "schema.pbtxt").write_text('feature { name: "late" type: INT }\n')
    (folder / "features.py").write_text("def preprocessing_fn(inputs):\n    return inputs\n")
    (folder / "model.py").write_text("def build_model(transform_output, hyperparameters):\n    return None\n")
    for number in range(1, spans + 1):
        deliver(folder, str(number))
    return file


def deliver(folder: Path, label: str) -> None:
    """Puts a span into a project's data directory."""
    (folder / "data" / label).mkdir(parents=True, exist_ok=True)
    (folder / "data" / label / "a.parquet").write_text(label)
