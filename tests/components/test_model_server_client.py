"""The client without TensorFlow: what it sends and reads is what the generated classes of TensorFlow Serving say."""

from __future__ import annotations

import concurrent.futures
import pickle
import subprocess
import sys

import grpc
import numpy as np
import pytest

from evergreen.components.model_server import tensors
from evergreen.components.model_server.client import Client, ServerError

pytestmark = pytest.mark.tensorflow

ARRAYS = [
    np.array([[1.5, -2.0]], np.float32),
    np.array([1e300]),
    np.array([2**62, -1]),
    np.array([True, False]),
    np.array([[3]], np.uint8),
    np.array([0.1], np.float16),
    np.array([b"\xff\x00", b""], object),
    np.array(["é"]),
    np.array(7, np.int32),
    np.zeros((0, 3), np.float32),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{list(array.shape)}")
def test_tensors_are_tensorflows_own(array):
    import tensorflow as tf
    from tensorflow.core.framework import tensor_pb2

    sent = tf.make_ndarray(tensor_pb2.TensorProto.FromString(tensors.to_proto(array).SerializeToString()))
    expected = np.char.encode(array).astype(object) if array.dtype.kind == "U" else array
    np.testing.assert_array_equal(sent, expected)
    # Values as TensorFlow writes them: in fields of their type, equal ones at the end left out.
    written = tf.make_tensor_proto(expected).SerializeToString()
    back = tensors.to_array(type(tensors.to_proto(array)).FromString(written))
    np.testing.assert_array_equal(back, expected)
    assert back.dtype == expected.dtype


def test_repeated_values_may_be_left_out():
    from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2

    shape = tensor_shape_pb2.TensorShapeProto(dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=3)])
    short = tensor_pb2.TensorProto(dtype=1, tensor_shape=shape, float_val=[4.0])
    found = tensors.to_array(type(tensors.to_proto(np.zeros(1))).FromString(short.SerializeToString()))
    assert found.tolist() == [4.0, 4.0, 4.0]


@pytest.fixture(scope="module")
def server():
    """A gRPC server on the generated stubs: doubles `x`, and knows versions in several states."""
    import tensorflow as tf
    from tensorflow.core.protobuf import error_codes_pb2, meta_graph_pb2
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        get_model_status_pb2,
        model_management_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_service_pb2_grpc,
    )

    asked = {5: 0}

    class Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            if request.model_spec.name != "m":
                context.abort(
                    grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Latest({request.model_spec.name})"
                )
            answer = predict_pb2.PredictResponse(model_spec=request.model_spec)
            answer.model_spec.version.value = request.model_spec.version.value or 9
            values = tf.make_ndarray(request.inputs["x"])
            answer.outputs["y"].CopyFrom(tf.make_tensor_proto(values * 2))
            answer.outputs["said"].CopyFrom(
                tf.make_tensor_proto([f"{request.model_spec.version_label}/{request.model_spec.signature_name}"])
            )
            return answer

        def GetModelMetadata(self, request, context):
            assert list(request.metadata_field) == ["signature_def"]
            info, sizes = meta_graph_pb2.TensorInfo, tf.TensorShape([None, 2]).as_proto()
            signature = meta_graph_pb2.SignatureDef(method_name="tensorflow/serving/predict")
            signature.inputs["x"].CopyFrom(info(dtype=1, tensor_shape=sizes))
            signature.outputs["y"].CopyFrom(info(dtype=7, tensor_shape=tf.TensorShape(None).as_proto()))
            signatures = get_model_metadata_pb2.SignatureDefMap()
            signatures.signature_def["serving_default"].CopyFrom(signature)
            answer = get_model_metadata_pb2.GetModelMetadataResponse()
            answer.metadata["signature_def"].Pack(signatures)
            return answer

    class Model(model_service_pb2_grpc.ModelServiceServicer):
        def GetModelStatus(self, request, context):
            version = request.model_spec.version.value
            asked[5] += version == 5
            state, code, words = {
                0: (30, 0, ""),
                3: (50, error_codes_pb2.NOT_FOUND, "no saved_model.pb"),
                4: (20, 0, ""),
                5: (20 if asked[5] < 3 else 30, 0, ""),
            }.get(version, (None, None, None))
            if state is None:
                context.abort(grpc.StatusCode.NOT_FOUND, "Could not find any versions of model m")
            answer = get_model_status_pb2.GetModelStatusResponse()
            found = answer.model_version_status.add(version=version or 9, state=state)
            found.status.error_code, found.status.error_message = code, words
            return answer

        def HandleReloadConfigRequest(self, request, context):
            names = [config.name for config in request.config.model_config_list.config]
            answer = model_management_pb2.ReloadConfigResponse()
            if names != ["m"]:
                answer.status.error_code, answer.status.error_message = (
                    error_codes_pb2.INVALID_ARGUMENT,
                    f"not m: {names}",
                )
            return answer

    running = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Prediction(), running)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Model(), running)
    port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    yield f"127.0.0.1:{port}"
    running.stop(None).wait()


