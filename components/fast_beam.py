"""Savings for Beam pipelines in this process, TensorFlow Transform's above all; each changes time, not results.

All were found by profiling Transform on three small spans, where the fixed cost of a pipeline outweighs its data.
"""

from __future__ import annotations

import bz2
import contextlib
import importlib
import types
from collections.abc import Sequence
from typing import Any

# TFX packs its own source into an sdist for remote workers in every Beam executor, unless the arguments name some
# dependency. Where no container is started, the name of its image says nothing else.
NO_PACKAGE_ARGS = ("--sdk_container_image=none",)
# Beam lists the installed packages by pip for each job, to compare them with those of an image.
OWN_CODE_ARGS = (*NO_PACKAGE_ARGS, "--experiments=disable_logging_submission_environment")
# Workers that are this process, a pool or a program that somebody started: they bring their own packages.
_OWN_CODE = ("LOOPBACK", "EXTERNAL", "PROCESS")

_memo: dict[Any, tuple[list[str], list[Any]]] = {}


def workers_have_our_code(args: Sequence[str]) -> bool:
    """Whether Beam's workers, by these arguments, have TFX without being sent it.

    Args:
      args: options of Beam and of the runner.
    """
    from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions

    return PipelineOptions(list(args)).view_as(PortableOptions).environment_type in _OWN_CODE


def install() -> None:
    """Makes Beam and TensorFlow Transform do once what they do again and again. Calling this again does nothing."""
    _remember_signatures()
    _remember_stateless()
    _remember_views()
    _compress_lightly()
    _do_without_state_cache()
    _sample_often()
    _trace_once()


def _remember_signatures() -> None:
    """Inspects a DoFn method's signature once for its class instead of once for each instance and stage.

    Beam asks for the arguments of some thirty methods of each DoFn, several times for each transform. What a bound
    method takes depends on its function alone.
    """
    from apache_beam.transforms import core

    original = core.get_function_args_defaults
    if getattr(original, "remembers", False):
        return

    def get_function_args_defaults(function: Any) -> tuple[list[str], list[Any]]:
        key = function.__func__ if isinstance(function, types.MethodType) else None
        if key is None:
            return original(function)
        if key not in _memo:
            _memo[key] = original(function)
        arguments, defaults = _memo[key]
        return list(arguments), list(defaults)

    get_function_args_defaults.remembers = True  # type: ignore[attr-defined]
    core.get_function_args_defaults = get_function_args_defaults


def _remember_stateless() -> None:
    """Looks for state and timers in a DoFn's methods once for its class instead of once for each instance and stage.

    A class whose methods' defaults name no parameter of Beam's has neither, unless an instance brings a method or a
    signature of its own, as the DoFn around a plain function does for that function.
    """
    from apache_beam.transforms import core, userstate

    original = userstate.get_dofn_specs
    if getattr(original, "remembers", False):
        return
    plain: dict[type, tuple[bool, list[str]]] = {}

    def look_at(dofn: Any) -> tuple[bool, list[str]]:
        names = [name for name in dir(dofn) if isinstance(getattr(dofn, name, None), types.MethodType)]
        own = ["_inspect_" + name for name in names if hasattr(dofn, "_inspect_" + name)]
        asked = (name for name in names if "_inspect_" + name not in own)
        return not any(_takes_parameters(core.get_function_args_defaults(getattr(dofn, n)), core) for n in asked), own

    def get_dofn_specs(dofn: Any) -> tuple[set[Any], set[Any]]:
        if any(isinstance(value, types.MethodType) for value in vars(dofn).values()):
            return original(dofn)
        cls = type(dofn)
        if cls not in plain:
            plain[cls] = look_at(dofn)
        is_plain, own = plain[cls]
        if is_plain and not any(_takes_parameters(getattr(dofn, name)(), core) for name in own):
            return set(), set()
        return original(dofn)

    get_dofn_specs.remembers = True  # type: ignore[attr-defined]
    userstate.get_dofn_specs = get_dofn_specs


def _takes_parameters(signature: tuple[list[str], list[Any]], core: Any) -> bool:
    return any(isinstance(default, core._DoFnParam) for default in signature[1])


def _remember_views() -> None:
    """Builds each view of a pipeline's options once.

    Beam asks for a view several times for each transform, and each one parses the arguments anew. Views of the same
    options share their values, so one is as good as another.
    """
    from apache_beam.options.pipeline_options import PipelineOptions

    original = PipelineOptions.view_as
    if getattr(original, "remembers", False):
        return
    # The values are kept with the view: while they are, no other object can have their id.
    views: dict[tuple[int, type], tuple[Any, Any]] = {}

    def view_as(self: Any, cls: type) -> Any:
        key = (id(self._all_options), cls)
        if key not in views:
            views[key] = (self._all_options, original(self, cls))
        return views[key][1]

    view_as.remembers = True  # type: ignore[attr-defined]
    PipelineOptions.view_as = view_as


class _LightBz2:
    """The two functions of bz2 that Beam's picklers call, at the lowest level."""

    decompress = staticmethod(bz2.decompress)

    @staticmethod
    def compress(data: bytes, compresslevel: int = 9) -> bytes:
        """Compresses at level 1, whatever is asked for."""
        return bz2.compress(data, 1)


def _compress_lightly() -> None:
    """Compresses pickled DoFns, which stay in this process, at bz2's lowest level instead of its highest."""
    for name in ("cloudpickle_pickler", "dill_pickler"):
        with contextlib.suppress(ImportError):  # newer Beams do without dill
            pickler: Any = importlib.import_module(f"apache_beam.internal.{name}")
            if getattr(pickler, "bz2", None) is bz2:
                pickler.bz2 = _LightBz2


def _do_without_state_cache() -> None:
    """Reads side inputs where they are, in this process, instead of through a cache.

    For each entry the cache measures the entry's size, and for that lists the globals of every module that is loaded.
    """
    from apache_beam.runners.portability.fn_api_runner import worker_handlers

    if hasattr(worker_handlers, "STATE_CACHE_SIZE_MB"):
        worker_handlers.STATE_CACHE_SIZE_MB = 0


def _sample_often() -> None:
    """Looks every two milliseconds, at most, which step of a bundle runs.

    At its end a bundle waits for the thread that looks, and that thread sleeps ever longer, up to 200 ms.
    """
    from apache_beam.runners.worker import statesampler

    init: Any = statesampler.StateSampler.__init__
    if init.__defaults__ == (statesampler.DEFAULT_SAMPLING_PERIOD_MS,):
        init.__defaults__ = (2,)


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
        if base_temp_dir is not None or use_tf_compat_v1:
            return original(preprocessing_fn, input_specs, use_tf_compat_v1, base_temp_dir)
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
