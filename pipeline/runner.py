"""Runs one retraining: TFX's own launcher node by node, with progress, a log for each stage and a verdict at the end.

What is launched is exactly what the stock LocalDagRunner launches. Around it stand the run's context in ML Metadata,
the reading of each gate's verdict, and the translation of whatever goes wrong into one result.
"""

from __future__ import annotations

import atexit
import datetime
import gc
import itertools
import json
import os
import socket
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from evergreen.components import ahead
from evergreen.components import progress as progress_hook
from evergreen.components.errors import DataRejected, EvergreenError, ModelRejected
from evergreen.components.span_records import property_value
from evergreen.pipeline import fingerprint, light_imports, progress_file, run_result, stages
from evergreen.pipeline.config import Config
from evergreen.pipeline.plan import Plan
from evergreen.pipeline.run_log import RunLog
from evergreen.pipeline.store import Result, State, Store


@dataclass
class Outcome:
    """How a retraining ended.

    Attributes:
      run_id: the run.
      result: how it ended.
      version: what it published or found published, 0 where nothing.
      reason: why it did not publish.
      error: what the user is told where it did not publish.
      outputs: by node id, the output artifacts (protos) by key.
      seconds: wall-clock seconds by node id.
      retryable: whether what it failed by may be gone at the next attempt.
    """

    run_id: str
    result: Result = Result.RUNNING
    version: int = 0
    reason: str = ""
    error: EvergreenError | None = None
    outputs: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    retryable: bool = False


_given: set[str] = set()


def new_run_id() -> str:
    """Returns the id of a run that starts now: its time in UTC, which sorts, and the process.

    TFX takes two runs of one id for one run and answers the second by the first, so a second run of this process within
    a second gets a number.
    """
    now = datetime.datetime.now(datetime.timezone.utc)
    first = now.strftime("%Y%m%dT%H%M%S") + f"-{os.getpid()}"
    run_id = next(name for n in itertools.count(1) if (name := first if n == 1 else f"{first}.{n}") not in _given)
    _given.add(run_id)
    return run_id


def retrain(
    config: Config,
    plan: Plan,
    store: Store,
    console: Any,
    log: RunLog,
    properties: Mapping[str, str | int],
) -> Outcome:
    """Runs one retraining to its verdict.

    Args:
      config: the project's configuration.
      plan: what to do.
      store: the project's metadata store; the caller holds the run lock.
      console: shows the stages (`console.StageProgress`).
      log: takes the output of TensorFlow, Beam and the user's functions.
      properties: the run's properties (trigger, scheduled time, ...).

    Returns:
      The outcome; what the user must be told is in it, nothing is raised but KeyboardInterrupt.
    """
    assert plan.target is not None
    # Python 3.13 crashes in its last garbage collection after TensorFlow Transform ran in the process; nothing that is
    # frozen is collected.
    atexit.register(gc.freeze)
    outcome = Outcome(log.run_id)
    store.begin_run(
        log.run_id,
        {
            "span": plan.target.span,
            "span_version": plan.target.version,
            "span_label": plan.target.label,
            "window": json.dumps([entry.span for entry in plan.window]),
            "attempt": plan.attempt,
            "code_version": fingerprint.code_version(str(config.project_dir)),
            "packages": json.dumps(fingerprint.chief_packages()),
            "packages_digest": fingerprint.packages()[:16],
            "host": socket.gethostname(),
            "pid": os.getpid(),
            **properties,
        },
    )
    try:
        _Execution(config, plan, store, console, log, outcome).run()
    except KeyboardInterrupt:
        _end(store, outcome, Result.KILLED, "interrupted")
        raise
    except Exception as error:
        log.write(traceback.format_exc())
        known = _evergreen_error(error)
        outcome.retryable = run_result.can_pass(error)
        outcome.error = known or EvergreenError(
            f"{stages.title(console.stage)} failed: {type(error).__name__}",
            _first_line(str(error)),
            f"the whole story: evergreen logs {log.run_id} {console.stage or ''}".rstrip(),
        )
        result = Result.FAILED
        if isinstance(known, DataRejected):
            result = Result.DATA_REJECTED
        elif isinstance(known, ModelRejected):
            result = Result.MODEL_REJECTED
        _end(store, outcome, result, outcome.error.headline)
    else:
        _end(store, outcome, outcome.result, outcome.reason)
    return outcome


