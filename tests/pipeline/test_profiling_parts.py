"""What a stack is busy with: real stacks, taken where Python, Beam and TensorFlow call back."""

from __future__ import annotations

import contextlib
import importlib
import queue
import shutil
import subprocess
import sys
import threading
import time

import pytest

from evergreen.pipeline.profiling import parts, sampler
from evergreen.pipeline.profiling.parts import Frame, Part

taken: list[tuple[Frame, ...]] = []


def take(*_):
    """Takes the stack of its caller."""
    taken.append(stack_of(sys._getframe(1)))
    return ()


def stack_of(frame):
    stacks = sampler.Stacks()
    return (stacks.number(sampler._stack(frame)), stacks.all()[0])[1]


@pytest.fixture(autouse=True)
def _nothing_taken():
    taken.clear()


def found():
    assert taken
    return [parts.busy_with(stack) for stack in taken]


def test_a_stack_goes_from_its_outermost_frame_to_its_innermost():
    take()
    functions = [frame.function for frame in taken[0]]
    assert functions[-1] == "test_a_stack_goes_from_its_outermost_frame_to_its_innermost"
    assert functions[0] in ("<module>", "_bootstrap")
    assert taken[0][-1].module == __name__


def test_what_a_module_does_while_it_is_imported_is_imports(tmp_path, monkeypatch):
    (tmp_path / "slow_to_import.py").write_text("import sys\ndef work():\n    sys.take_stack()\nwork()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "take_stack", take, raising=False)
    importlib.import_module("slow_to_import").work()
    assert found() == [Part.IMPORTS, Part.WORK], "once imported, its functions are work as all others"


def test_copying_files_is_io(tmp_path):
    (tmp_path / "from").mkdir()
    shutil.copytree(tmp_path / "from", tmp_path / "to", ignore=take)
    assert found() == [Part.IO]


def test_what_nobody_claims_is_work():
    sorted([1], key=take)
    assert found() == [Part.WORK]


@pytest.mark.parametrize(
    ("wait", "part"),
    [
        (lambda done: done.wait(), Part.WAITING),
        (lambda done: queue.Queue().get(timeout=20 if not done.is_set() else 0), Part.WAITING),
        (lambda done: subprocess.run(["sleep", "20"]), Part.CHILDREN),
        (lambda done: subprocess.run(["sleep", "20"], capture_output=True), Part.CHILDREN),
    ],
)
def test_a_thread_that_waits_is_known_by_its_innermost_frame(wait, part, monkeypatch):
    done, started = threading.Event(), []
    popen = subprocess.Popen

    def start(*args, **options):
        started.append(popen(*args, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)

    def run():
        with contextlib.suppress(queue.Empty):
            wait(done)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert thread.ident is not None
    try:
        end = time.monotonic() + 15
        while not parts.waits((stack := stack_of(sys._current_frames()[thread.ident]))[-1]):
            assert time.monotonic() < end, stack
            time.sleep(0.01)
        assert parts.waited_for(stack) is part
    finally:
        done.set()
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.tensorflow
def test_building_a_beam_pipeline_is_told_from_running_it():
    import apache_beam as beam

    class Built(beam.PTransform):
        def expand(self, values):
            take()
            return values | beam.ParDo(Run())

    class Run(beam.DoFn):
        def __reduce__(self):
            take()
            return Run, ()

        def process(self, value):
            take()
            yield value

    # The class path that both stacks have; newer Beams would look for another runner.
    with beam.Pipeline(runner="apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner") as pipeline:
        pipeline | beam.Create([1]) | Built()
    by_function = {}
    for stack, part in zip(taken, found(), strict=True):
        by_function.setdefault(stack[-1].function, set()).add(part)
    assert by_function == {"expand": {Part.BEAM}, "__reduce__": {Part.BEAM}, "process": {Part.WORK}}


@pytest.mark.tensorflow
def test_tracing_a_function_is_told_from_running_it(tmp_path):
    import tensorflow as tf

    @tf.function
    def traced(x):
        take()
        tf.py_function(take, [x], [])
        return x + 1

    traced(tf.constant(1.0))
    traced(tf.constant(2.0))
    assert found() == [Part.TENSORFLOW, Part.WORK, Part.WORK]


@pytest.mark.tensorflow
def test_loading_a_model_is_told_from_calling_it(tmp_path, monkeypatch):
    import tensorflow as tf
    from tensorflow.python.saved_model import function_deserialization

    module = tf.Module()
    module.double = tf.function(lambda x: tf.py_function(lambda v: (take(), v)[1], [x], tf.float32))
    module.double.get_concrete_function(tf.TensorSpec([], tf.float32))
    tf.saved_model.save(module, str(tmp_path / "model"))
    original = function_deserialization.load_function_def_library
    monkeypatch.setattr(
        function_deserialization, "load_function_def_library", lambda *a, **k: (take(), original(*a, **k))[1]
    )
    taken.clear()
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    assert found() == [Part.TENSORFLOW]
    taken.clear()
    loaded.double(tf.constant(1.0))
    assert found() == [Part.WORK]
