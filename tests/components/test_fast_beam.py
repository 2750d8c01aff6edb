"""What is saved in Beam changes no answer of Beam's."""

import base64

import apache_beam as beam
import pytest
from apache_beam.coders import VarIntCoder
from apache_beam.internal import pickler
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
    args = list(fast_beam.IN_PROCESS_ARGS)
    fast_beam.install(args)
    with beam.Pipeline(argv=args) as pipeline:
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


@pytest.mark.parametrize(
    ("args", "within"),
    [
        ([f"--runner={fast_beam.IN_PROCESS_RUNNER}"], True),
        ([f"--runner={fast_beam.IN_PROCESS_RUNNER}", "--direct_running_mode=multi_threading"], True),
        ([f"--runner={fast_beam.IN_PROCESS_RUNNER}", "--direct_running_mode=multi_processing"], False),
        (["--runner=PortableRunner", "--environment_type=LOOPBACK"], False),
        ([], False),
    ],
)
def test_pickles_are_compressed_where_another_process_reads_them(args, within):
    fast_beam.install(args)
    pickled = pickler.dumps(Plain())
    assert base64.b64decode(pickled).startswith(b"\x80" if within else b"BZh")
    fast_beam.install()
    assert isinstance(pickler.loads(pickled), Plain)