def drift(config: Config, plan: Plan, store: Store) -> list[str]:
    """Lists the features in which a decided span differs from the span that the live model was trained on.

    Args:
      config: the project's configuration.
      plan: the plan of the run that decided it.
      store: the project's metadata store.

    Returns:
      The features' names; none where nothing is live, or the live model's span is not known here.
    """
    from tfx.types import standard_artifacts

    from evergreen.components.span_validator.executor import drifted

    records = {record.key: record for record in store.span_records()}
    champion, target = plan.champion, plan.target
    reference = records.get((champion.span, champion.span_version or 0)) if champion is not None else None
    newest = records.get(target.key) if target is not None else None
    if reference is None or newest is None:
        return []

    def statistics(artifact_id: int) -> Any:
        artifact = standard_artifacts.ExampleStatistics()
        artifact.set_mlmd_artifact(store.artifact(artifact_id))
        return artifact

    return drifted(statistics(newest.statistics_id), statistics(reference.statistics_id), str(config.schema_path))


def _end(store: Store, outcome: Outcome, result: Result, reason: str) -> None:
    outcome.result, outcome.reason = result, reason
    store.end_run(outcome.run_id, result, stages.end_properties(outcome.outputs, reason, outcome.version))


def _evergreen_error(error: BaseException | None) -> EvergreenError | None:
    """Finds the refusal in a chain of exceptions: TFX and Beam wrap what an executor raises."""
    while error is not None:
        if isinstance(error, EvergreenError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:400]


