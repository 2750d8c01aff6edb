"""What a stack of Python frames is busy with: the parts that a stage's time is split into. Pure; reads no frames."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass


class Part(str, enum.Enum):
    """A part of a stage's wall time; the value is its heading."""

    IMPORTS = "imports"
    BEAM = "Beam graph"
    TENSORFLOW = "TF graph"
    WORK = "work"
    IO = "I/O"
    CHILDREN = "children"
    WAITING = "waiting"


@dataclass(frozen=True)
class Frame:
    """A function on a stack.

    Attributes:
      module: its module's name.
      function: its own.
      line: where it begins.
    """

    module: str
    function: str
    line: int = 0


# A function that is last on a stack while its thread has nothing to do.
_WAITS = {
    "threading": {"wait", "_wait_for_tstate_lock", "join", "acquire", "_bootstrap_inner"},
    "queue": {"get", "put"},
    "selectors": {"select"},
    "subprocess": {"wait", "_wait", "_try_wait", "communicate", "_communicate", "poll", "_internal_poll"},
    "concurrent.futures._base": {"result", "wait"},
    "concurrent.futures.thread": {"_worker"},
    "multiprocessing.connection": {"wait", "_recv", "poll"},
    "multiprocessing.popen_fork": {"poll", "wait"},
    "asyncio.base_events": {"_run_once"},
    "socket": {"accept"},
}
# Whoever waits below one of these waits for a process of its own.
_CHILDREN = (
    "subprocess",
    "evergreen.components.quantizer.worker",
    "evergreen.components.quantizer.runtime",
    "evergreen.components.model_server",
    "evergreen.components.serving_validator",
    "evergreen.components.trainer.child",
    "evergreen.components.trainer.local_cluster",
    "evergreen.components.trainer.job",
    "multiprocessing",
)
_IMPORTERS = (
    "importlib._bootstrap",
    "importlib._bootstrap_external",
    "_frozen_importlib",
    "_frozen_importlib_external",
)

# By module, or package with all in it: the part of the functions that are named, or of all (""). None says nothing, and
# the caller is asked. The innermost frame that says something decides: what is traced while Beam's graph is built is
# TensorFlow's.
_ALL = ""
_Rules = dict[str, "Part | None"]


def _all(part: Part, **but: Part | None) -> _Rules:
    return {_ALL: part, **but}


def _some(part: Part, *functions: str) -> _Rules:
    return dict.fromkeys(functions, part)


