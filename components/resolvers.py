"""Resolver strategies: the window, the previous span's statistics, the champion and the analyzer cache.

Each is a `tfx.dsl.components.common.resolver.ResolverStrategy` for a stock Resolver node and looks only at ML Metadata
and, for the champion, at the live version's manifest. What a strategy cannot find it leaves as an empty list, which a
node downstream takes as an absent optional input.

A strategy asks ML Metadata for the few artifacts that it gives. As inputs of the Resolver TFX would look up every
artifact that the pipeline ever made, before the strategy is asked; so the Resolver's channels are empty, and only name
types and keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ml_metadata import ListOptions, OrderByField
from tfx.dsl.components.common import resolver
from tfx.types import artifact_utils, standard_artifacts

from evergreen.components import span_records
from evergreen.components.pusher import catalog

_Artifacts = dict[str, list[Any]]
_PIPELINE_TYPE = "pipeline"  # of the context that all executions of a pipeline belong to
_FIRST_PAGE = 64


def _get(store: Any, ids: list[int], pipeline: str) -> list[Any]:
    """Returns the live ones of the pipeline's artifacts, in the order of the ids, as TFX's own class."""
    protos = {a.id: a for a in (store.get_artifacts_by_id(ids) if ids else []) if a.state == span_records.LIVE}
    made = span_records.producers_and_inputs(store, protos)
    own = [protos[i] for i in ids if i in made and _belongs(store, made[i][0], pipeline)]
    types = {a.type_id: store.get_artifact_types_by_id([a.type_id])[0] for a in own}
    return [artifact_utils.deserialize_artifact(types[a.type_id], a) for a in own]


def _belongs(store: Any, execution_id: int, pipeline: str) -> bool:
    """Whether an execution is the pipeline's: several may share a database."""
    contexts = store.get_contexts_by_execution(execution_id)
    return any(c.type == _PIPELINE_TYPE and c.name == pipeline for c in contexts)


class PreviousStatistics(resolver.ResolverStrategy):
    """Statistics of the newest accepted span before this one, what drift is measured against.

    Args:
      span: the span that is being validated.
      pipeline: the pipeline's name.
    """

    def __init__(self, span: int, pipeline: str):
        self._span = span
        self._pipeline = pipeline

    def resolve_artifacts(self, store: Any, input_dict: _Artifacts) -> _Artifacts:
        """Gives at most one artifact under `statistics`."""
        newest = span_records.newest_accepted_before(store, self._span)
        return {"statistics": _get(store, [newest.statistics_id] if newest else [], self._pipeline)}


class Window(resolver.ResolverStrategy):
    """The examples that a training reads: of each span of the window the newest accepted version, oldest span first.

    A rejected span is left out and not replaced by an older one; the run refuses to train where fewer than `min_window`
    are left.

    Args:
      spans: the span numbers of the window.
      pipeline: the pipeline's name.
    """

    def __init__(self, spans: list[int], pipeline: str):
        self._spans = set(spans)
        self._pipeline = pipeline

    def resolve_artifacts(self, store: Any, input_dict: _Artifacts) -> _Artifacts:
        """Gives the window's artifacts under `examples`."""
        accepted = span_records.newest_accepted(span_records.span_records(store, self._spans))
        return {"examples": _get(store, [accepted[span].examples_id for span in sorted(accepted)], self._pipeline)}


class Champion(resolver.ResolverStrategy):
    """The Model behind the manifest of the live version, and nothing else.

    The stock LatestBlessedModelStrategy would also take a model that failed a later gate, was withdrawn or rolled back.

    Args:
      base_path: TensorFlow Serving's base path of the model.
      pipeline: the pipeline's name.
    """

    def __init__(self, base_path: str, pipeline: str):
        self._base_path = base_path
        self._pipeline = pipeline

    def resolve_artifacts(self, store: Any, input_dict: _Artifacts) -> _Artifacts:
        """Gives at most one artifact under `model`."""
        live = catalog.live_manifest(self._base_path)
        if live is None:
            return {"model": []}
        found = _get(store, [live.model_artifact_id], self._pipeline)
        return {
            "model": [
                model
                for model in found
                if model.type_name == standard_artifacts.Model.TYPE_NAME
                and live.carries(model.id, model.uri, model.mlmd_artifact.create_time_since_epoch)
            ]
        }


class AnalyzerCache(resolver.ResolverStrategy):
    """The newest analyzer cache that another window left behind; none on the first run.

    A cache made from this very span version is passed over: a resumed run must see the inputs of the run that it
    resumes, or nothing of that one could be reused.

    Args:
      span: the newest span of the run.
      version: its version.
      pipeline: the pipeline's name.
    """

    def __init__(self, span: int, version: int, pipeline: str):
        self._key = (span, version)
        self._pipeline = pipeline

    def resolve_artifacts(self, store: Any, input_dict: _Artifacts) -> _Artifacts:
        """Gives at most one artifact under `cache`."""
        for cache in _newest_first(store, standard_artifacts.TransformCache.TYPE_NAME):
            spans = self._spans(store, cache.id)
            if spans and max(spans) != self._key and (found := _get(store, [cache.id], self._pipeline)):
                return {"cache": found}
        return {"cache": []}

    def _spans(self, store: Any, cache_id: int) -> list[tuple[int, int]]:
        """Lists the span versions that a cache was made from, of those that are still there."""
        _, inputs = span_records.producers_and_inputs(store, [cache_id]).get(cache_id, (0, []))
        return [
            (span_records.property_value(a, "span"), span_records.property_value(a, "version"))
            for a in (store.get_artifacts_by_id(inputs) if inputs else [])
            if a.type == span_records.EXAMPLES_TYPE and a.state == span_records.LIVE
        ]


def _newest_first(store: Any, type_name: str) -> Iterator[Any]:
    """Yields the live artifacts of a type, reading no more of all artifacts than it takes."""
    last, size = None, _FIRST_PAGE
    while True:
        page = store.get_artifacts(ListOptions(limit=size, order_by=OrderByField.ID, is_asc=False))
        for artifact in page:
            if (
                (last is None or artifact.id < last)
                and artifact.type == type_name
                and artifact.state == span_records.LIVE
            ):
                yield artifact
        if len(page) < size:
            return
        last, size = page[-1].id, size * 4
