"""A worker or a parameter server of a training cluster: it does what the coordinator asks for until it is ended.

    python -m evergreen.components.trainer.task [PARENT]

TF_CONFIG says which task of which cluster it is. With PARENT, the id of the process that starts it, it dies with it.
`tf.distribute.Server` listens on every interface of the machine, and whoever reaches its port can run what they like:
the network has to keep others away.
"""

from __future__ import annotations

import os
import sys

from evergreen.components.errors import ConfigError, EvergreenError
from evergreen.components.trainer import cluster, parent


def main(parent_id: str | None = None) -> None:
    """Serves as TF_CONFIG says; does not return.

    Args:
      parent_id: the process to die with; None to serve until ended.

    Raises:
      ConfigError: TF_CONFIG is not set, or does not name a worker or a ps.
    """
    if parent_id is not None:
        parent.die_with(int(parent_id))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    plan = cluster.read(os.environ)
    if plan is None or plan.task.job not in (cluster.WORKER, cluster.PS):
        received = "nothing" if plan is None else f"the task {plan.task}"
        raise ConfigError(
            "TF_CONFIG does not say which task this process is",
            f"received {received}, expected a worker or a ps",
            'Set its "task" to {"type": "worker", "index": 0}, and "cluster" to all addresses.',
        )
    cluster.listen(plan).close()
    import tensorflow as tf

    jobs = {job: list(addresses) for job, addresses in plan.jobs.items()}
    server = tf.distribute.Server(
        tf.train.ClusterSpec(jobs), job_name=plan.task.job, task_index=plan.task.index, protocol="grpc"
    )
    server.join()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except EvergreenError as refusal:
        sys.exit(str(refusal))