_RULES: dict[str, _Rules] = {
    # Tracing, loading and saving. The classes that trace also run what was traced, hence the names of functions.
    "tensorflow.python.framework.func_graph": _all(Part.TENSORFLOW),
    "tensorflow.python.framework.function_def_to_graph": _all(Part.TENSORFLOW),
    "tensorflow.python.framework.importer": _all(Part.TENSORFLOW),
    "tensorflow.python.framework.meta_graph": _all(Part.TENSORFLOW),
    "tensorflow.python.framework.graph_util_impl": _all(Part.TENSORFLOW),
    "tensorflow.python.framework.convert_to_constants": _all(Part.TENSORFLOW),
    "tensorflow.python.framework.op_def_library": _all(Part.TENSORFLOW),
    "tensorflow.python.eager.lift_to_graph": _all(Part.TENSORFLOW),
    "tensorflow.python.eager.wrap_function": _some(
        Part.TENSORFLOW, "__init__", "wrap_function", "function_from_graph_def", "prune"
    ),
    "tensorflow.python.eager.polymorphic_function": _some(
        Part.TENSORFLOW,
        "_initialize",
        "_maybe_define_function",
        "trace_function",
        "from_func_graph",
        "_build_call_outputs",
        "add_to_graph",
        "__del__",
    ),
    "tensorflow.python.autograph.impl.conversion": _all(Part.TENSORFLOW),
    "tensorflow.python.autograph.pyct": _all(Part.TENSORFLOW),
    "tensorflow.python.grappler": _all(Part.TENSORFLOW),
    "tensorflow.python.saved_model": _all(
        Part.TENSORFLOW, _call_attribute=None, restored_function_body=None, _call_flat=None
    ),
    "tensorflow.python.training.saver": _all(Part.TENSORFLOW),
    "tensorflow.python.client.session": _some(Part.TENSORFLOW, "_extend_graph", "__init__"),
    "tf_keras.src.saving": _all(Part.TENSORFLOW),
    "tf_keras.src.engine.base_layer": _some(Part.TENSORFLOW, "_functional_construction_call"),
    "tensorflow_transform.graph_tools": _all(Part.TENSORFLOW),
    "tensorflow_transform.impl_helper": _some(
        Part.TENSORFLOW, "trace_preprocessing_function", "trace_and_write_v2_saved_model"
    ),
    "tensorflow_transform.saved.saved_transform_io_v2": _some(
        Part.TENSORFLOW, "write_v2_saved_model", "trace_and_update_module"
    ),
    # Building, translating and pickling, and what the runner does around each bundle; not what runs inside of it.
    "apache_beam.pipeline": _all(Part.BEAM),
    "apache_beam.internal": _all(Part.BEAM),
    "apache_beam.runners.runner": _all(Part.BEAM),
    "apache_beam.runners.portability": _all(Part.BEAM),
    "apache_beam.runners.worker.sdk_worker": _all(Part.BEAM),
    "apache_beam.runners.worker.bundle_processor": _all(
        Part.BEAM, process_bundle=Part.WORK, process_encoded=Part.WORK, process_batch=Part.WORK, finish=Part.WORK
    ),
    "tensorflow_transform.beam.analysis_graph_builder": _all(Part.BEAM),
    "tensorflow_transform.beam.combiner_packing_util": _all(Part.BEAM),
    # Reading and writing, with the coding that the same call does.
    "tensorflow.python.lib.io": _all(Part.IO),
    "apache_beam.io": _all(Part.IO),
    "pyarrow.parquet": _all(Part.IO),
    "ml_metadata.metadata_store": _all(Part.IO),
    "sqlite3": _all(Part.IO),
    "shutil": _all(Part.IO),
    "genericpath": _all(Part.IO),
    "tarfile": _all(Part.IO),
    "zipfile": _all(Part.IO),
    "tfx.dsl.io": _all(Part.IO),
    "os": _some(Part.IO, "walk", "_walk", "makedirs"),
    "pathlib": _some(Part.IO, "open", "read_text", "read_bytes", "write_text", "write_bytes", "stat"),
    "evergreen.components.atomic": _all(Part.IO),
}


def waits(leaf: Frame) -> bool:
    """Whether a thread whose innermost frame this is waits for something, as far as its name tells."""
    return leaf.function in _WAITS.get(leaf.module, ())


def waited_for(stack: Sequence[Frame]) -> Part:
    """What a stack that waits waits for.

    Args:
      stack: from the outermost frame to the innermost.

    Returns:
      CHILDREN where it is a process of its own, otherwise WAITING.
    """
    return Part.CHILDREN if any(_within(frame.module, _CHILDREN) for frame in stack) else Part.WAITING


def busy_with(stack: Sequence[Frame]) -> Part:
    """What a stack that does not wait is busy with.

    Args:
      stack: from the outermost frame to the innermost.

    Returns:
      The part of its innermost frame that tells; WORK where none does.
    """
    for frame in reversed(stack):
        part = _part(frame)
        if part is not None:
            return part
    return Part.WORK


def _part(frame: Frame) -> Part | None:
    if frame.module in _IMPORTERS:
        return Part.IMPORTS
    package = frame.module
    while package:
        rules = _RULES.get(package, {})
        if frame.function in rules:
            return rules[frame.function]
        if _ALL in rules:
            return rules[_ALL]
        package = package.rpartition(".")[0]
    return None


def _within(module: str, packages: Sequence[str]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)
