"""The built-in server as clients see it: a real process, asked over gRPC and REST."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import serving_world
import tensorflow as tf
from google.protobuf import text_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from evergreen.serving import tensors

pytestmark = pytest.mark.tensorflow

CONFIG = """
model_config_list {{
  config {{
    name: "two" base_path: "{models}/two" model_platform: "tensorflow"
    model_version_policy {{ all {{}} }}
    version_labels {{ key: "stable" value: 1 }}
    logging_config {{
      log_collector_config {{ filename_prefix: "{folder}/log/two" }}
      sampling_config {{ sampling_rate: 1 }}
    }}
  }}
  config {{ name: "one" base_path: "{models}/one" model_platform: "tensorflow" }}
}}
"""


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[serving_world.Server]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "models.config").write_text(CONFIG.format(models=models, folder=folder))
    (folder / "monitoring.config").write_text('prometheus_config { enable: true path: "/monitoring/metrics" }')
    flags = [f"--model_config_file={folder}/models.config", f"--monitoring_config_file={folder}/monitoring.config"]
    flags += ["--max_request_bytes=1000000", "--grpc_channel_arguments=grpc.max_receive_message_length=2000000"]
    with serving_world.serve(folder, *flags, f"--grpc_socket_path={folder}/s") as server:
        for model, version in (("two", 1), ("two", 2), ("one", 1)):
            server.wait(model, version)
        yield server


@pytest.fixture(scope="module")
def stub(server: serving_world.Server) -> Iterator[Any]:
    with grpc.insecure_channel(server.grpc) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def model_stub(server: serving_world.Server) -> Iterator[Any]:
    with grpc.insecure_channel(server.grpc) as channel:
        yield model_service_pb2_grpc.ModelServiceStub(channel)


def request(model: str = "two", signature: str = "raw", version: int = 0, label: str = "", **inputs: Any) -> Any:
    """Makes a PredictRequest; inputs are arrays."""
    made = predict_pb2.PredictRequest()
    made.model_spec.name, made.model_spec.signature_name = model, signature
    if version:
        made.model_spec.version.value = version
    if label:
        made.model_spec.version_label = label
    for name, array in inputs.items():
        tensors.to_proto(array, made.inputs[name])
    return made


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def refused(call: Callable[[Any], Any], asked: Any) -> tuple[grpc.StatusCode, str]:
    """Returns the status and the words of a call that must fail."""
    with pytest.raises(grpc.RpcError) as error:
        call(asked)
    return error.value.code(), error.value.details()


def examples(*values: float) -> list[tf.train.Example]:
    return [tf.train.Example.FromString(serving_world.example(x=value)) for value in values]


def test_predict_over_grpc_says_what_answered(stub):
    answer = stub.Predict(request(x=floats(1, 2)))
    assert list(answer.outputs) == ["y"]
    assert list(answer.outputs["y"].float_val) == [4.0, 6.0]
    assert (answer.model_spec.name, answer.model_spec.version.value, answer.model_spec.signature_name) == (
        "two",
        2,
        "raw",
    )
    by_default = request(signature="", examples=np.array([serving_world.example(x=3.0)], object))
    answer = stub.Predict(by_default)
    assert answer.model_spec.signature_name == "serving_default"
    np.testing.assert_array_equal(tf.make_ndarray(answer.outputs["scores"]), [[8.0]])


def test_a_channel_argument_wins_over_the_servers_own(stub):
    assert len(stub.Predict(request("one", x=np.ones(400_000, np.float32))).outputs["y"].float_val) == 400_000
    longer = request("one", x=np.ones(600_000, np.float32))
    assert refused(stub.Predict, longer)[0] == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_version_or_a_label_can_be_asked_for(stub, server):
    for asked in (request(version=1, x=floats(1)), request(label="stable", x=floats(1))):
        answer = stub.Predict(asked)
        assert answer.model_spec.version.value == 1
        assert list(answer.outputs["y"].float_val) == [3.0]
    body = {"signature_name": "raw", "instances": [1]}
    assert server.ask("/v1/models/two/versions/1:predict", body) == (200, {"predictions": [3.0]})
    assert server.ask("/v1/models/two/labels/stable:predict", body) == (200, {"predictions": [3.0]})


def test_an_output_filter_leaves_out_the_rest(stub):
    asked = request(signature="pair", a=floats(1), b=np.array([2]))
    asked.output_filter.append("sum")
    assert list(stub.Predict(asked).outputs) == ["sum"]
    asked.output_filter.append("sum")
    assert refused(stub.Predict, asked) == (grpc.StatusCode.INVALID_ARGUMENT, "duplicate output tensor alias: sum")


@pytest.mark.parametrize(
    ("asked", "code", "said"),
    [
        (predict_pb2.PredictRequest(), "INVALID_ARGUMENT", "Missing ModelSpec"),
        (request(model=""), "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        (request(model="nix"), "NOT_FOUND", "Servable not found for request: Latest(nix)"),
        (request(version=5), "NOT_FOUND", "Servable not found for request: Specific(two, 5)"),
        (request(label="canary"), "INVALID_ARGUMENT", "Unrecognized servable version label: canary"),
        (request(signature="nix"), "FAILED_PRECONDITION", 'Serving signature key "nix" not found.'),
        (
            request(signature="pair", a=floats(1)),
            "INVALID_ARGUMENT",
            "input size does not match signature: 1!=2 len({a}) != len({a,b}). Sent extra: {}. "
            "Missing but required: {b}.",
        ),
        (request(z=floats(1)), "INVALID_ARGUMENT", "input tensor alias not found in signature: z."),
        (request(x=np.array([1])), "INVALID_ARGUMENT", "expects float32, got int64"),
        (request(signature="pair", a=floats(1, 2), b=np.array([1, 2, 3])), "INVALID_ARGUMENT", "ncompatible shapes"),
    ],
)
def test_a_wrong_request_gets_tensorflow_servings_words(stub, asked, code, said):
    status, details = refused(stub.Predict, asked)
    assert status.name == code
    assert said in details


def test_a_tensor_that_does_not_fit_its_shape(stub):
    asked = request(x=floats(1, 2))
    asked.inputs["x"].tensor_shape.dim[0].size = 10**12
    assert refused(stub.Predict, asked) == (grpc.StatusCode.INVALID_ARGUMENT, "tensor parsing error: x")


@pytest.mark.parametrize(("model", "signature"), [("two", "classify"), ("one", "")])
def test_classify(stub, server, model, signature):
    asked = classification_pb2.ClassificationRequest()
    asked.model_spec.name, asked.model_spec.signature_name, asked.model_spec.version.value = model, signature, 1
    asked.input.example_list.examples.extend(examples(-0.5, 3.0))
    answer = stub.Classify(asked)
    rows = [[(one.label, one.score) for one in row.classes] for row in answer.result.classifications]
    assert [[label for label, _ in row] for row in rows] == [["no", "yes"]] * 2
    assert rows[0][1][1] == 0.5
    assert rows[1][1][1] > 0.99
    assert answer.model_spec.signature_name == (signature or "serving_default")
    body = {"signature_name": signature or "serving_default", "examples": [{"x": -0.5}]}
    assert server.ask(f"/v1/models/{model}/versions/1:classify", body) == (
        200,
        {"results": [[["no", 0.5], ["yes", 0.5]]]},
    )


def test_regress_and_a_context_that_rows_can_overrule(stub, server):
    asked = regression_pb2.RegressionRequest()
    asked.model_spec.name, asked.model_spec.signature_name = "two", "regress"
    given = asked.input.example_list_with_context
    given.context.CopyFrom(examples(5.0)[0])
    given.examples.extend([*examples(1.0), tf.train.Example()])
    assert [one.value for one in stub.Regress(asked).result.regressions] == [4.0, 12.0]
    body = {"signature_name": "regress", "context": {"x": 5.0}, "examples": [{"x": 1.0}, {}]}
    assert server.ask("/v1/models/two:regress", body) == (200, {"results": [4.0, 12.0]})


def test_classify_needs_a_signature_that_classifies(stub):
    asked = classification_pb2.ClassificationRequest()
    asked.model_spec.name = "two"
    asked.input.example_list.examples.extend(examples(1.0))
    assert refused(stub.Classify, asked)[0] == grpc.StatusCode.FAILED_PRECONDITION
    asked.model_spec.signature_name = "nix"
    assert refused(stub.Classify, asked) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "No signature was found with the name: nix",
    )
    asked.model_spec.signature_name = "classify"
    asked.ClearField("input")
    assert refused(stub.Classify, asked) == (grpc.StatusCode.INVALID_ARGUMENT, "Input is empty")


def test_multi_inference_asks_several_signatures_once_each(stub):
    asked = inference_pb2.MultiInferenceRequest()
    asked.input.example_list.examples.extend(examples(1.0))
    for name, method in (("classify", "classify"), ("regress", "regress")):
        task = asked.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name, task.model_spec.signature_name = "two", name
    results = stub.MultiInference(asked).results
    assert results[0].classification_result.classifications[0].classes[1].label == "yes"
    assert results[1].regression_result.regressions[0].value == 4.0
    assert [one.model_spec.signature_name for one in results] == ["classify", "regress"]
    asked.tasks[1].model_spec.signature_name = "classify"
    assert "Duplicate evaluation of signature: classify" in refused(stub.MultiInference, asked)[1]
    asked.tasks[1].model_spec.name = "one"
    assert "must access the same model name" in refused(stub.MultiInference, asked)[1]


def test_metadata(stub, server):
    asked = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    asked.model_spec.name = "two"
    made = get_model_metadata_pb2.SignatureDefMap()
    assert stub.GetModelMetadata(asked).metadata["signature_def"].Unpack(made)
    assert made.signature_def["raw"].inputs["x"].dtype == 1
    asked.metadata_field[0] = "graph"
    assert refused(stub.GetModelMetadata, asked)[1] == "Metadata field graph is not supported"
    status, answer = server.ask("/v1/models/two/versions/1/metadata")
    assert status == 200
    assert answer["model_spec"] == {"name": "two", "signature_name": "", "version": "1"}
    raw = answer["metadata"]["signature_def"]["signature_def"]["raw"]
    assert raw["inputs"]["x"]["dtype"] == "DT_FLOAT"
    assert raw["inputs"]["x"]["tensor_shape"] == {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
    assert raw["method_name"] == "tensorflow/serving/predict"


def test_status(model_stub, server):
    asked = get_model_status_pb2.GetModelStatusRequest()
    assert refused(model_stub.GetModelStatus, asked)[1] == "Missing ModelSpec"
    asked.model_spec.name = "two"
    rows = model_stub.GetModelStatus(asked).model_version_status
    assert [(one.version, one.state, one.status.error_code) for one in rows] == [(2, 30, 0), (1, 30, 0)]
    ok = {"error_code": "OK", "error_message": ""}
    row = {"version": "1", "state": "AVAILABLE", "status": ok}
    assert server.ask("/v1/models/two/labels/stable") == (200, {"model_version_status": [row]})
    asked.model_spec.name = "nix"
    said = "Could not find any versions of model nix"
    assert refused(model_stub.GetModelStatus, asked) == (grpc.StatusCode.NOT_FOUND, said)
    assert server.ask("/v1/models/nix") == (404, {"error": said})


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v1/models/two:predict", {"signature_name": "raw", "instances": [1, 2.5]}, 200, {"predictions": [4.0, 7.0]}),
        ("/v1/models/two:predict", {"signature_name": "raw", "inputs": [1]}, 200, {"outputs": [4.0]}),
        ("/V1/MODELS/two:PREDICT", {"signature_name": "raw", "inputs": {"x": [1]}}, 200, {"outputs": [4.0]}),
        ("/v1/models/%74wo:predict", {"signature_name": "raw", "inputs": {"x": [1]}}, 200, {"outputs": [4.0]}),
        (
            "/v1/models/two:predict",
            {"signature_name": "kinds", "instances": [{"flag": True, "count": -3, "word": "é"}]},
            200,
            {"predictions": [{"count_out": -3, "flag_out": True, "word_out": "é"}]},
        ),
        (
            "/v1/models/two:predict",
            {"signature_name": "text", "inputs": ["ab", {"b64": "/w=="}]},
            200,
            {"outputs": {"upper": ["AB", "\ufffd"], "word_bytes": [{"b64": "YWI="}, {"b64": "/w=="}]}},
        ),
        (
            "/v1/models/one:predict",
            {"signature_name": "look_up", "instances": ["b", "a"]},
            200,
            {"predictions": [1, 0]},
        ),
        (
            "/v1/models/two:predict",
            {"signature_name": "nix", "instances": [1]},
            400,
            'Serving signature name: "nix" not found in signature def',
        ),
        ("/v1/models/two:predict", b"", 400, "JSON Parse error: The document is empty"),
        ("/v1/models/nix:predict", {"instances": [1]}, 404, "Servable not found for request: Latest(nix)"),
        (
            "/v1/models/two/versions/9:predict",
            {"instances": [1]},
            404,
            "Servable not found for request: Specific(two, 9)",
        ),
        ("/v1/models/two:explain", {"instances": [1]}, 400, "Malformed request: POST /v1/models/two:explain"),
        ("/v1/models/two/versions/x", None, 400, "Malformed request: GET /v1/models/two/versions/x"),
        ("/v1/models", None, 400, "Missing model name in request."),
        ("/v1/models/two/versions/99999999999999999999", None, 400, "Failed to convert version: 99999999999999999999"),
        ("/v2/models/two", None, 404, "Not Found"),
    ],
)
def test_rest(server, path, body, status, said):
    got, answer = server.ask(path, body)
    assert got == status, answer
    if status == 200:
        assert answer == said
    else:
        assert list(answer) == ["error"]
        assert answer["error"].startswith(said)


def test_health(server):
    with grpc.insecure_channel(server.grpc) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        for name in ("", "tensorflow.serving.PredictionService"):
            assert check(health_pb2.HealthCheckRequest(service=name)).status == health_pb2.HealthCheckResponse.SERVING


def test_nobody_else_reaches_it_unless_told_otherwise(server):
    for address in (server.grpc, server.rest):
        # Another address of this machine; a server on all addresses would answer there too.
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", int(address.rpartition(":")[2])), timeout=60)


def test_a_unix_socket_answers_too(server):
    with grpc.insecure_channel(f"unix:{server.log.parent}/s") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        assert list(stub.Predict(request(x=floats(1))).outputs["y"].float_val) == [4.0]


def test_metrics_under_tensorflow_servings_names(server, stub):
    for _ in range(3):
        stub.Predict(request(model="one", x=floats(1)))
    refused(stub.Predict, request(model="one", signature="nix"))
    server.ask("/v1/models/one:predict", {"signature_name": "raw", "instances": [1]})
    status, page = server.ask("/monitoring/metrics")
    assert status == 200
    lines = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
    count = ":tensorflow:serving:request_count"
    assert float(lines[f'{count}{{model_name="one",status="OK"}}']) >= 4
    assert float(lines[f'{count}{{model_name="one",status="FAILED_PRECONDITION"}}']) == 1
    assert f"# TYPE {count} counter" in page
    latency = ":tensorflow:serving:request_latency"
    labels = 'API="Predict",entrypoint="GRPC",model_name="one"'
    assert float(lines[f"{latency}_count{{{labels}}}"]) >= 3
    assert 3 * 10 < float(lines[f"{latency}_sum{{{labels}}}"]) < 60e6  # microseconds
    assert any(line.startswith(":tensorflow:serving:runtime_latency_bucket") for line in lines)
    load = ":tensorflow:cc:saved_model:load_latency"
    assert float(lines[f'{load}_count{{model_path="one/1"}}']) == 1


def test_answered_requests_are_logged_as_prediction_logs(server, stub):
    stub.Predict(request(x=floats(41)))
    server.ask("/v1/models/two:predict", {"signature_name": "raw", "instances": [42]})
    server.ask("/v1/models/two:regress", {"signature_name": "regress", "examples": [{"x": 43.0}]})
    found: set[float] = set()
    end = time.monotonic() + 60
    while not found >= {41.0, 42.0, 43.0} and time.monotonic() < end:
        time.sleep(0.2)
        for log in logged(server.log.parent / "log"):
            kind = log.WhichOneof("log_type")
            if kind == "predict_log" and log.predict_log.request.model_spec.signature_name == "raw":
                assert log.log_metadata.model_spec.version.value in (1, 2)
                found.update(log.predict_log.request.inputs["x"].float_val)
            if kind == "regress_log":
                row = log.regress_log.request.input.example_list.examples
                found.update(row[0].features.feature["x"].float_list.value if row else [])
    assert found >= {41.0, 42.0, 43.0}


def logged(folder: Path) -> Iterator[prediction_log_pb2.PredictionLog]:
    """Reads what the request log holds by now."""
    for path in sorted(folder.glob("two.*.tfrecord")):
        for record in tf.compat.v1.io.tf_record_iterator(str(path)):
            yield prediction_log_pb2.PredictionLog.FromString(record)


def test_a_reload_replaces_the_models(models, model_stub, stub, server):
    asked = model_management_pb2.ReloadConfigRequest()
    assert "Only ModelConfigList is currently supported" in refused(model_stub.HandleReloadConfigRequest, asked)[1]
    config = CONFIG.format(models=models, folder=server.log.parent)
    text_format.Parse(config, asked.config)
    asked.config.model_config_list.config[0].version_labels["canary"] = 2
    model_stub.HandleReloadConfigRequest(asked)
    assert stub.Predict(request(label="canary", x=floats(1))).model_spec.version.value == 2
    asked.config.model_config_list.config[0].version_labels["canary"] = 9
    assert refused(model_stub.HandleReloadConfigRequest, asked)[0] == grpc.StatusCode.FAILED_PRECONDITION
    assert stub.Predict(request(label="canary", x=floats(1))).model_spec.version.value == 2


def test_it_says_why_it_does_not_start(tmp_path):
    (tmp_path / "wrong.config").write_text("model_config_list { nix }")
    for flags, said in (
        ([f"--model_config_file={tmp_path}/wrong.config"], "Error parsing text-format tensorflow.serving.ModelServer"),
        (["--model_base_path=/m", "--ssl_config_file=x"], "does not support"),
    ):
        done = subprocess.run(
            serving_world.command(*flags),
            env=serving_world.environment(),
            capture_output=True,
            text=True,
            timeout=serving_world.START_S,
            check=False,
        )
        assert done.returncode == 1
        assert said in done.stderr


def test_sigterm_lets_requests_in_work_end_and_exits_with_0(models, tmp_path):
    (tmp_path / "batching").write_text("batch_timeout_micros { value: 3000000 } max_batch_size { value: 64 }")
    flags = ["--enable_batching", f"--batching_parameters_file={tmp_path}/batching"]
    with serving_world.serve(
        tmp_path, "--model_name=two", f"--model_base_path={models}/two", "--enable_model_warmup=false", *flags
    ) as server:
        server.wait("two", 2)
        answers: list[Any] = []
        body = {"signature_name": "raw", "instances": [1]}
        asking = threading.Thread(target=lambda: answers.append(server.ask("/v1/models/two:predict", body)))
        with grpc.insecure_channel(server.grpc) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            coming = stub.Predict.future(request(x=floats(1)), timeout=60, wait_for_ready=True)
            asking.start()
            time.sleep(1)  # both wait in the batch that is due after 3 s
            assert server.stop(signal.SIGTERM) == 0
            asking.join()
            assert answers == [(200, {"predictions": [4.0]})]
            assert list(coming.result().outputs["y"].float_val) == [4.0]
    assert not os.path.exists(f"/proc/{server.process.pid}")
