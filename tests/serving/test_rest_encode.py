"""Arrays and results to JSON, in TensorFlow Serving's forms."""

import json

import numpy as np
import pytest

from evergreen.serving import rest_encode
from evergreen.serving.errors import ServingError

pytestmark = pytest.mark.tensorflow


def test_floats_come_in_the_shortest_form_that_reads_back():
    generator = np.random.default_rng(0)
    bits = generator.integers(0, 2**32, 20_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    values = np.concatenate([bits[np.isfinite(bits)], np.array([0.1, 1, 1e-10, 3.4028235e38, -0.0], np.float32)])
    texts = json.loads(rest_encode.encode_predict({"y": values}, rest_encode.ROW), parse_float=str)["predictions"]
    assert all(np.float32(text) == value for text, value in zip(texts, values, strict=True))
    assert texts[-5:] == ["0.1", "1.0", "1e-10", "3.4028235e+38", "-0.0"]
    digits = [text.split("e")[0].replace(".", "").strip("-0") for text in texts]
    assert max(map(len, digits)) == 9


@pytest.mark.parametrize(
    ("outputs", "form", "expected"),
    [
        ({"y": np.array([[1.5], [2]], np.float32)}, "row", {"predictions": [[1.5], [2.0]]}),
        ({"y": np.array([1, 2], np.int64)}, "row", {"predictions": [1, 2]}),
        ({"y": np.zeros([0, 3], np.float32)}, "row", {"predictions": []}),
        ({"y": np.zeros([2, 0], np.float32)}, "row", {"predictions": [[], []]}),
        (
            {"b": np.array([True]), "a": np.array([b"\xc3\xa9"], object)},
            "row",
            {"predictions": [{"a": "é", "b": True}]},
        ),
        ({"a_bytes": np.array([b"ab"], object)}, "row", {"predictions": [{"b64": "YWI="}]}),
        ({"y": np.float32(0.1).reshape(())}, "columnar", {"outputs": 0.1}),
        ({"y": np.array([[1, 2], [3, 4]])}, "columnar", {"outputs": [[1, 2], [3, 4]]}),
        ({"a": np.array([1]), "b": np.array([0.5])}, "columnar", {"outputs": {"a": [1], "b": [0.5]}}),
        ({"y": np.arange(8).reshape(2, 2, 2)}, "row", {"predictions": [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]}),
        ({"y": np.array([0.1], np.float16)}, "row", {"predictions": [0.1]}),
    ],
)
def test_answers(outputs, form, expected):
    assert json.loads(rest_encode.encode_predict(outputs, form)) == expected


def test_answers_that_are_no_numbers():
    text = rest_encode.encode_predict({"y": np.array([np.nan, np.inf, -np.inf], np.float32)}, "row")
    assert text == '{"predictions": [NaN, Infinity, -Infinity]}'


def test_the_row_form_needs_rows():
    with pytest.raises(ServingError, match="Tensor name: y has no shape information"):
        rest_encode.encode_predict({"y": np.float32(1).reshape(())}, "row")
    with pytest.raises(ServingError, match="inconsistent batch size: 2 expecting: 1"):
        rest_encode.encode_predict({"a": np.zeros(1), "b": np.zeros(2)}, "row")
