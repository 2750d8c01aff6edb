"""Convolutional networks on real images: what int8 costs in accuracy and saves in time."""

import importlib.util
from pathlib import Path

import pytest

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]


@pytest.fixture(scope="module")
def benchmark():
    path = Path(__file__).parents[2] / "benchmarks" / "quantization.py"
    specification = importlib.util.spec_from_file_location("quantization_benchmark", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def found(benchmark, tmp_path_factory):
    """By model, what the benchmark measures of Evergreen's variants."""
    results = {}
    for name, build, size, epochs in (("digits", benchmark.digits_model, 8, 20), ("conv", benchmark.conv_model, 32, 2)):
        rows, test = benchmark.images(size)
        folder = str(tmp_path_factory.mktemp(name))
        benchmark.train(build(), rows, epochs, folder)
        results[name] = benchmark.ours(folder, rows, test)
    return results


def test_int8_is_within_a_point_of_accuracy_on_the_digits(found):
    digits = found["digits"]
    assert digits["float32"]["accuracy"] > 0.95
    for variant in ("float16", "dynamic_int8", "int8", "int8_float_io", "int16x8"):
        assert abs(digits[variant]["accuracy"] - digits["float32"]["accuracy"]) <= 0.01, variant


def test_int8_computes_with_integers_and_a_scale_for_each_channel(found):
    for variant in ("int8", "int8_float_io"):
        assert found["digits"][variant]["float_operators"] == []
        convolutions = [row for row in found["digits"][variant]["weights"] if row["op"] == "CONV_2D"]
        assert [row["channels"] for row in convolutions] == [16, 32]
    assert (found["digits"]["int8"]["inputs"], found["digits"]["int8"]["outputs"]) == ("int8", "int8")


def test_the_weights_shrink_to_a_half_and_a_quarter(found):
    weights = {name: row["parts"]["weights"] for name, row in found["digits"].items()}
    assert weights["float16"] / weights["float32"] == pytest.approx(0.5, abs=0.01)
    assert weights["int8"] / weights["float32"] == pytest.approx(0.25, abs=0.01)


def test_int8_is_faster_than_float32_where_there_is_much_to_multiply(found):
    conv = found["conv"]
    assert conv["float32"]["multiply_adds"] > 1_000_000
    for calls in ("1x1", "64x1"):
        assert conv["int8"]["latency_ms"][calls]["p50"] < conv["float32"]["latency_ms"][calls]["p50"]
