"""Resolver strategies: the window, the previous span's statistics, the champion and the analyzer cache.

Each is a `tfx.dsl.components.common.resolver.ResolverStrategy` for a stock Resolver node and looks only at ML Metadata
and, for the champion, at the live version's manifest. What a strategy cannot find it leaves as an empty list, which a
node downstream takes as an absent optional input.
"""

from __future__ import annotations

from typing import Any

from tfx.dsl.components.common import resolver

from evergreen.components import span_records
from evergreen.components.pusher import catalog

_Artifacts = dict[str, list[Any]]


def _pick(artifacts: list[Any], ids: list[int]) -> list[Any]:
    """Returns the artifacts with these ids, in the order of the ids."""
    by_id = {artifact.id: artifact for artifact in artifacts}
    return [by_id[i] for i in ids if i in by_id]


class PreviousStatistics(resolver.ResolverStrategy):
    """Statistics of the newest accepted span before this one, what drift is measured against.

    Args:
      span: the span that is being validated.
    """

    def __init__(self, span: int):
        self._span = span

    def resolve_artifacts(self, store: Any, input_dict: _Artifacts) -> _Artifacts:
        """Keeps at most one artifact under `statistics`."""
        accepted = span_records.newest_accepted(span_records.span_records(store))
        earlier = [record for span, record in accepted.items() if span < self._span]
        newest = max(earlier, key=lambda record: record.span, default=None)
        return {"statistics": _pick(input_dict["statistics"], [newest.statistics_id] if newest else [])}


class Window(resolver.ResolverStrategy):
    """The examples that a training reads: of each span of the window the newest accepted version, oldest span first.

    A rejected span is left out and not replaced by an older one; the run refuses to train where fewer than `min_window`
    are left.

    Args:
      spans: the span numbers of the window.
    """

    def __init__(self, spans: list[int]):
        self._spans = set(spans)

    def resolve_artifacts(self, store: Any, input_dict: _Artifacts) -> _Artifacts:
        """Keeps the window's artifacts under `examples`."""
        accepted = span_records.newest_accepted(span_records.span_records(store))
        ids = [accepted[span].examples_id for span in sorted(accepted) if span in self._spans]
        return {"examples": _pick(input_dict["examples"], ids)}


class Champion(resolver.ResolverStrategy):
    """The Model behind the manifest of the live version, and nothing else.

    The stock LatestBlessedModelStrategy would also take a model that failed a later gate, was withdrawn or rolled back.

    Args:
      base_path: TensorFlow Serving's base path of the model.
    """

    def __init__(self, base_path: str):
        self._base_path = base_path

    def resolve_artifacts(self, store: Any, input_dict: _Artifacts) -> _Artifacts:
        """Keeps at most one artifact under `model`."""
        live = catalog.live_manifest(self._base_path)
        if live is None:
            return {"model": []}
        return {
            "model": [
                model
                for model in input_dict["model"]
                if live.carries(model.id, model.uri, model.mlmd_artifact.create_time_since_epoch)
            ]
        }


class AnalyzerCache(resolver.ResolverStrategy):
    """The newest analyzer cache that another window left behind; none on the first run.

    A cache made from this very span version is passed over: a resumed run must see the inputs of the run that it
    resumes, or nothing of that one could be reused.

    Args:
      span: the newest span of the run.
      version: its version.
    """

    def __init__(self, span: int, version: int):
        self._key = (span, version)

    def resolve_artifacts(self, store: Any, input_dict: _Artifacts) -> _Artifacts:
        """Keeps at most one artifact under `cache`."""
        caches = {artifact.id: artifact for artifact in input_dict["cache"]}
        made = span_records.producers_and_inputs(store, caches)
        examples = {a.id: a for a in span_records.live_artifacts(store, span_records.EXAMPLES_TYPE)}
        for cache_id in sorted(caches, reverse=True):
            _, inputs = made.get(cache_id, (0, []))
            spans = [
                (span_records.property_value(examples[i], "span"), span_records.property_value(examples[i], "version"))
                for i in inputs
                if i in examples
            ]
            if spans and max(spans) != self._key:
                return {"cache": [caches[cache_id]]}
        return {"cache": []}
