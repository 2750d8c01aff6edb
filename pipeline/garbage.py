"""Which artifacts nothing needs any more, and removing them. The record of each stays in ML Metadata, marked DELETED.

`needless` is pure. Collected are the types that take the room: examples, transform graphs, analyzer caches, models and
their training's files. Statistics, verdicts and reports stay, so that lineage and reports go on to tell.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evergreen.components.pusher import catalog
from evergreen.components.span_records import DELETED, LIVE, SpanRecord
from evergreen.pipeline.config import Config
from evergreen.pipeline.store import Result, Run, Store

TYPES = ("Examples", "TransformGraph", "TransformCache", "Model", "ModelRun")
# The runs that a next one may take up, or whose analyzer cache it takes.
_LAST_RUNS = 2


@dataclass(frozen=True)
class Item:
    """One artifact that may go.

    Attributes:
      id: its id in ML Metadata.
      type: its type.
      path: its folder.
      bytes: what that takes.
      recorded: whether it is marked as deleted already, and only its files were left behind.
    """

    id: int
    type: str
    path: str
    bytes: int
    recorded: bool = False


def needless(
    candidates: Mapping[int, str],
    runs: Iterable[Run],
    outputs: Mapping[int, Collection[int]],
    records: Iterable[SpanRecord],
    models: Collection[int],
    window: int,
) -> list[int]:
    """Decides which artifacts nothing needs.

    Args:
      candidates: type by artifact id, of all that exist.
      runs: the runs with their stages, oldest first.
      outputs: by execution id, ids of the artifacts that the execution gave, also from the cache.
      records: gate 1's decisions.
      models: ids of the models in the base path: the champion, and those that can be gone back to.
      window: how many spans a window holds.

    Returns:
      Artifact ids in order. Kept is what the run of a published model gave, but its examples; the examples of the
      newest spans, one more than a window holds; all of the last runs; and the newest two analyzer caches.
    """
    ordered, decisions = list(runs), list(records)
    newest = sorted({record.span for record in decisions})[-(window + 1) :]
    kept = {record.examples_id for record in decisions if record.span in newest}
    last = {run.id for run in ordered[-_LAST_RUNS:]} | {run.id for run in ordered if run.result is Result.RUNNING}
    for run in ordered:
        given = {artifact for stage in run.stages for artifact in outputs.get(stage.execution_id, ())}
        if run.id in last:
            kept |= given
        elif given & set(models):
            kept |= {artifact for artifact in given if candidates.get(artifact) != "Examples"}
    kept |= set(sorted(one for one, kind in candidates.items() if kind == "TransformCache")[-2:])
    return sorted(one for one, kind in candidates.items() if kind in TYPES and one not in kept)


def find(config: Config, store: Store) -> list[Item]:
    """Lists what can go.

    Args:
      config: the project's configuration.
      store: its metadata store; the caller holds the run lock.

    Returns:
      The artifacts whose folders lie in the workspace's artifacts, in the order of their ids.
    """
    if not store.exists:
        return []
    protos = {artifact.id: (artifact, kind) for kind in TYPES for artifact in store.mlmd.get_artifacts_by_type(kind)}
    live = {id_: kind for id_, (artifact, kind) in protos.items() if artifact.state == LIVE}
    runs = store.runs(stages=True)
    outputs = {
        stage.execution_id: [a.id for group in store.outputs(stage.execution_id).values() for a in group]
        for run in runs
        for stage in run.stages
    }
    versions = catalog.list_versions(config.publish.base_path)
    models = {record.model_artifact_id for record in versions if record.model_artifact_id is not None}
    gone = needless(live, runs, outputs, store.span_records(), models, config.data.window)
    items = [_item(protos[id_][0], protos[id_][1]) for id_ in gone]
    left = [_item(a, kind, recorded=True) for a, kind in protos.values() if a.state == DELETED]
    root = os.path.join(config.pipeline_root, "")
    inside = [item for item in items if item.path.startswith(root)]
    return inside + [item for item in left if item.path.startswith(root) and os.path.isdir(item.path)]


def remove(store: Store, items: Iterable[Item]) -> None:
    """Marks artifacts as deleted, then removes their files: what is cut off between the two is found by the next call.

    Args:
      store: the metadata store; the caller holds the run lock.
      items: what `find` gave.
    """
    chosen = list(items)
    protos = store.mlmd.get_artifacts_by_id([item.id for item in chosen if not item.recorded])
    for proto in protos:
        proto.state = DELETED
    if protos:
        store.mlmd.put_artifacts(protos)
    for item in chosen:
        shutil.rmtree(item.path, ignore_errors=True)


def _item(artifact: Any, kind: str, recorded: bool = False) -> Item:
    path = os.path.abspath(artifact.uri)
    sizes = (file.lstat().st_size for file in Path(path).rglob("*") if file.is_file() and not file.is_symlink())
    return Item(artifact.id, kind, path, sum(sizes), recorded)
