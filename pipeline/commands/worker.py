"""`evergreen worker`: this host takes part in the trainings of another one."""

from __future__ import annotations

import os

import click

from evergreen.components.errors import ConfigError
from evergreen.pipeline import config as configuration
from evergreen.pipeline import options
from evergreen.pipeline.console import Console

EXAMPLE = '{"cluster": {"worker": ["host-a:2222", "host-b:2222"]}, "task": {"type": "worker", "index": 1}}'


@click.command()
@options.config
def command(config_file: str | None, overrides: tuple[str, ...]) -> None:
    """Take part in the trainings of a cluster, as the task that TF_CONFIG names, until ended.

    The host that leads (`chief`, or `worker` 0 where there is none) runs `evergreen run` with the same TF_CONFIG but
    for its own task; this command waits for its orders. Under parameter_server it needs no project. Under
    multi_worker_mirrored it trains along, and takes the functions from the project of this folder or of -c.

    Whoever reaches the task's port can run code on this host: keep the cluster's network to itself.

    \b
    Example:
      export TF_CONFIG='{"cluster": {"worker": ["host-a:2222", "host-b:2222"]},
                         "task": {"type": "worker", "index": 1}}'
      evergreen worker
    """
    from evergreen.components.trainer import cluster, worker

    plan = cluster.read(os.environ)
    if plan is None:
        raise ConfigError(
            "there is no TF_CONFIG, which says what task this host is",
            "the variable is not set, or names no cluster",
            f"Set it, for example TF_CONFIG='{EXAMPLE}'",
        )
    if plan.task in cluster.leading(plan):
        raise ConfigError(
            f"the task {plan.task} of TF_CONFIG leads the trainings",
            "it runs the pipeline itself, and gives the others their orders",
            "Run `evergreen run` here, and `evergreen worker` on the other hosts.",
        )
    worker.serve(plan, _project_dir(config_file, overrides), Console().note)


def _project_dir(config_file: str | None, overrides: tuple[str, ...]) -> str | None:
    try:
        return str(configuration.load(config_file, overrides).project_dir)
    except configuration.NoProject:
        if config_file is not None:
            raise
        return None