@pytest.fixture
def client(server):
    with Client(server, timeout_s=30) as made:
        yield made


def test_a_prediction_says_what_answered(client):
    answer = client.ask("m", {"x": np.array([[1.0, 2.0]], np.float32)}, label="stable", signature="predict_raw")
    np.testing.assert_array_equal(answer.outputs["y"], [[2, 4]])
    assert answer.outputs["said"].tolist() == [b"stable/predict_raw"]
    assert (answer.version, answer.signature) == (9, "predict_raw")
    assert client.ask("m", {"x": np.zeros(1)}, version=3).version == 3


def test_a_refusal_is_in_the_servers_words(client):
    with pytest.raises(ServerError, match=r"Servable not found for request: Latest\(other\)") as refused:
        client.predict("other", {"x": np.zeros(1)})
    assert refused.value.code is grpc.StatusCode.NOT_FOUND
    again = pickle.loads(pickle.dumps(refused.value))
    assert (again.code, again.details) == (refused.value.code, "Servable not found for request: Latest(other)")


def test_signatures_with_types_and_shapes(client):
    signature = client.metadata("m")["serving_default"]
    assert (signature.inputs["x"].dtype, signature.inputs["x"].shape) == (np.dtype(np.float32), (-1, 2))
    assert (signature.outputs["y"].dtype, signature.outputs["y"].shape) == (np.dtype(object), None)


def test_waiting_ends_with_the_version_or_with_the_reason(client):
    assert client.status("m")[0].state == "AVAILABLE"
    assert client.wait_available("m", 5, 30).version == 5
    with pytest.raises(ServerError, match=r"no saved_model\.pb"):
        client.wait_available("m", 3, 30)
    with pytest.raises(ServerError, match=r"within 0\.3 s[^$]*LOADING"):
        client.wait_available("m", 4, 0.3)
    with pytest.raises(ServerError, match="Could not find any versions of model m") as late:
        client.wait_available("m", 6, 0.3)
    assert late.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_configuration_is_taken_or_refused(client):
    from tensorflow_serving.config import model_server_config_pb2

    config = model_server_config_pb2.ModelServerConfig()
    config.model_config_list.config.add(name="m", base_path="/m")
    client.reload(config)
    config.model_config_list.config[0].name = "n"
    with pytest.raises(ServerError, match="INVALID_ARGUMENT: not m"):
        client.reload(config)


def test_where_no_server_is_the_error_says_how_to_start_one():
    with Client("127.0.0.1:1", timeout_s=10) as nobody, pytest.raises(ServerError, match="evergreen serve"):
        nobody.status("m")


def test_the_client_needs_no_tensorflow():
    program = "import sys, evergreen.components.model_server.client; assert 'tensorflow' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
