"""Savings for TensorFlow Transform in this process; each changes time, not results.

A preprocessing function of sixty lines takes a third of a second to trace, and a run with an analyzer cache traces it
ten times without these, five times with them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

_Outputs = Mapping[str, Any]
_Preprocessing = Callable[[Mapping[str, Any]], _Outputs]


def install() -> None:
    """Makes TensorFlow Transform trace a preprocessing function less often. Calling this again does nothing."""
    _trace_once()
    _remember_ranged()


def _trace_once() -> None:
    """Traces a preprocessing function once for all the questions that TensorFlow Transform asks of its graph.

    It asks which columns are analysed (twice), which are transformed, which spans and which entries of the cache are
    needed, and traces the function anew for each. The answers are read from the graph, of which nothing but its
    collections is changed. A graph that is to be analysed is another one, with paths for its vocabularies.
    """
    from tensorflow_transform import impl_helper

    original = impl_helper.trace_preprocessing_function
    if getattr(original, "remembers", False):
        return
    # The last one only: a run has one preprocessing function, and graphs are large.
    last: dict[str, Any] = {}

    def trace_preprocessing_function(
        preprocessing_fn: Any, input_specs: Any, use_tf_compat_v1: bool, base_temp_dir: str | None = None
    ) -> Any:
        if use_tf_compat_v1:
            return original(preprocessing_fn, input_specs, use_tf_compat_v1, base_temp_dir)
        if base_temp_dir is not None:
            return original(_ranged.watched(preprocessing_fn), input_specs, use_tf_compat_v1, base_temp_dir)
        if last.get("function") is not preprocessing_fn or last["specs"] != input_specs:
            traced = original(preprocessing_fn, input_specs, use_tf_compat_v1)
            last.update(function=preprocessing_fn, specs=dict(input_specs), traced=traced)
            last["collections"] = {name: traced[0].get_collection(name) for name in traced[0].get_all_collection_keys()}
        graph = last["traced"][0]
        for name, values in last["collections"].items():
            graph.get_collection_ref(name)[:] = values
        return last["traced"]

    trace_preprocessing_function.remembers = True  # type: ignore[attr-defined]
    impl_helper.trace_preprocessing_function = trace_preprocessing_function


class _Ranged:
    """Which outputs of a preprocessing function have a range that its analyzers give, seen while it is traced.

    These are the row numbers of vocabularies and of buckets; before the analysis nothing but their names is known.
    """

    def __init__(self) -> None:
        self._function: _Preprocessing | None = None
        self._inputs: set[str] = set()
        self._names: list[str] = []

    def watched(self, function: _Preprocessing) -> _Preprocessing:
        """Returns the same function, whose next call is looked at."""
        from tensorflow.python.framework import ops
        from tensorflow_transform import schema_inference

        @functools.wraps(function)
        def preprocessing_fn(inputs: Mapping[str, Any]) -> _Outputs:
            given = set(inputs)
            outputs = function(inputs)
            if isinstance(outputs, dict):
                keys = schema_inference._get_tensor_value_to_key_map(outputs)
                annotated = ops.get_default_graph().get_collection(schema_inference._TF_METADATA_TENSOR_COLLECTION)
                self._function, self._inputs = function, given
                self._names = [keys[tensor.name] for tensor in annotated if tensor.name in keys]
            return outputs

        return preprocessing_fn

    def of(self, function: _Preprocessing, inputs: Mapping[str, Any]) -> list[str] | None:
        """Returns the names of those outputs, None where this function was not the last one to be watched."""
        return self._names if function is self._function and set(inputs) == self._inputs else None


_ranged = _Ranged()


def _remember_ranged() -> None:
    """Tells which outputs have a range as it was seen when the graph to be analysed was traced.

    TensorFlow Transform traces the function once more to learn it, as a function of no rows.
    """
    import tensorflow as tf
    from tensorflow_transform import schema_inference

    collection = schema_inference._TF_METADATA_TENSOR_COLLECTION
    original = schema_inference.get_traced_metadata_fn
    if getattr(original, "remembers", False):
        return

    def get_traced_metadata_fn(
        preprocessing_fn: Any, structured_inputs: Any, tf_graph_context: Any, evaluate_schema_overrides: bool
    ) -> Any:
        names = None if evaluate_schema_overrides else _ranged.of(preprocessing_fn, structured_inputs)
        if names is None:
            return original(preprocessing_fn, structured_inputs, tf_graph_context, evaluate_schema_overrides)
        return lambda: {collection: [tf.constant(name) for name in names]}

    get_traced_metadata_fn.remembers = True  # type: ignore[attr-defined]
    schema_inference.get_traced_metadata_fn = get_traced_metadata_fn
