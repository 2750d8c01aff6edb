"""JSON bodies to arrays and examples, in TensorFlow Serving's forms and words."""

import json
import math
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import classification_pb2

from evergreen.serving import rest_decode, rest_encode
from evergreen.serving.errors import ServingError

pytestmark = pytest.mark.tensorflow

FLOAT, DOUBLE, INT32, UINT8, STRING, INT64, BOOL, UINT64, HALF = 1, 2, 3, 4, 7, 9, 10, 23, 19


def decode(body, **inputs):
    """Decodes a body for inputs of the given data types."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return rest_decode.decode_predict(
        rest_decode.parse(text), {name: SimpleNamespace(dtype=kind) for name, kind in inputs.items()}
    )


def refused(body, **inputs):
    """Returns what is said of a body that is refused."""
    with pytest.raises(ServingError) as error:
        decode(body, **inputs)
    assert error.value.code == grpc.StatusCode.INVALID_ARGUMENT
    return error.value.message


def test_rows_of_a_single_input_are_plain_values():
    arrays, form = decode({"instances": [[1, 2.5], [3, 4]]}, x=FLOAT)
    assert form == rest_encode.ROW
    assert arrays["x"].dtype == np.float32
    assert arrays["x"].tolist() == [[1.0, 2.5], [3.0, 4.0]]


def test_rows_of_several_inputs_are_objects():
    body = {"instances": [{"a": 1.5, "b": [1, 2], "s": "x"}, {"a": 2, "b": [3, 4], "s": "é"}]}
    arrays, _ = decode(body, a=FLOAT, b=INT64, s=STRING)
    assert arrays["a"].tolist() == [1.5, 2.0]
    assert arrays["b"].tolist() == [[1, 2], [3, 4]]
    assert arrays["b"].dtype == np.int64
    assert arrays["s"].tolist() == [b"x", "é".encode()]


def test_columns():
    arrays, form = decode({"inputs": {"a": [1, 2], "b": [[True], [False]]}}, a=INT32, b=BOOL)
    assert form == rest_encode.COLUMNAR
    assert arrays["a"].dtype == np.int32
    assert arrays["b"].tolist() == [[True], [False]]
    assert decode({"inputs": 3}, a=INT32)[0]["a"].shape == ()


@pytest.mark.parametrize("text", ["YWJj", "YWI=", "YWI"])
def test_b64_is_binary_where_it_is_the_only_key(text):
    expected = {"YWJj": b"abc", "YWI=": b"ab", "YWI": b"ab"}[text]
    assert decode({"instances": [{"b64": text}, "plain"]}, s=STRING)[0]["s"].tolist() == [expected, b"plain"]
    assert decode({"inputs": {"b64": text}}, s=STRING)[0]["s"].tolist() == expected


def test_nan_and_infinity_are_numbers():
    values = decode(b'{"instances": [NaN, Infinity, -Infinity, 1]}', x=FLOAT)[0]["x"].tolist()
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf, 1.0]


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        (b"", FLOAT, "JSON Parse error: The document is empty"),
        (b"{", FLOAT, "JSON Parse error: "),
        (b"\xff\xfe\xfd{}", FLOAT, "JSON Parse error: "),
        (b"[" * 100_000, FLOAT, "JSON Parse error: "),
        (b"[1]", FLOAT, "JSON Value: [1] Is not object"),
        ({}, FLOAT, "Missing 'inputs' or 'instances' key"),
        ({"instances": [1], "inputs": [1]}, FLOAT, "expecting only one of 'inputs' or 'instances' keys"),
        ({"instances": 1}, FLOAT, "Excepting 'instances' to be an list/array"),
        ({"instances": []}, FLOAT, "No values in 'instances' array"),
        ({"instances": [1, True]}, FLOAT, "element: 1 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: true"),
        (
            {"instances": [[2.5, 3.5], [4.5, False]]},
            FLOAT,
            "JSON Value: false Type: False is not of expected type: float",
        ),
        ({"instances": [1, "2"]}, FLOAT, 'JSON Value: "2" Type: String is not of expected type: float'),
        ({"instances": [1, None]}, FLOAT, "JSON Value: null Type: Null is not of expected type: float"),
        ({"instances": [1, 2.0]}, INT64, "JSON Value: 2.0 Type: Number is not of expected type: int64"),
        ({"instances": [True]}, INT32, "is not of expected type: int32"),
        ({"instances": [300]}, UINT8, "JSON Value: 300 Type: Number is not of expected type: uint8"),
        ({"instances": [2**63]}, INT64, "is not of expected type: int64"),
        ({"instances": [-1]}, UINT64, "is not of expected type: uint64"),
        ({"instances": [1]}, STRING, "JSON Value: 1 Type: Number is not of expected type: string"),
        ({"instances": [1]}, BOOL, "is not of expected type: bool"),
        ({"instances": [2**24 + 1]}, FLOAT, "Cannot convert JSON value: 16777217 to float without loss of precision."),
        ({"instances": [1e39]}, FLOAT, "Cannot convert JSON value: 1e+39 to float without loss of precision."),
        ({"instances": [{"b64": "!"}]}, STRING, "Unable to base64 decode"),
        ({"inputs": [{"b64": "YQ==", "x": 1}]}, STRING, "not formatted correctly for base64 data"),
        ({"instances": [[1, 2], [3]]}, FLOAT, "Expecting tensor size: 2 but got: 1"),
        ({"instances": [[[1], [2]], [[1, 2]]]}, FLOAT, "Expecting shape [2,1] but got: [1,2]"),
        ({"instances": [[[1, 2], [3]]]}, FLOAT, "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        ({"inputs": [1, [2]]}, FLOAT, "Encountered list at unexpected level: 1 expected < 1"),
        (
            {"inputs": [[1], 2]},
            FLOAT,
            "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
        ),
        ({"instances": [{"x": 1}, 2]}, FLOAT, "Expecting object but got list at item 1 of input list"),
        ({"instances": [1, {"x": 2}]}, FLOAT, "Expecting value/list but got object at item 1 of input list"),
        (
            {"instances": [{"y": 1}]},
            FLOAT,
            "element: 0 key: y of 'instances' list. Error: INVALID_ARGUMENT: JSON object",
        ),
        ({"instances": ["\ud800"]}, STRING, "JSON Parse error: "),
    ],
)
def test_a_wrong_body_gets_tensorflow_servings_words(body, kind, said):
    assert said in refused(body, x=kind)


def test_wrong_bodies_for_several_inputs():
    assert "expecting list of objects as multiple input tensors" in refused({"instances": [1]}, a=FLOAT, b=FLOAT)
    assert "keys must be equal to: a,b" in refused({"instances": [{"a": 1}]}, a=FLOAT, b=FLOAT)
    assert "inputs is a plain value/list" in refused({"inputs": [1]}, a=FLOAT, b=FLOAT)
    assert "Missing named input: b in 'inputs' object." in refused({"inputs": {"a": 1}}, a=FLOAT, b=FLOAT)


def test_a_type_that_json_cannot_hold_is_unimplemented():
    with pytest.raises(ServingError, match="Conversion of JSON Value") as error:
        decode({"instances": [1]}, x=HALF)
    assert error.value.code == grpc.StatusCode.UNIMPLEMENTED


def test_a_signature_name_must_be_a_string():
    assert rest_decode.signature_of({"signature_name": "raw"}) == "raw"
    with pytest.raises(ServingError, match="'signature_name' key must be a string value"):
        rest_decode.signature_of({"signature_name": 1})


def test_examples_are_features_by_the_kind_of_their_values():
    request = classification_pb2.ClassificationRequest()
    body = {
        "signature_name": "s",
        "context": {"c": 1},
        "examples": [{"f": [1.5, 2.0], "i": True, "b": {"b64": "YQ=="}}],
    }
    rest_decode.fill_examples(body, "classify", request)
    assert request.model_spec.signature_name == "s"
    given = request.input.example_list_with_context
    assert given.context.features.feature["c"].int64_list.value == [1]
    features = given.examples[0].features.feature
    assert features["f"].float_list.value == [1.5, 2.0]
    assert features["i"].int64_list.value == [1]
    assert features["b"].bytes_list.value == [b"a"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "When method is classify, key 'examples' is expected and was not found"),
        ({"examples": 1}, "Expecting 'examples' value to be an list/array"),
        ({"examples": []}, "'examples' value is an empty array"),
        ({"examples": [1]}, "Example must be JSON object but got JSON Number"),
        ({"examples": [{"f": [1, 1.5]}]}, "Unexpected element type in feature: f expecting type: int64"),
        ({"examples": [{"f": None}]}, "Feature: f has element with unexpected JSON type: Null"),
        ({"examples": [{"f": 2**63}]}, "Only int64 is supported"),
    ],
)
def test_wrong_examples(body, said):
    with pytest.raises(ServingError) as error:
        rest_decode.fill_examples(body, "classify", classification_pb2.ClassificationRequest())
    assert said in error.value.message