class _Execution:
    """One pass over the pipeline's nodes."""

    def __init__(self, config: Config, plan: Plan, store: Store, console: Any, log: RunLog, outcome: Outcome):
        self.config = config
        self.plan = plan
        self.store = store
        self.console = console
        self.log = log
        self.outcome = outcome

    def run(self) -> None:
        """Launches every node in order and reads the verdicts."""
        started = time.monotonic()
        # The longest names are those of older spans that this run decides too.
        self.console.widen(f"SpanExampleGen.{entry.label}" for entry in self.plan.ingest)
        self.console.start("start-up", "loading TensorFlow and TFX")
        launch, node_ids = self._prepare()
        self.console.done("TensorFlow and TFX loaded", time.monotonic() - started)
        progress_hook.set_listener(self._hear)
        try:
            for node_id in node_ids:
                self._node(node_id, launch)
        finally:
            progress_hook.set_listener(None)
            ahead.end()
        self._conclude()

    def _look_ahead(self, node_id: str) -> None:
        """Lets later stages' processes begin beside a stage that keeps one core busy for longer.

        They load TensorFlow while Transform runs, or the Trainer where that is cached; the converter begins as soon as
        there is something to convert. The stages do it themselves otherwise.
        """
        if node_id not in ("Transform", "Trainer", "Evaluator"):
            return
        from evergreen.components.model_server import process
        from evergreen.components.quantizer import early, worker
        from evergreen.components.quantizer.settings import QuantizeSettings
        from evergreen.components.serving_validator import validation

        settings = QuantizeSettings.from_json(self.config.quantize.model_dump_json())
        if node_id == "Evaluator":
            early.model(self._output("Trainer", "model"), settings)
            return
        if settings.variants:
            worker.prepare()
        process.prepare(validation.ENVIRONMENT)
        if node_id == "Trainer":
            early.preprocessing(self._output("Transform", "transform_graph"), self.config.evaluate.label, settings)

    def _output(self, node_id: str, key: str) -> str:
        uri: str = self.outcome.outputs[node_id][key][0].uri
        return uri

    def _hear(self, fraction: float | None, text: str) -> None:
        """Passes a stage's report on, to the terminal and to whoever asks for the status."""
        self.console.update(fraction, text)
        stage = self.console.stage or ""
        progress_file.write(self.config.workspace_dir, self.outcome.run_id, stage, fraction, text)

    def _prepare(self) -> tuple[Callable[[str], Any], list[str]]:
        """Imports TFX, builds and compiles the pipeline.

        Returns:
          A function that launches a node by its id, and the ids in topological order.
        """
        with self.log.stage("start-up"), light_imports.uncollected():
            light_imports.install()
            from evergreen.components.trainer import devices

            devices.configure(self.config.trainer.model_dump(mode="json"))
            from evergreen.components import fast_beam
            from evergreen.pipeline.create import beam_args, create_pipeline
            from evergreen.pipeline.launch import Launch

            fast_beam.install(beam_args(self.config))
            launch = Launch(create_pipeline(self.config, self.plan), self.outcome.run_id, self._look_ahead)
            if not self.plan.decide_only:
                return launch, launch.node_ids
            first = launch.upstream("SpanValidator") | launch.upstream("ChampionExam")
            return launch, [node_id for node_id in launch.node_ids if node_id in first]

    def _node(self, node_id: str, launch: Callable[[str], Any]) -> None:
        shown, closed = stages.is_shown(node_id), stages.closed_gate(node_id, self.outcome.outputs)
        if shown and not closed:
            self.console.start(node_id, stages.describe(node_id))
        began = time.monotonic()
        with self.log.stage(node_id):
            execution_id = launch(node_id)
        seconds = time.monotonic() - began
        self.outcome.seconds[node_id] = seconds
        if execution_id is None:
            if shown:
                self.console.skipped(node_id, f"{closed or 'a condition before it'} is closed")
            return
        state = self.store.execution_state(execution_id)
        if state is State.FAILED:
            raise EvergreenError(
                f"{stages.title(node_id)} could not find its inputs",
                "TFX resolved none; its log says what it looked for",
                f"evergreen logs {self.outcome.run_id} {node_id}",
            )
        outputs = self.store.outputs(execution_id)
        self.outcome.outputs[node_id] = outputs
        if shown:
            summary = stages.summary(node_id, outputs)
            self.console.done(summary + (" (cached)" if state is State.CACHED else ""), seconds)
        for warning in stages.warnings(node_id, outputs):
            self.console.warn(warning)
        if node_id == "Window" and not self.plan.decide_only:
            self._check_window(outputs.get("examples", []))

    def _check_window(self, examples: list[Any]) -> None:
        wanted = {entry.span: entry.label for entry in self.plan.window}
        there = {property_value(artifact, "span") for artifact in examples}
        missing = [label for span, label in wanted.items() if span not in there]
        if len(there) < self.config.data.min_window:
            raise DataRejected(
                f"too few accepted spans: {len(there)}, and `data.min_window` is {self.config.data.min_window}",
                "rejected: " + ", ".join(missing),
                "deliver the rejected spans again, or lower `data.min_window`",
            )
        if missing:
            self.console.warn(f"the window is without span {', '.join(missing)}: rejected by gate 1")

    def _conclude(self) -> None:
        """Reads the gates in their order; the first closed one is the result."""
        outputs, outcome = self.outcome.outputs, self.outcome
        refusal = stages.refusal(outputs, self.plan)
        if refusal is not None:
            outcome.error = refusal
            outcome.reason = refusal.headline
            outcome.result = Result.DATA_REJECTED if isinstance(refusal, DataRejected) else Result.MODEL_REJECTED
            return
        if self.plan.decide_only:
            outcome.result = Result.DECIDED
            return
        pushed = outputs["Pusher"]["pushed_model"][0]
        withdrawal = stages.withdrawal(pushed)
        if withdrawal is not None:
            outcome.error, outcome.reason, outcome.result = withdrawal, withdrawal.headline, Result.WITHDRAWN
            return
        outcome.version = int(property_value(pushed, "pushed_version", 0))
        published = bool(property_value(pushed, "published", 1))
        outcome.result = Result.PUBLISHED if published else Result.UNCHANGED
        outcome.reason = "" if published else f"the same model is already published as version {outcome.version}"
