"""TFX's launcher, one node at a time, over a compiled pipeline. With `short_lookups` the only module that touches
TFX's orchestration internals.

They are the same in TFX 1.16 and 1.21.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tfx.dsl.compiler import compiler, constants
from tfx.orchestration import metadata
from tfx.orchestration import pipeline as tfx_pipeline
from tfx.orchestration.local import runner_utils
from tfx.orchestration.portable import execution_publish_utils, launcher, runtime_parameter_utils
from tfx.types import artifact

from evergreen.pipeline import short_lookups


class _Launcher(launcher.Launcher):
    """TFX's launcher, which says when it has found that a node must be executed."""

    executing: Callable[[], None]

    def _run_executor(self, execution_info: Any) -> Any:
        self.executing()
        return super()._run_executor(execution_info)


class Launch:
    """Launches the nodes of a pipeline by their ids.

    Args:
      pipeline: the pipeline.
      run_id: names the run's context in ML Metadata.
      executing: told a node's id when it is executed, and not answered from the cache or skipped.
    """

    def __init__(
        self,
        pipeline: tfx_pipeline.Pipeline,
        run_id: str,
        executing: Callable[[str], None] = lambda node_id: None,
    ):
        short_lookups.install()
        self._executing = executing
        self._ir = compiler.Compiler().compile(pipeline)
        runtime_parameter_utils.substitute_runtime_parameter(
            self._ir, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: run_id}
        )
        self._deployment = runner_utils.extract_local_deployment_config(self._ir)
        connection = self._deployment.metadata_connection_config
        self._connection = getattr(connection, connection.WhichOneof("connection_config"))
        self._nodes = {node.pipeline_node.node_info.id: node.pipeline_node for node in self._ir.nodes}

    @property
    def node_ids(self) -> list[str]:
        """Every node's id in topological order."""
        return list(self._nodes)

    def upstream(self, node_id: str) -> set[str]:
        """Returns a node's id with those of all nodes that must run before it."""
        found: set[str] = set()
        waiting = [node_id]
        while waiting:
            one = waiting.pop()
            if one not in found:
                found.add(one)
                waiting.extend(self._nodes[one].upstream_nodes)
        return found

    def __call__(self, node_id: str) -> int | None:
        """Runs a node to its end.

        Args:
          node_id: the node.

        Returns:
          The execution's id in ML Metadata; None where a closed gate skipped the node.

        Raises:
          Exception: whatever the executor raised.
        """
        node = _Launcher(
            pipeline_node=self._nodes[node_id],
            mlmd_connection=metadata.Metadata(self._connection),
            pipeline_info=self._ir.pipeline_info,
            pipeline_runtime_spec=self._ir.runtime_spec,
            executor_spec=runner_utils.extract_executor_spec(self._deployment, node_id),
            custom_driver_spec=runner_utils.extract_custom_driver_spec(self._deployment, node_id),
        )
        node.executing = functools.partial(self._executing, node_id)
        info: Any = node.launch()
        return info.execution_id if info is not None and info.execution_id else None


def complete(connection: Any, execution_id: int, key: str, output: artifact.Artifact) -> None:
    """Records that an execution, still marked RUNNING, had come to its end.

    Args:
      connection: an ml_metadata ConnectionConfig.
      execution_id: the execution.
      key: the key of its only output.
      output: the output artifact, not yet in ML Metadata.
    """
    with metadata.Metadata(connection) as handle:
        contexts = handle.store.get_contexts_by_execution(execution_id)
        execution_publish_utils.publish_succeeded_execution(handle, execution_id, contexts, {key: [output]})
