"""What a dead process may have left as running, found without reading all that came before.

A run begins with a recovery, under the lock, which settles every older run and execution; so what was registered before
the executions of the newest such run is settled. Rollbacks and other tools' runs begin without one.
"""

from __future__ import annotations

from typing import Any

from evergreen.pipeline.rollback import TRIGGER as ROLLBACK
from evergreen.pipeline.store import RUN_TYPE, Run, Store

_FIRST_RUNS, _FIRST_EXECUTIONS = 4, 64


def runs_and_executions(store: Store) -> tuple[list[Run], list[Any]]:
    """Lists what may have to be settled.

    Args:
      store: the project's metadata store.

    Returns:
      The runs down to the newest one that began with a recovery, newest first, without their stages; and the pipeline's
      executions (protos) still marked RUNNING that are not older than that run's.
    """
    if not store.exists:
        return [], []
    from ml_metadata import ListOptions, OrderByField
    from ml_metadata.proto import metadata_store_pb2 as pb

    runs, oldest = _since_a_recovery(store)
    limit = _FIRST_EXECUTIONS
    while True:
        options = ListOptions(limit=limit, order_by=OrderByField.ID, is_asc=False)
        executions = store.mlmd.get_executions(options)
        if len(executions) < limit or executions[-1].id <= oldest:
            break
        limit *= 4
    marked = (pb.Execution.RUNNING, pb.Execution.NEW)
    return runs, [e for e in executions if e.id >= oldest and e.last_known_state in marked and store.node_of(e.id)]


def _since_a_recovery(store: Store) -> tuple[list[Run], int]:
    """Returns the runs, and the id of the last one's first execution; 0 where no run began with a recovery."""
    count = _FIRST_RUNS
    while True:
        runs = store.newest_runs(count)
        for index, run in enumerate(runs):
            if run.trigger in ("", ROLLBACK):
                continue
            context = store.mlmd.get_context_by_type_and_name(RUN_TYPE, run.id)
            executions = store.mlmd.get_executions_by_context(context.id)
            if executions:
                return runs[: index + 1], min(execution.id for execution in executions)
        if len(runs) < count:
            return runs, 0
        count *= 4
