"""A rollback as a run in ML Metadata: its context, an execution `Rollback` from the Model to a new PushedModel.

Written without tfx, so that the command answers at once. What counts is the base path: where ML Metadata cannot be
written, the rollback is done all the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evergreen.components import atomic
from evergreen.components.errors import EvergreenError
from evergreen.components.pusher import catalog, rollback
from evergreen.components.pusher.catalog import VersionRecord
from evergreen.pipeline.config import Config
from evergreen.pipeline.runner import new_run_id
from evergreen.pipeline.span_pattern import Pattern
from evergreen.pipeline.store import NODE_TYPE, RUN_TYPE, Result, Run, State, Store

NODE = "Rollback"
TRIGGER = "rollback"
_EXECUTION_TYPE = "evergreen.Rollback"
_PUSHED_TYPE = "PushedModel"


def roll_back(
    config: Config, store: Store, to: int | None, say: Callable[[str], None] = lambda text: None
) -> tuple[rollback.Restored, list[str]]:
    """Makes an earlier version's model live again, and records that as a run.

    Args:
      config: the project's configuration.
      store: its metadata store.
      to: the version to restore; None for the one before the live model.
      say: told what is waited for, again and again, while labels are moved.

    Returns:
      What was done, and in words what could not be: written down, or the labels moved.

    Raises:
      EvergreenError: it could not be done.
    """
    run_id, warnings, executions = new_run_id(), [], []

    def register() -> str:
        try:
            store.begin_run(run_id, {"trigger": TRIGGER, "attempt": 1, "pid": os.getpid()})
            executions.append(_begin(store, run_id))
        except Exception as error:  # a database that does not answer must not keep a bad version live
            warnings.append(_unrecorded(error))
        return "".join(map(str, executions))

    try:
        done = rollback.roll_back(config.publish.base_path, to, register=register)
    except EvergreenError as error:
        for execution_id in executions:
            store.mark_failed(store.mlmd.get_executions_by_id([execution_id]))
            store.end_run(run_id, Result.FAILED, {"reason": error.headline})
        raise
    for execution_id in executions:
        try:
            _end(config, store, run_id, execution_id, os.fspath(done.path), done.restores)
        except Exception as error:
            warnings.append(_unrecorded(error))
    return done, [*warnings, *_relabel(config, done.version, say)]


def _relabel(config: Config, version: int, say: Callable[[str], None]) -> list[str]:
    """Points the servers' labels at the restored version; returns why that was not possible."""
    if config.publish.models_config is None:
        return []
    from evergreen.components.pusher import watch, watch_plan

    settings = watch_plan.parse_settings(config.publish_settings())
    try:
        words = watch.relabel(
            settings, config.publish.base_path, config.name, version, lambda fraction, text: say(text)
        )
    except EvergreenError as error:
        words = f"The labels stay where they are: {error.headline}: {error.reason}"
    return [words] if words else []


def adopt(config: Config, store: Store, run: Run, records: list[VersionRecord]) -> int:
    """Records a rollback that was killed after its version stood in the base path.

    Args:
      config: the project's configuration.
      store: its metadata store.
      run: a run that did not end, with its stages.
      records: what the base path holds.

    Returns:
      The version; 0 where the run is no rollback, or its version never came.
    """
    stage = next((s for s in run.stages if s.node == NODE and s.state is State.RUNNING), None)
    if stage is None:
        return 0
    made = next((r for r in records if r.restores and r.pushed_by == str(stage.execution_id)), None)
    if made is None or made.restores is None:
        return 0
    _end(config, store, run.id, stage.execution_id, made.path, made.restores)
    return made.version


def _unrecorded(error: Exception) -> str:
    return f"ML Metadata does not know of this rollback: {type(error).__name__}: {error}"


def _begin(store: Store, run_id: str) -> int:
    """Registers the execution as running; a kill leaves it to `recovery`."""
    from ml_metadata.proto import metadata_store_pb2 as pb

    mlmd = store.mlmd
    kind = mlmd.put_execution_type(pb.ExecutionType(name=_EXECUTION_TYPE), can_add_fields=True)
    execution = pb.Execution(type_id=kind, last_known_state=pb.Execution.RUNNING)
    contexts = [
        _context(mlmd, RUN_TYPE, run_id),
        _context(mlmd, "pipeline", store.pipeline),
        _context(mlmd, NODE_TYPE, f"{store.pipeline}.{NODE}"),
    ]
    return int(mlmd.put_execution(execution, [], contexts)[0])


def _context(mlmd: Any, kind: str, name: str) -> Any:
    from ml_metadata.proto import metadata_store_pb2 as pb

    found = mlmd.get_context_by_type_and_name(kind, name)
    if found is not None:
        return found
    type_id = mlmd.put_context_type(pb.ContextType(name=kind), can_add_fields=True)
    return pb.Context(type_id=type_id, name=name)


def _end(config: Config, store: Store, run_id: str, execution_id: int, path: str, restores: int) -> None:
    """Completes the execution: the Model in, a PushedModel out, as the Pusher leaves one."""
    from ml_metadata.proto import metadata_store_pb2 as pb

    mlmd = store.mlmd
    manifest = catalog.version_manifest(path)
    assert manifest is not None
    uri = Path(config.pipeline_root) / NODE / "pushed_model" / str(execution_id)
    atomic.make_directory(uri)
    atomic.write_file(uri / "evergreen.json", manifest.to_json())
    message = f"Version {manifest.version} restores version {restores}."
    kind = mlmd.put_artifact_type(pb.ArtifactType(name=_PUSHED_TYPE), can_add_fields=True, can_omit_fields=True)
    pushed = pb.Artifact(type_id=kind, uri=str(uri), state=pb.Artifact.LIVE)
    for name, number in (("pushed", 1), ("published", 1), ("span", manifest.span), ("restores", restores)):
        pushed.custom_properties[name].int_value = number
    for name, text in (
        ("pushed_version", str(manifest.version)),
        ("pushed_destination", path),
        ("message", message),
    ):
        pushed.custom_properties[name].string_value = text
    pairs = [(pushed, _event(pb.Event.OUTPUT, "pushed_model"))]
    model = store.artifact(manifest.model_artifact_id)
    if model is not None and model.uri == manifest.model_uri:
        pairs.append((model, _event(pb.Event.INPUT, "model")))
    (execution,) = mlmd.get_executions_by_id([execution_id])
    execution.last_known_state = pb.Execution.COMPLETE
    contexts = [*mlmd.get_contexts_by_execution(execution_id)]
    mlmd.put_execution(execution, pairs, contexts)
    label = Pattern(config.data.pattern).label(manifest.span)
    properties: dict[str, str | int] = {
        "reason": message,
        "pushed_version": manifest.version,
        "span_label": label,
        "metrics": json.dumps({"exam": manifest.metrics}),
    }
    store.end_run(run_id, Result.ROLLED_BACK, properties)


def _event(kind: Any, key: str) -> Any:
    from ml_metadata.proto import metadata_store_pb2 as pb

    steps = [pb.Event.Path.Step(key=key), pb.Event.Path.Step(index=0)]
    return pb.Event(type=kind, path=pb.Event.Path(steps=steps))
