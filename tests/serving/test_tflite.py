"""TFLite models are served like any other."""

import grpc
import numpy as np
import pytest

from evergreen.serving.errors import ServingError

pytestmark = pytest.mark.tensorflow


def floats(*values):
    return np.array(values, np.float32)


@pytest.fixture(scope="module")
def model(tflite):
    from evergreen.serving.tflite import TfliteModel

    return TfliteModel("m", 1, tflite / "model.tflite")


def test_rows_of_any_number_are_answered(model):
    assert model.run("serving_default", {"x": floats(1)})["y"].tolist() == [3]
    assert model.run("serving_default", {"x": floats(1, 2, 3)})["y"].tolist() == [3, 5, 7]
    assert model.run("serving_default", {"x": floats(2)}, ["y"])["y"].tolist() == [5]


def test_the_signature_is_that_of_the_file(model):
    (signature,) = model.signatures.values()
    assert signature.method_name == "tensorflow/serving/predict"
    assert [dim.size for dim in signature.inputs["x"].tensor_shape.dim] == [-1]
    assert (list(signature.inputs), list(signature.outputs)) == (["x"], ["y"])


@pytest.mark.parametrize(
    ("inputs", "words"), [({}, "size does not match"), ({"x": np.array([1.0])}, "expects float32, got float64")]
)
def test_a_wrong_request_says_what_is_wrong(model, inputs, words):
    with pytest.raises(ServingError, match=words) as refused:
        model.run("serving_default", inputs)
    assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT


def test_a_file_without_signatures_has_its_tensors_names(tmp_path):
    import tensorflow as tf

    from evergreen.serving.tflite import TfliteModel

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="rows")])
    def double(rows):
        return 2 * rows

    model = tf.Module()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([double.get_concrete_function()], model)
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    made = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(converter.convert(), 0))
    made.signatureDefs = []
    builder = flatbuffers.Builder(1024)
    builder.Finish(made.Pack(builder), b"TFL3")
    (tmp_path / "model.tflite").write_bytes(bytes(builder.Output()))
    model = TfliteModel("m", 1, tmp_path / "model.tflite")
    (given,), (answered,) = model.signatures["serving_default"].inputs, model.signatures["serving_default"].outputs
    out = model.run("serving_default", {given: np.array([[1, 2], [3, 4], [5, 6]], np.float32)})
    assert out[answered].tolist() == [[2, 4], [6, 8], [10, 12]]


def test_a_file_that_is_no_model_is_refused(tmp_path):
    from evergreen.serving.tflite import TfliteModel

    (tmp_path / "model.tflite").write_bytes(b"not a model")
    with pytest.raises(ServingError, match="cannot be loaded") as refused:
        TfliteModel("m", 1, tmp_path / "model.tflite")
    assert refused.value.code is grpc.StatusCode.DATA_LOSS
