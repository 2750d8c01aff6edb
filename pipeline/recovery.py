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
from dataclasses import dataclass
from pathlib import Path

from evergreen.components.pusher import catalog, publish, versions, watch_plan
from evergreen.components.pusher.catalog import VersionRecord
from evergreen.pipeline import light_imports, rollback, stages, unsettled
from evergreen.pipeline.config import Config
from evergreen.pipeline.run_log import RunLog
from evergreen.pipeline.store import Result, Run, Stage, State, Store
from evergreen.pipeline.store_connection import connection_config


@dataclass(frozen=True)
class Recovered:
    """What was put right.

    Attributes:
      stages: ids of the nodes that were cut off.
      runs: ids of the runs that were cut off.
      adopted: by run, the version that it had published before it died.
      swept: leftovers of a push that were completed or removed, in words.
    """

    stages: tuple[str, ...]
    runs: tuple[str, ...]
    adopted: Mapping[str, int]
    swept: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.stages or self.runs or self.adopted or self.swept)

    def lines(self) -> list[str]:
        """Says in words what was put right, a line each."""
        cut_off = [f"run {run} was cut off{f' in {self.stages[-1]}' if self.stages else ''}" for run in self.runs]
        adopted = [f"run {run} was cut off after it had published version {v}" for run, v in self.adopted.items()]
        return [*cut_off, *adopted, *self.swept] or ["a stage was cut off"]


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
    swept = (*publish.recover(str(config.publish.base_path)), *_finish_watch(config, say))
    if not store.exists:
        return Recovered((), (), {}, swept)
    # Nothing is cut off as a rule, and reading every run with its stages takes the longer the more runs there were.
    recent, executions = unsettled.runs_and_executions(store)
    if not executions and all(run.result is not Result.RUNNING for run in recent):
        return Recovered((), (), {}, swept)
    unfinished = [run for run in store.runs(stages=True) if run.result is Result.RUNNING or _cut_off_push(run)]
    records = catalog.list_versions(str(config.publish.base_path)) if unfinished else []
    published = {record.run: record for record in records if record.run and record.name == config.name}
    adopted = {run.id: published[run.id] for run in unfinished if run.id in published}
    found = {run_id: record.version for run_id, record in adopted.items()}
    for run in unfinished:
        if run.id in adopted:
            _adopt(config, store, run, adopted[run.id])
        else:
            restored = rollback.adopt(config, store, run, records)
            found.update({run.id: restored} if restored else {})
    dead = store.running_executions()
    for execution, node in dead:
        _remove_outputs(Path(config.pipeline_root) / node, execution.id)
    store.mark_failed([execution for execution, _ in dead])
    cut_off = tuple(run.id for run in unfinished if run.result is Result.RUNNING and run.id not in found)
    for run_id in cut_off:
        store.end_run(run_id, Result.KILLED, {"reason": "the process ended before the run did"})
    return Recovered(tuple(node for _, node in dead), cut_off, found, swept)


def _finish_watch(config: Config, say: Callable[[str], None]) -> tuple[str, ...]:
    """Does what is left of a watch over a version, if there is one; returns how it ended, in words."""
    if versions.is_uri(config.publish.base_path):
        return ()
    base = versions.local_path(config.publish.base_path)
    if watch_plan.read_pending(base) is None:
        return ()
    from evergreen.components.pusher import watch

    settings = watch_plan.parse_settings(config.publish_settings())
    with (
        watch.Watch(settings, base, config.name, lambda fraction, text: say(text)) as watching,
        watching.held(),
    ):
        ended = watching.finish()
    return (ended.text, *ended.warnings) if ended is not None else ()


def _cut_off_push(run: Run) -> Stage | None:
    """The Pusher's execution, where nobody said how it ended. The stock runner's runs say nothing of themselves."""
    return next((s for s in run.stages if s.node == "Pusher" and s.state is State.RUNNING), None)


def _adopt(config: Config, store: Store, run: Run, record: VersionRecord) -> None:
    """Records what a run had published: the Pusher's execution, where that was cut off, and the run's end."""
    push = _cut_off_push(run)
    if push is not None:
        with RunLog(config.logs_dir, run.id) as log, log.stage("recovery"):
            _complete_push(config, push.node, push.execution_id, record)
    outputs = {stage.node: store.outputs(stage.execution_id) for stage in run.stages}
    if record.withdrawn is None:
        store.end_run(run.id, Result.PUBLISHED, stages.end_properties(outputs, "", record.version))
    else:
        reason = f"version {record.version} was withdrawn: {record.withdrawn}"
        store.end_run(run.id, Result.WITHDRAWN, stages.end_properties(outputs, reason, 0))


def _complete_push(config: Config, node: str, execution_id: int, record: VersionRecord) -> None:
    """Writes the execution as TFX would have."""
    light_imports.install()
    from tfx.types import standard_artifacts

    from evergreen.components.pusher.executor import describe_push
    from evergreen.pipeline import launch

    pushed = standard_artifacts.PushedModel()
    pushed.uri = str(Path(config.pipeline_root) / node / "pushed_model" / str(execution_id))
    message = f"Version {record.version} was published before the run was cut off"
    reason = "" if record.withdrawn is None else record.withdrawn or "it was withdrawn"
    describe_push(
        pushed,
        record.span or 0,
        published=not reason,
        message=f"{message}, and withdrawn since: {reason}" if reason else f"{message}.",
        version=record.version,
        # Where a server had seen it; of one that was withdrawn, another name beside it holds the files now.
        destination=str(Path(record.path).with_name(str(record.version))) if reason else record.path,
        reason=reason,
    )
    launch.complete(connection_config(config.connection), execution_id, "pushed_model", pushed)


def _remove_outputs(node_dir: Path, execution_id: int) -> None:
    """Removes the directories that TFX names after an execution: each output's and its scratch."""
    for parent in (*node_dir.glob("*"), *node_dir.glob(".system/*"), *node_dir.glob(".system/*/*")):
        shutil.rmtree(parent / str(execution_id), ignore_errors=True)
