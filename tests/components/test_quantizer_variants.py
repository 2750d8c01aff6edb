"""Every variant of a small model: what its file holds, what it computes with, what it answers."""

import json

import numpy as np
import pytest
import quantizer_world
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from evergreen.components.quantizer import anatomy, lite_file, rows, runtime, variants
from evergreen.components.quantizer.settings import VARIANTS
from evergreen.components.quantizer.worker import Worker
from evergreen.components.trainer.transform_graph import TransformGraph

pytestmark = pytest.mark.tensorflow
NAMES = ("carrier", "distance")


@pytest.fixture(scope="module")
def world(build_once):
    return build_once("quantizer", quantizer_world.build)


@pytest.fixture(scope="module")
def exam(world):
    graph = TransformGraph(f"{world}/transform_graph")
    return rows.exam(graph, f"{world}/examples", "late", NAMES)


@pytest.fixture(scope="module")
def made(world, exam, tmp_path_factory):
    """Each variant twice: of raw and of transformed features."""
    from evergreen.components.quantizer import front

    folder = str(tmp_path_factory.mktemp("front"))
    front.write(TransformGraph(f"{world}/transform_graph"), NAMES, folder)
    with Worker(120) as worker:
        before = worker.convert(folder, "float32")
        found = {"front": before}
        for inputs, given in (("raw", before), ("transformed", None)):
            source = variants.Source(
                f"{world}/dense/Core", given, exam.transformed, {"features": {}, "calibration": {}}
            )
            found |= {(inputs, name): variants.make(worker, source, name) for name in VARIANTS}
    return found


@pytest.fixture(scope="module")
def reference(world, exam):
    signature = tf.saved_model.load(f"{world}/dense/Core").signatures["serving_default"]
    return signature(**{name: tf.constant(values) for name, values in exam.transformed.items()})["predictions"].numpy()


@pytest.mark.parametrize(
    ("variant", "difference"),
    [
        ("float32", 1e-6),
        ("float16", 2e-3),
        ("dynamic_int8", 0.02),
        ("int8", 0.03),
        ("int8_float_io", 0.03),
        ("int16x8", 0.01),
    ],
)
@pytest.mark.parametrize("inputs", ["raw", "transformed"])
def test_a_variant_answers_like_the_model(made, exam, reference, variant, inputs, difference):
    features = exam.raw if inputs == "raw" else exam.transformed
    found = runtime.run(made[inputs, variant].content, features, seconds=60)
    assert found.predictions.shape == reference.shape
    assert np.abs(found.predictions - reference).max() < difference
    assert found.dynamic_batch
    assert set(found.latency_ms) == {"1x1", "64x1", "1x2", "64x2"}
    assert all(0 < one["p50"] <= one["p99"] and one["calls"] >= 10 for one in found.latency_ms.values())
    assert found.first_answer_ms > 0
    assert found.arena_bytes >= 4


@pytest.mark.parametrize(
    ("variant", "inputs", "types", "output"),
    [
        ("int8", "transformed", {"carrier": np.int64, "distance": np.int8}, np.int8),
        ("int8", "raw", {"carrier": np.bytes_, "distance": np.float32}, np.int8),
        ("int8_float_io", "transformed", {"carrier": np.int64, "distance": np.float32}, np.float32),
        ("int8_float_io", "raw", {"carrier": np.bytes_, "distance": np.float32}, np.float32),
    ],
)
def test_where_the_integers_end(made, variant, inputs, types, output):
    runner = Interpreter(model_content=made[inputs, variant].content).get_signature_runner("serving_default")
    assert {name: detail["dtype"] for name, detail in runner.get_input_details().items()} == types
    assert [detail["dtype"] for detail in runner.get_output_details().values()] == [output]


def test_every_operator_of_int8_computes_with_integers(made):
    for variant in ("int8", "int8_float_io"):
        core = lite_file.read(made["raw", variant].core)
        assert anatomy.float_operators(core) == []
        assert anatomy.operators(core)["FULLY_CONNECTED int8"] == 2
    assert "FULLY_CONNECTED" in anatomy.float_operators(lite_file.read(made["raw", "dynamic_int8"].core))


