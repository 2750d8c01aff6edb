"""JSON rows: the same bytes as in training, or an error that names the row."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from evergreen.components.errors import ConfigError
from evergreen.components.model_server.signatures import Signature, Tensor
from evergreen.components.span_example_gen import columns, tf_example
from evergreen.pipeline import predict_rows

SCHEMA = {"carrier": "BYTES", "distance": "INT", "wind": "FLOAT", "late": "INT", "tags": "BYTES"}
TEXT, NUMBER, WHOLE = np.dtype(object), np.dtype(np.float32), np.dtype(np.int64)
BY_EXAMPLE = Signature({"examples": Tensor(TEXT, (-1,))}, {}, "")
RAW = Signature(
    {"carrier": Tensor(TEXT, (-1, 1)), "distance": Tensor(WHOLE, (-1, 1)), "wind": Tensor(NUMBER, (-1,))}, {}, ""
)
ROWS = [{"carrier": "UA", "distance": 100, "wind": 3}, {"distance": 20.0, "carrier": None, "late": True}]


def test_rows_are_the_bytes_that_a_span_of_them_would_be():
    table = {
        "carrier": pa.array(["UA", None]),
        "distance": pa.array([100, 20]),
        "wind": pa.array([3.0, None]),
        "late": pa.array([None, True]),
    }
    spans = {name: columns.narrow(columns.convert(values, SCHEMA[name])) for name, values in table.items()}
    found = predict_rows.inputs(ROWS, BY_EXAMPLE, "serving_default", SCHEMA)
    assert found["examples"].tolist() == tf_example.serialize(spans).to_pylist()


def test_rows_for_raw_features_say_what_is_missing():
    found = predict_rows.inputs(ROWS, RAW, "predict_raw", SCHEMA)
    assert found["carrier"].tolist() == [[b"UA"], [b""]]
    assert found["distance"].tolist() == [[100], [20]]
    np.testing.assert_array_equal(found["wind"], np.array([3, np.nan], np.float32))
    # Without a project the signature says what the features are.
    again = predict_rows.inputs([{"carrier": "UA"}], RAW, "predict_raw", None)
    assert again["distance"].tolist() == [[-(2**63)]]


def test_lists_are_several_values():
    found = predict_rows.inputs([{"tags": ["a", "b"]}, {"tags": "c"}], BY_EXAMPLE, "serving_default", SCHEMA)
    assert found["examples"][0].count(b"\x0a\x01") == 2
    one = Signature({"tags": Tensor(TEXT, (-1, 1)), "carrier": Tensor(TEXT, (-1, 1))}, {}, "")
    with pytest.raises(ConfigError, match="row 2 has a list of more values"):
        predict_rows.inputs([{"tags": ["a"]}, {"tags": ["a", "b"]}], one, "predict_raw", SCHEMA)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"carier": "UA"}, "row 2 has a feature `carier`[^$]*Did you mean `carrier`"),
        ({"distance": "far"}, 'row 2 has a wrong value for `distance`[^$]*received "far", expected a whole number'),
        ({"distance": 1.5}, "received 1.5, expected a whole number"),
        ({"distance": 2**63}, "expected a whole number"),
        ({"carrier": 7}, "received 7, expected text"),
        ({"wind": {"a": 1}}, "expected a number"),
    ],
)
def test_a_wrong_row_is_named(row, words):
    with pytest.raises(ConfigError, match=words):
        predict_rows.inputs([{"carrier": "UA"}, row], BY_EXAMPLE, "serving_default", SCHEMA)


def test_without_a_schema_no_messages_can_be_made():
    with pytest.raises(ConfigError, match="without a project"):
        predict_rows.inputs(ROWS, BY_EXAMPLE, "serving_default", None)


def test_lines_or_one_list():
    rows = [{"a": 1}, {"a": 2}]
    assert predict_rows.parse(['{"a": 1}\n', "\n", '{"a": 2}'], "f") == rows
    assert predict_rows.parse(["[\n", '{"a": 1},\n', '{"a": 2}]'], "f") == rows
    for text, words in (("{", "f, line 1"), ("7", "row 1"), ("", "holds no rows"), ("[{]", "no JSON object")):
        with pytest.raises(ConfigError, match=words):
            predict_rows.parse([text], "f")


def test_predictions_are_rows_again_in_the_digits_of_their_type():
    outputs = {
        "score": np.array([[0.1], [0.25]], np.float32),
        "names": np.array([[b"no", b"yes"]] * 2, object),
        "version": np.array(7),
    }
    assert predict_rows.predictions(outputs, 2) == [
        {"names": ["no", "yes"], "score": 0.1, "version": 7},
        {"names": ["no", "yes"], "score": 0.25, "version": 7},
    ]
