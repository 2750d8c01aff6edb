"""Savings for Beam pipelines in this process; each changes time, not results.

All were found by profiling Transform on three small spans, where the fixed cost of a pipeline outweighs its data.
"""

from __future__ import annotations

import bz2
import contextlib
import importlib
import types
from collections.abc import Sequence
from typing import Any

from evergreen.components import fast_transform, folded_cache

# Beam's own DirectRunner hands over to a downloaded server from 2.68 on where it can; this needs nothing from outside.
IN_PROCESS_RUNNER = "apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"
# TFX packs its own source into an sdist for remote workers in every Beam executor, unless the arguments name some
# dependency. Where no container is started, the name of its image says nothing else.
NO_PACKAGE_ARGS = ("--sdk_container_image=none",)
# A pipeline whose workers are threads of this process.
IN_PROCESS_ARGS = (f"--runner={IN_PROCESS_RUNNER}", *NO_PACKAGE_ARGS)
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


def in_one_process(args: Sequence[str]) -> bool:
    """Whether a pipeline, by these arguments, has its workers in the process that starts it.

    Args:
      args: options of Beam and of the runner.
    """
    from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions

    options = PipelineOptions(list(args))
    if options.view_as(StandardOptions).runner != IN_PROCESS_RUNNER:
        return False
    return options.view_as(DirectOptions).direct_running_mode in ("in_memory", "multi_threading")


def install(args: Sequence[str] = ()) -> None:
    """Makes Beam and TensorFlow Transform do once what they do again and again.

    Calling this again does nothing but to go by the new arguments.

    Args:
      args: options of the pipelines that are to come.
    """
    within = in_one_process(args)
    _LightBz2.compresses = not within
    _remember_signatures()
    _remember_stateless()
    _remember_views()
    _compress_lightly()
    _do_without_state_cache()
    _sample_often()
    fast_transform.install()
    folded_cache.install(within)


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
    """The two functions of bz2 that Beam's picklers call: no compression where no other process reads the pickles.

    Attributes:
      compresses: at the lowest level; else a pickle is passed on as it is.
    """

    compresses = True

    @classmethod
    def compress(cls, data: bytes, compresslevel: int = 9) -> bytes:
        """Compresses at level 1, whatever is asked for, or not at all."""
        return bz2.compress(data, 1) if cls.compresses else data

    @staticmethod
    def decompress(data: bytes) -> bytes:
        """Undoes either. No pickle begins as bz2's streams do: its first byte is 0x80, from protocol 2 on."""
        return bz2.decompress(data) if data.startswith(b"BZh") else data


def _compress_lightly() -> None:
    """Compresses pickled DoFns at bz2's lowest level instead of its highest, or not at all.

    A stage of Transform pickles 2,400 of them and reads 3,000, of 800 bytes each at the mean.
    """
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
