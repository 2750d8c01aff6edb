"""Putting a workspace right after a process died in it.

Called with the run lock held, so that whatever is still marked as running belongs to nobody. TFX leaves such an
execution RUNNING for ever, with its half-written outputs on disk; here it becomes FAILED and its files go, so that
the next run, which the cache takes up to that point, starts the stage clean.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from evergreen.components.pusher import publish
from evergreen.pipeline.config import Config
from evergreen.pipeline.store import Result, Store


@dataclass(frozen=True)
class Recovered:
    """What was put right.

    Attributes:
      stages: ids of the nodes that were cut off.
      runs: ids of the runs that were cut off.
      swept: leftovers of a push that were completed or removed, in words.
    """

    stages: tuple[str, ...]
    runs: tuple[str, ...]
    swept: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.stages or self.runs or self.swept)


def recover(config: Config, store: Store) -> Recovered:
    """Marks what a dead process left running as failed and removes what it left half-written.

    Args:
      config: the project's configuration.
      store: its metadata store. The caller holds the run lock.

    Returns:
      What was found.
    """
    swept = tuple(publish.recover(str(config.publish.base_path)))
    if not store.exists:
        return Recovered((), (), swept)
    dead = store.running_executions()
    for execution, node in dead:
        _remove_outputs(Path(config.pipeline_root) / node, execution.id)
    store.mark_failed([execution for execution, _ in dead])
    cut_off = [run.id for run in store.runs() if run.result is Result.RUNNING]
    for run_id in cut_off:
        store.end_run(run_id, Result.KILLED, {"reason": "the process ended before the run did"})
    return Recovered(tuple(node for _, node in dead), tuple(cut_off), swept)


def _remove_outputs(node_dir: Path, execution_id: int) -> None:
    """Removes the directories that TFX names after an execution: each output's and its scratch."""
    for parent in (*node_dir.glob("*"), *node_dir.glob(".system/*"), *node_dir.glob(".system/*/*")):
        shutil.rmtree(parent / str(execution_id), ignore_errors=True)
