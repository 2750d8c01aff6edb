"""Makes TFX's look-ups for a node read this run, or the newest executions, instead of every run there ever was.

TFX finds a node's inputs among all executions of the producer, and a cached result among all executions that ever had
it. Both answers stay what they are; only what is read on the way is less. `launch` installs this; the functions are
the same in TFX 1.16 and 1.21.
"""

from __future__ import annotations

import types
from typing import Any

from ml_metadata import ListOptions, OrderByField
from tfx.orchestration.portable import cache_utils
from tfx.orchestration.portable.input_resolution import channel_resolver

from evergreen.pipeline.store import RUN_TYPE

_FIRST_PAGE = 4

# By the run's id and the execution's: the contexts that it was registered with, which stay. ML Metadata has no index
# for this question, so it is asked once.
_contexts: dict[tuple[str, int], set[int]] = {}

_stock_executions = channel_resolver._get_executions_by_all_contexts
_stock_cached_outputs = cache_utils.get_cached_outputs


def install() -> None:
    """Puts the shorter look-ups in the place of TFX's, for this process."""
    channel_resolver._get_executions_by_all_contexts = executions_of_all
    cache_utils.get_cached_outputs = cached_outputs


def executions_of_all(store: Any, contexts: Any) -> list[Any]:
    """Finds the executions that belong to every one of the contexts, among those of the run where it is one of them.

    Args:
      store: an `ml_metadata.MetadataStore`.
      contexts: protos.

    Returns:
      The executions' protos.
    """
    run = next((context for context in contexts if context.type == RUN_TYPE), None)
    if run is None:
        return list(_stock_executions(store, contexts))
    executions = store.get_executions_by_context(run.id)
    for execution in executions:
        if (run.name, execution.id) not in _contexts:
            found = store.get_contexts_by_execution(execution.id)
            _contexts[run.name, execution.id] = {context.id for context in found}
    wanted = {context.id for context in contexts}
    return [execution for execution in executions if wanted <= _contexts[run.name, execution.id]]


def cached_outputs(metadata_handle: Any, cache_context: Any) -> Any:
    """Finds what the newest execution with the same inputs made, if its files are still there.

    Args:
      metadata_handle: TFX's connection to ML Metadata.
      cache_context: the context of the cache's key.

    Returns:
      The output artifacts by key, or None.
    """
    store, size = metadata_handle.store, _FIRST_PAGE
    while True:
        options = ListOptions(limit=size, order_by=OrderByField.ID, is_asc=False)
        page = store.get_executions_by_context(cache_context.id, list_options=options)
        found = _stock_cached_outputs(types.SimpleNamespace(store=_Page(store, page)), cache_context)
        if found is not None or len(page) < size:
            return found
        size *= 8


class _Page:
    """A store that knows of no other executions of the asked context than a page of them."""

    def __init__(self, store: Any, page: list[Any]):
        self._store = store
        self._page = page

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def get_executions_by_context(self, context_id: int) -> list[Any]:
        return self._page
