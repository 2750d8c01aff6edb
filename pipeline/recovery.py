"""Putting a workspace right after a process died in it.

Called with the run lock held, so that whatever is still marked as running belongs to nobody. TFX leaves such an
execution RUNNING for ever, with its half-written outputs on disk; here it becomes FAILED and its files go, so that
the next run, which the cache takes up to that point, starts the stage clean.

A run that died after its version stood in the base path did publish: the version is adopted by its manifest. Where it
died while it watched the version on the servers, the watch is finished first, which may withdraw the version.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from evergreen.components.pusher import catalog, publish, versions, watch_plan, withdrawal
from evergreen.pipeline import light_imports, stages
from evergreen.pipeline.config import Config
from evergreen.pipeline.run_log import RunLog
from evergreen.pipeline.store import Result, Run, Stage, State, Store, connection_config


@dataclass(frozen=True)
class _Push:
    """What a run that was cut off had pushed.

    Attributes:
      version: the version.
      path: its directory in the base path.
      span: newest span of its window.
      reason: why it was withdrawn; empty where it stands.
    """

    version: int
    path: str
    span: int
    reason: str = ""


@dataclass(frozen=True)
class Recovered:
    """What was put right.

    Attributes:
      stages: ids of the nodes that were cut off.
      runs: ids of the runs that were cut off.
      adopted: by run, the version that it had published before it died.
      withdrawn: by run, the version that it had published and that was withdrawn since.
      swept: leftovers of a push that were completed or removed, in words.
    """

    stages: tuple[str, ...]
    runs: tuple[str, ...]
    adopted: Mapping[str, int]
    swept: tuple[str, ...]
    withdrawn: Mapping[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.stages or self.runs or self.adopted or self.withdrawn or self.swept)

    def lines(self) -> list[str]:
        """Says in words what was put right, a line each."""
        cut_off = [f"run {run} was cut off{f' in {self.stages[-1]}' if self.stages else ''}" for run in self.runs]
        adopted = [f"run {run} was cut off after it had published version {v}" for run, v in self.adopted.items()]
        withdrawn = [f"run {run} was cut off; its version {v} is withdrawn" for run, v in self.withdrawn.items()]
        return [*cut_off, *adopted, *withdrawn, *self.swept] or ["a stage was cut off"]


def recover(config: Config, store: Store, say: Callable[[str], None] = lambda text: None) -> Recovered:
    """Marks what a dead process left running as failed and removes what it left half-written.

    Args:
      config: the project's configuration.
      store: its metadata store. The caller holds the run lock.
      say: told, again and again, what a watch that is being finished waits for.

    Returns:
      What was found.

    Raises:
      EvergreenError: a watch cannot be finished now, because a server does not answer.
    """
    base_path = str(config.publish.base_path)
    swept = (*publish.recover(base_path), *_finish_watch(config, say))
    if not store.exists:
        return Recovered((), (), {}, swept)
    # Nothing is cut off as a rule, and reading every run with its stages takes the longer the more runs there were.
    if not store.running_executions() and all(run.result is not Result.RUNNING for run in store.runs()):
        return Recovered((), (), {}, swept)
    unfinished = [run for run in store.runs(stages=True) if run.result is Result.RUNNING or _cut_off_push(run)]
    pushes = _pushes(base_path, config.name) if unfinished else {}
    ended = {run.id: pushes[run.id] for run in unfinished if run.id in pushes}
    for run in unfinished:
        if run.id in ended:
            _adopt(config, store, run, ended[run.id])
    dead = store.running_executions()
    for execution, node in dead:
        _remove_outputs(Path(config.pipeline_root) / node, execution.id)
    store.mark_failed([execution for execution, _ in dead])
    cut_off = tuple(run.id for run in unfinished if run.result is Result.RUNNING and run.id not in ended)
    for run_id in cut_off:
        store.end_run(run_id, Result.KILLED, {"reason": "the process ended before the run did"})
    return Recovered(
        tuple(node for _, node in dead),
        cut_off,
        {run_id: push.version for run_id, push in ended.items() if not push.reason},
        swept,
        {run_id: push.version for run_id, push in ended.items() if push.reason},
    )


def _finish_watch(config: Config, say: Callable[[str], None]) -> tuple[str, ...]:
    """Does what is left of a watch over a version, if there is one; returns how it ended, in words."""
    base = versions.local_path(config.publish.base_path)
    if watch_plan.read_pending(base) is None:
        return ()
    from evergreen.components.pusher import watch

    settings = watch_plan.parse_settings(config.publish.model_dump(mode="json"))
    with (
        watch.Watch(settings, base, config.name, lambda fraction, text: say(text)) as watching,
        watching.held(),
    ):
        ended = watching.finish()
    return (ended.text, *ended.warnings) if ended is not None else ()


def _pushes(base_path: str, name: str) -> dict[str, _Push]:
    """Finds what each run has published, by the manifests of the versions that stand and of those withdrawn."""
    found = {}
    for version, withdrawn in withdrawal.list_withdrawn(versions.local_path(base_path)).items():
        manifest = withdrawal.withdrawn_manifest(withdrawn)
        if manifest is not None and manifest.run and manifest.name == name:
            path = str(withdrawn.path.with_name(str(version)))
            found[manifest.run] = _Push(version, path, manifest.span, withdrawn.reason or "it was withdrawn")
    for record in catalog.list_versions(base_path):
        if record.run and record.name == name:
            found[record.run] = _Push(record.version, record.path, record.span or 0)
    return found


def _cut_off_push(run: Run) -> Stage | None:
    """The Pusher's execution, where nobody said how it ended. The stock runner's runs say nothing of themselves."""
    return next((s for s in run.stages if s.node == "Pusher" and s.state is State.RUNNING), None)


def _adopt(config: Config, store: Store, run: Run, pushed: _Push) -> None:
    """Records what a run had published: the Pusher's execution, where that was cut off, and the run's end."""
    push = _cut_off_push(run)
    if push is not None:
        with RunLog(config.logs_dir, run.id) as log, log.stage("recovery"):
            _complete_push(config, push.node, push.execution_id, pushed)
    outputs = {stage.node: store.outputs(stage.execution_id) for stage in run.stages}
    if pushed.reason:
        reason = f"version {pushed.version} was withdrawn: {pushed.reason}"
        store.end_run(run.id, Result.WITHDRAWN, stages.end_properties(outputs, reason, 0))
    else:
        store.end_run(run.id, Result.PUBLISHED, stages.end_properties(outputs, "", pushed.version))


def _complete_push(config: Config, node: str, execution_id: int, push: _Push) -> None:
    """Writes the execution as TFX would have."""
    light_imports.install()
    from tfx.types import standard_artifacts

    from evergreen.components.pusher.executor import describe_push
    from evergreen.pipeline import launch

    pushed = standard_artifacts.PushedModel()
    pushed.uri = str(Path(config.pipeline_root) / node / "pushed_model" / str(execution_id))
    message = f"Version {push.version} was published before the run was cut off"
    describe_push(
        pushed,
        push.span,
        published=not push.reason,
        message=f"{message}, and withdrawn since: {push.reason}" if push.reason else f"{message}.",
        version=push.version,
        destination=push.path,
        reason=push.reason,
    )
    launch.complete(connection_config(config.connection), execution_id, "pushed_model", pushed)


def _remove_outputs(node_dir: Path, execution_id: int) -> None:
    """Removes the directories that TFX names after an execution: each output's and its scratch."""
    for parent in (*node_dir.glob("*"), *node_dir.glob(".system/*"), *node_dir.glob(".system/*/*")):
        shutil.rmtree(parent / str(execution_id), ignore_errors=True)
