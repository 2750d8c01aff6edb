"""What a loaded version answers to PredictionService's requests, whatever brought them here. No gRPC, no HTTP.

The texts of errors are TensorFlow Serving's own. As in its default, a signature's method name is not checked: TF2
SavedModels name every signature a predict one, and Classify and Regress go by the names of inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    inference_pb2,
    model_pb2,
    predict_pb2,
    prediction_log_pb2,
    regression_pb2,
)

from evergreen.serving import tensors
from evergreen.serving.errors import failed_precondition, internal, invalid, unimplemented
from evergreen.serving.servable import Servable
from evergreen.serving.signature import find_signature

DEFAULT_SIGNATURE = "serving_default"
CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


def signature_name(spec: model_pb2.ModelSpec) -> str:
    """Returns the signature that a request asks for."""
    return str(spec.signature_name) or DEFAULT_SIGNATURE


def predict(servable: Servable, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
    """Answers Predict.

    Raises:
      ServingError: FAILED_PRECONDITION for an unknown signature, INVALID_ARGUMENT for wrong inputs or outputs.
    """
    name = signature_name(request.model_spec)
    find_signature(servable.signatures, name)
    inputs = {}
    for alias in request.inputs:
        try:
            inputs[alias] = tensors.to_array(request.inputs[alias])
        except ValueError:
            raise invalid(f"tensor parsing error: {alias}") from None
    response = predict_pb2.PredictResponse()
    outputs = predict_arrays(servable, name, inputs, list(request.output_filter))
    fill_spec(response.model_spec, servable, name)
    _fill_outputs(response, outputs)
    return response


def predict_arrays(
    servable: Servable, name: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Runs a signature, for inputs that are arrays already.

    Raises:
      ServingError: INVALID_ARGUMENT for wrong inputs or outputs.
    """
    for position, alias in enumerate(outputs):
        if alias in outputs[:position]:
            raise invalid(f"duplicate output tensor alias: {alias}")
    return servable.run(name, inputs, outputs or None)


def classify(
    servable: Servable, request: classification_pb2.ClassificationRequest
) -> classification_pb2.ClassificationResponse:
    """Answers Classify.

    Raises:
      ServingError: INVALID_ARGUMENT or FAILED_PRECONDITION for a signature that does not classify or an empty input.
    """
    name = signature_name(request.model_spec)
    _check_classify(_signature(servable, name))
    response = classification_pb2.ClassificationResponse()
    fill_spec(response.model_spec, servable, name)
    _fill_classes(response.result, *_run_examples(servable, name, request.input))
    return response


def regress(servable: Servable, request: regression_pb2.RegressionRequest) -> regression_pb2.RegressionResponse:
    """Answers Regress.

    Raises:
      ServingError: INVALID_ARGUMENT or FAILED_PRECONDITION for a signature that does not regress or an empty input.
    """
    name = signature_name(request.model_spec)
    _check_regress(_signature(servable, name))
    response = regression_pb2.RegressionResponse()
    fill_spec(response.model_spec, servable, name)
    _fill_values(response.result, *_run_examples(servable, name, request.input))
    return response


def check_tasks(request: inference_pb2.MultiInferenceRequest) -> None:
    """Checks what can be said of a MultiInferenceRequest without the model.

    Raises:
      ServingError: INVALID_ARGUMENT for no task, tasks of several models, or a signature that is asked for twice.
    """
    seen: set[str] = set()
    for task in request.tasks:
        if not task.model_spec.name:
            raise invalid("Found ModelSpec with an empty model name.")
        if task.model_spec.name != request.tasks[0].model_spec.name:
            raise invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        name = signature_name(task.model_spec)
        if name in seen:
            raise invalid(f"Duplicate evaluation of signature: {name}")
        seen.add(name)
    if not seen:
        raise invalid("MultiInferenceRequest has no tasks")


def multi_inference(
    servable: Servable, request: inference_pb2.MultiInferenceRequest
) -> inference_pb2.MultiInferenceResponse:
    """Answers MultiInference: several signatures of one model on the same examples.

    Raises:
      ServingError: as `check_tasks`, `classify` and `regress`; UNIMPLEMENTED for another method.
    """
    check_tasks(request)
    for task in request.tasks:
        name = signature_name(task.model_spec)
        if name not in servable.signatures:
            raise invalid(f"Requested signature not found in model graph: {name}")
        if task.method_name not in (CLASSIFY, REGRESS):
            raise unimplemented(f"Unsupported signature method_name: {task.method_name}")
        check = _check_classify if task.method_name == CLASSIFY else _check_regress
        check(servable.signatures[name])
    response = inference_pb2.MultiInferenceResponse()
    for task in request.tasks:
        name = signature_name(task.model_spec)
        result = response.results.add()
        fill_spec(result.model_spec, servable, name)
        outputs, rows = _run_examples(servable, name, request.input)
        if task.method_name == CLASSIFY:
            _fill_classes(result.classification_result, outputs, rows)
        else:
            _fill_values(result.regression_result, outputs, rows)
    return response


def metadata(
    servable: Servable, request: get_model_metadata_pb2.GetModelMetadataRequest
) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """Answers GetModelMetadata, which knows one field: `signature_def`.

    Raises:
      ServingError: INVALID_ARGUMENT for no field or another one.
    """
    if not request.metadata_field:
        raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
    for name in request.metadata_field:
        if name != "signature_def":
            raise invalid(f"Metadata field {name} is not supported")
    made = get_model_metadata_pb2.SignatureDefMap()
    for name, signature in servable.signatures.items():
        made.signature_def[name].CopyFrom(signature)
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = servable.name
    response.model_spec.version.value = servable.version
    response.metadata["signature_def"].Pack(made)
    return response