def test_the_parts_of_a_file_add_up(made):
    for variant in VARIANTS:
        one = made["raw", variant]
        parts = variants.describe(one, made["raw", "float32"], made["front"])["parts"]
        assert sum(parts.values()) == len(one.content)
        assert parts["tables"] == anatomy.constant_bytes(lite_file.read(made["front"])) > 0
    weights = {name: variants.describe(made["raw", name], None, made["front"])["parts"]["weights"] for name in VARIANTS}
    assert weights["float16"] == pytest.approx(weights["float32"] / 2, rel=0.03)
    assert weights["int8"] == pytest.approx(weights["float32"] / 4, rel=0.1)


def test_multiply_adds_are_those_of_the_layers(made):
    # One row: 5 numbers into 64 units, 64 into one.
    assert variants.describe(made["raw", "int8"], None, None)["multiply_adds"] == 5 * 64 + 64


def test_scale_and_error_of_each_weight_tensor_follow_from_the_weights(world, made):
    weights = [variable.numpy() for variable in tf.saved_model.load(f"{world}/dense/Core").weights]
    (table,) = (values for values in weights if values.shape == (1000, 4))
    of_int8 = variants.describe(made["raw", "int8_float_io"], made["raw", "float32"], made["front"])["weights"]
    (row,) = (row for row in of_int8 if row["op"] == "GATHER")
    assert (row["shape"], row["type"], row["channels"]) == ([1000, 4], "int8", 1)
    rounded = np.round(table / row["scale"]) * row["scale"]
    assert row["scale"] >= np.abs(table).max() / 127 * 0.999
    assert row["largest_error"] == pytest.approx(np.abs(rounded - table).max(), rel=1e-3)
    assert row["rmse"] == pytest.approx(np.sqrt(np.mean((rounded - table) ** 2)), rel=1e-3)
    noise = np.sum((rounded - table) ** 2, dtype=np.float64)
    assert row["snr_db"] == pytest.approx(10 * np.log10(np.sum(table**2, dtype=np.float64) / noise), abs=0.01)
    dense = [row for row in of_int8 if row["op"] == "FULLY_CONNECTED"]
    assert [row["shape"] for row in dense] == [[64, 5], [1, 64]]
    of_float16 = variants.describe(made["raw", "float16"], made["raw", "float32"], made["front"])["weights"]
    assert min(row["snr_db"] for row in of_float16) > max(row["snr_db"] for row in of_int8)


def test_the_file_says_what_it_is(made):
    about = lite_file.metadata(made["raw", "int8"].content)
    assert about == {"variant": "int8", "features": {}, "calibration": {}}
    assert "calibration" not in lite_file.metadata(made["raw", "float16"].content)
    assert json.dumps(about)


def test_constants_are_aligned_for_a_runtime_that_maps_the_file(made):
    content = made["raw", "float16"].content
    model = lite_file.schema.Model.GetRootAs(content, 0)
    vectors = [model.Buffers(index) for index in range(model.BuffersLength())]
    starts = [one._tab.Vector(one._tab.Offset(4)) for one in vectors if one.DataLength()]
    assert starts
    assert {start % 16 for start in starts} == {0}


@pytest.mark.parametrize(
    ("calibration", "reason"),
    [
        ({}, "no rows to calibrate with"),
        ({"distance": np.array([[1.0], [np.nan]], np.float32)}, "1 values of the transformed feature distance are NaN"),
    ],
)
def test_rows_that_cannot_calibrate(calibration, reason):
    assert reason in variants.calibration_problem(calibration)


def test_a_file_that_the_interpreter_refuses_is_told(exam):
    with pytest.raises(runtime.RunFailed, match="the interpreter fails"):
        runtime.run(b"TFL3" * 100, exam.raw, seconds=60)
    with pytest.raises(runtime.RunFailed, match=r"did not answer within 0\.01 s"):
        runtime.run(b"TFL3" * 100, exam.raw, seconds=0.01)
