"""What is saved in Beam changes no answer of Beam's."""

import apache_beam as beam
import pytest
from apache_beam.coders import VarIntCoder
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms import core, userstate

from evergreen.components import fast_beam

pytestmark = pytest.mark.tensorflow

COUNT = userstate.ReadModifyWriteStateSpec("count", VarIntCoder())
COUNT_STATE = beam.DoFn.StateParam(COUNT)
original_specs, original_signature = userstate.get_dofn_specs, core.get_function_args_defaults


class Plain(beam.DoFn):
    def process(self, element, side=3, time=beam.DoFn.TimestampParam):
        yield element


class Counting(beam.DoFn):
    def process(self, element, count=COUNT_STATE):
        seen = (count.read() or 0) + 1
        count.write(seen)
        yield element[0], seen


@pytest.fixture(autouse=True)
def _installed():
    fast_beam.install()
    fast_beam.install()


def with_state(element, count=COUNT_STATE):
    return element


@pytest.mark.parametrize("function", [Plain().process, Counting().process, with_state, lambda x, y=2, *z: x])
def test_signatures_are_as_beam_reads_them(function):
    for _ in range(2):
        assert core.get_function_args_defaults(function) == original_signature(function)


def test_a_signature_that_a_caller_changes_is_not_remembered():
    function = Plain().process
    core.get_function_args_defaults(function)[0].clear()
    assert core.get_function_args_defaults(function)[0] == ["element", "side", "time"]


@pytest.mark.parametrize(
    "dofn",
    [Plain(), Counting(), core.CallableWrapperDoFn(len), core.CallableWrapperDoFn(with_state)],
    ids=["plain", "with state", "function", "function with state"],
)
def test_state_and_timers_are_found_where_beam_finds_them(dofn):
    for _ in range(2):
        assert userstate.get_dofn_specs(dofn) == original_specs(dofn)


def test_a_method_that_an_instance_brings_is_looked_at():
    dofn = Plain()
    userstate.get_dofn_specs(dofn)
    dofn.process = Counting().process
    assert userstate.get_dofn_specs(dofn) == original_specs(dofn) == ({COUNT}, set())


def test_a_pipeline_with_state_side_inputs_and_groups_gives_the_same():
    runner = "apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"
    with beam.Pipeline(runner=runner, argv=list(fast_beam.NO_PACKAGE_ARGS)) as pipeline:
        rows = pipeline | beam.Create([("a", 1), ("b", 2), ("a", 3)])
        total = beam.pvalue.AsSingleton(rows | beam.Values() | beam.CombineGlobally(sum))
        share = rows | beam.Map(lambda row, whole: (row[0], row[1] / whole), total)
        grouped = rows | beam.GroupByKey() | beam.MapTuple(lambda key, values: (key, sorted(values)))
        assert_that(rows | beam.ParDo(Counting()), equal_to([("a", 1), ("a", 2), ("b", 1)]), "state")
        assert_that(share, equal_to([("a", 1 / 6), ("a", 1 / 2), ("b", 1 / 3)]), "side input")
        assert_that(grouped, equal_to([("a", [1, 3]), ("b", [2])]), "groups")


@pytest.mark.parametrize(
    ("args", "have"),
    [
        (["--job_endpoint=localhost:8099", "--environment_type=LOOPBACK"], True),
        (["--environment_type=EXTERNAL", "--environment_config=localhost:50000"], True),
        (["--environment_type=PROCESS", '--environment_config={"command": "/opt/boot"}'], True),
        (["--environment_type=DOCKER"], False),
        (["--job_endpoint=localhost:8099"], False),
        ([], False),
    ],
)
def test_only_workers_in_a_container_are_sent_packages(args, have):
    assert fast_beam.workers_have_our_code(args) is have


def test_a_preprocessing_function_is_traced_once_for_all_questions_and_answered_as_before():
    import tensorflow as tf
    import tensorflow_transform as tft
    from tensorflow_transform import inspect_preprocessing_fn as inspect
    from tensorflow_transform.beam import analysis_graph_builder as analysis
    from tensorflow_transform.beam.analyzer_cache import DatasetKey

    traced = []

    def preprocess(inputs):
        traced.append(sorted(inputs))
        centred = inputs["a"] - tft.mean(inputs["a"])
        return {"a": centred / tft.max(centred), "b": inputs["b"] + 1.0}

    specs = {name: tf.TensorSpec([None], tf.float32) for name in ("a", "b")}
    spans = {DatasetKey("span-1"), DatasetKey("span-2")}
    questions = [
        lambda function: inspect.get_analyze_input_columns(function, specs),
        lambda function: inspect.get_transform_input_columns(function, specs),
        lambda function: analysis.get_analysis_cache_entry_keys(function, specs, spans, False),
        lambda function: analysis.get_analysis_dataset_keys(function, specs, spans, {}, False),
        lambda function: inspect.get_analyze_input_columns(function, specs),
    ]
    # Another function for each question: nothing is remembered of it.
    before = [question(lambda inputs: preprocess(inputs)) for question in questions]
    assert len(traced) == len(questions)
    traced.clear()
    assert [question(preprocess) for question in questions] == before
    assert traced == [["a", "b"]]
    assert before[0] == ["a"] and len(before[2]) == 1 and len(before[3]) == 2
    with pytest.raises(KeyError):
        inspect.get_analyze_input_columns(preprocess, {"b": specs["b"]})