def replay(servable: Servable, log: prediction_log_pb2.PredictionLog) -> None:
    """Answers a logged request and drops the answer: one record of a warm-up file.

    Raises:
      ServingError: what the request itself would have got; UNIMPLEMENTED for a kind of log that has no request.
    """
    kind = log.WhichOneof("log_type")
    answer: Any = {
        "predict_log": predict,
        "classify_log": classify,
        "regress_log": regress,
        "multi_inference_log": multi_inference,
    }.get(kind)
    if answer is None:
        raise unimplemented(f"Unsupported log_type for warmup: {kind}")
    answer(servable, getattr(log, kind).request)


def fill_spec(spec: model_pb2.ModelSpec, servable: Servable, signature: str) -> None:
    """Writes what answered into a response: name, version, resolved signature."""
    spec.name = servable.name
    spec.version.value = servable.version
    spec.signature_name = signature


def predict_log(
    servable: Servable, name: str, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]
) -> tuple[predict_pb2.PredictRequest, predict_pb2.PredictResponse]:
    """Makes the protos of a request that came as arrays, for the request log."""
    request, response = predict_pb2.PredictRequest(), predict_pb2.PredictResponse()
    fill_spec(request.model_spec, servable, name)
    fill_spec(response.model_spec, servable, name)
    for alias, array in inputs.items():
        tensors.to_proto(array, request.inputs[alias])
    _fill_outputs(response, outputs)
    return request, response


def _fill_outputs(response: predict_pb2.PredictResponse, outputs: Mapping[str, np.ndarray]) -> None:
    for alias, array in outputs.items():
        try:
            tensors.to_proto(array, response.outputs[alias])
        except ValueError as error:
            raise internal(f"output {alias} has a type that no TensorProto holds: {error}") from None


def _signature(servable: Servable, name: str) -> meta_graph_pb2.SignatureDef:
    if name not in servable.signatures:
        raise invalid(f"No signature was found with the name: {name}")
    return servable.signatures[name]


def _check_classify(signature: meta_graph_pb2.SignatureDef) -> None:
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if len(signature.outputs) not in (1, 2):
        raise invalid(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    if "inputs" not in signature.inputs:
        raise failed_precondition(f"No classification inputs found in SignatureDef: {signature}")
    if not {"classes", "scores"} & set(signature.outputs):
        raise failed_precondition(
            'Expected classification signature outputs to contain at least one of "classes" or "scores". '
            f"Signature was: {signature}"
        )


def _check_regress(signature: meta_graph_pb2.SignatureDef) -> None:
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if len(signature.outputs) != 1:
        raise invalid("Expected one output Tensor.")
    if "inputs" not in signature.inputs:
        raise failed_precondition(f"No regression inputs found in SignatureDef: {signature}")
    if "outputs" not in signature.outputs:
        raise failed_precondition(f"No regression outputs found in SignatureDef: {signature}")


def _run_examples(servable: Servable, name: str, given: Any) -> tuple[dict[str, np.ndarray], int]:
    kind = given.WhichOneof("kind")
    rows = list(getattr(given, kind).examples) if kind else []
    if not rows:
        raise invalid("Input is empty")
    if kind == "example_list_with_context":
        context = given.example_list_with_context.context
        rows = [_merged(context, row) for row in rows]
    serialized = np.empty(len(rows), np.object_)
    serialized[:] = [row.SerializeToString() for row in rows]
    return servable.run(name, {"inputs": serialized}), len(rows)


def _merged(context: Any, row: Any) -> Any:
    # A row's own feature wins over the context's: of a map, protobuf merges keys and not values.
    made = type(row)()
    made.CopyFrom(context)
    made.MergeFrom(row)
    return made


def _fill_classes(result: Any, outputs: Mapping[str, np.ndarray], rows: int) -> None:
    classes, scores = outputs.get("classes"), outputs.get("scores")
    for name, array, kind in (("classes", classes, np.object_), ("scores", scores, np.float32)):
        if array is None:
            continue
        if array.dtype != kind:
            wanted = "DT_STRING" if kind is np.object_ else "DT_FLOAT"
            raise invalid(f"Expected {name} Tensor of {wanted}. Got: {array.dtype}")
        if array.ndim != 2:
            raise invalid(f"Expected {name} Tensor of two dimensions. Got: {array.ndim}")
        if len(array) != rows:
            raise invalid(f"Expected {name} output batch size of {rows}. Got: {len(array)}")
    if classes is not None and scores is not None and classes.shape[1] != scores.shape[1]:
        raise invalid(
            f"Tensors class and score should match in dim_size(1). Got {classes.shape[1]} vs. {scores.shape[1]}"
        )
    found = classes if classes is not None else scores
    assert found is not None
    for row in range(rows):
        into = result.classifications.add().classes
        for column in range(found.shape[1]):
            one = into.add()
            if classes is not None:
                one.label = classes[row, column].decode(errors="replace")
            if scores is not None:
                one.score = scores[row, column]


def _fill_values(result: Any, outputs: Mapping[str, np.ndarray], rows: int) -> None:
    array = outputs["outputs"]
    if array.dtype != np.float32:
        raise invalid(f"Expected output Tensor of DT_FLOAT.  Got: {array.dtype}")
    if array.size != rows:
        raise invalid(f"Expected output batch size to be {rows}.  Got: {array.size}")
    for value in array.reshape(-1).tolist():
        result.regressions.add().value = value
