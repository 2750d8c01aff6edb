"""PredictionService and ModelService as plain functions from request to response: what both fronts call.

Here a request meets its model: it leases a version, is answered by `inference`, counted, and logged where it is
sampled. Every function may be called from several threads at a time, and may take as long as the model does.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import grpc
import numpy as np
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_pb2,
    predict_pb2,
    prediction_log_pb2,
    regression_pb2,
)

from evergreen.serving import inference, rest_decode, rest_encode
from evergreen.serving.errors import ServingError, internal, invalid
from evergreen.serving.manager import Manager
from evergreen.serving.metrics import Metrics
from evergreen.serving.request_log import Fill, RequestLog
from evergreen.serving.servable import Servable

GRPC, REST = "GRPC", "REST"
_T = TypeVar("_T")


class Service:
    """Answers requests from a manager's models.

    Args:
      manager: where the models are.
      metrics: counts requests and runs.
      log: takes sampled requests.
    """

    def __init__(self, manager: Manager, metrics: Metrics, log: RequestLog):
        self._manager, self._metrics, self._log = manager, metrics, log

    def predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        """Answers Predict over gRPC."""
        return self._answer("Predict", GRPC, request, inference.predict, "predict_log")

    def predict_json(self, spec: model_pb2.ModelSpec, body: bytes) -> str:
        """Answers a Predict body over REST, past the protos: arrays come from JSON and become JSON."""
        sampled: list[Any] = []

        def work(model: Servable) -> str:
            document = rest_decode.parse(body)
            name = rest_decode.signature_of(document) or inference.DEFAULT_SIGNATURE
            if name not in model.signatures:
                raise invalid(f'Serving signature name: "{name}" not found in signature def')
            wanted = model.signatures[name].inputs
            if not wanted:
                raise invalid(f"Failed to get input map for signature: {name}")
            inputs, format = rest_decode.decode_predict(document, wanted)
            outputs = inference.predict_arrays(model, name, inputs)
            if self._log.wants(model.name):
                sampled.extend([model, name, inputs, outputs])
            return rest_encode.encode_predict(outputs, format)

        answer = self._counted("Predict", REST, spec, work)
        if sampled:
            model, name, inputs, outputs = sampled
            self._log_arrays(model, name, inputs, outputs)
        return answer

    def classify(
        self, request: classification_pb2.ClassificationRequest, entrypoint: str = GRPC
    ) -> classification_pb2.ClassificationResponse:
        """Answers Classify."""
        return self._answer("Classify", entrypoint, request, inference.classify, "classify_log")

    def regress(
        self, request: regression_pb2.RegressionRequest, entrypoint: str = GRPC
    ) -> regression_pb2.RegressionResponse:
        """Answers Regress."""
        return self._answer("Regress", entrypoint, request, inference.regress, "regress_log")

    def multi_inference(self, request: inference_pb2.MultiInferenceRequest) -> inference_pb2.MultiInferenceResponse:
        """Answers MultiInference. The first task's model_spec says which version."""
        inference.check_tasks(request)
        spec = request.tasks[0].model_spec

        def work(model: Servable) -> inference_pb2.MultiInferenceResponse:
            response = inference.multi_inference(model, request)
            if self._log.wants(model.name):
                self._log.add(response.results[0].model_spec, _filler("multi_inference_log", request, response))
            return response

        return self._counted("MultiInference", GRPC, spec, work)

    def metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Answers GetModelMetadata."""
        with self._manager.lease(*_wanted(_spec(request))) as model:
            return inference.metadata(model, request)

    def status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Answers GetModelStatus."""
        response = get_model_status_pb2.GetModelStatusResponse()
        for one in self._manager.status(*_wanted(_spec(request))):
            added = response.model_version_status.add()
            added.version = one.version
            added.state = get_model_status_pb2.ModelVersionStatus.State.Value(one.state)
            added.status.error_code = one.code.value[0]
            added.status.error_message = one.message
        return response

    def reload(self, request: model_management_pb2.ReloadConfigRequest) -> model_management_pb2.ReloadConfigResponse:
        """Answers HandleReloadConfigRequest: the request's models replace all others."""
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid(
                "ServerConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently "
                "supported"
            )
        self._manager.reload(request.config)
        response = model_management_pb2.ReloadConfigResponse()
        response.status.error_code = 0
        return response

    def _answer(
        self,
        api: str,
        entrypoint: str,
        request: Any,
        answer: Callable[[Servable, Any], Any],
        kind: str,
    ) -> Any:
        response = self._counted(api, entrypoint, _spec(request), lambda model: answer(model, request))
        if self._log.wants(request.model_spec.name):
            self._log.add(response.model_spec, _filler(kind, request, response))
        return response

    def _counted(self, api: str, entrypoint: str, spec: model_pb2.ModelSpec, work: Callable[[Servable], _T]) -> _T:
        start, status = time.perf_counter(), "OK"
        known = spec.name
        try:
            with self._manager.lease(*_wanted(spec)) as model:
                return work(_Timed(model, self._metrics, api))
        except ServingError as error:
            status = error.code.name
            # A name that a stranger made up must not become a line of the metrics.
            known = known if status != grpc.StatusCode.NOT_FOUND.name else "unknown"
            raise
        except Exception as error:
            traceback.print_exc()
            status = grpc.StatusCode.INTERNAL.name
            raise internal(f"{type(error).__name__} in the server; its log has the traceback") from error
        finally:
            self._metrics.request(known, api, entrypoint, status, time.perf_counter() - start)

    def _log_arrays(
        self, model: Servable, name: str, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]
    ) -> None:
        spec = model_pb2.ModelSpec()
        inference.fill_spec(spec, model, name)

        def fill(log: prediction_log_pb2.PredictionLog) -> None:
            _filler("predict_log", *inference.predict_log(model, name, inputs, outputs))(log)

        self._log.add(spec, fill)


class _Timed(Servable):
    """A version for the time of one request, whose runs are counted."""

    def __init__(self, model: Servable, metrics: Metrics, api: str):
        self.name, self.version, self.path, self.signatures = model.name, model.version, model.path, model.signatures
        self._model, self._metrics, self._api = model, metrics, api

    def run(
        self, signature: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        start = time.perf_counter()
        made = self._model.run(signature, inputs, outputs)
        self._metrics.run(self.name, self._api, time.perf_counter() - start)
        return made

    def unload(self) -> None:
        raise NotImplementedError("a request does not unload its model")


def _filler(kind: str, request: Any, response: Any) -> Fill:
    """Makes what writes a request and its answer into a PredictionLog's field of that name."""

    def fill(log: prediction_log_pb2.PredictionLog) -> None:
        entry = getattr(log, kind)
        entry.request.CopyFrom(request)
        entry.response.CopyFrom(response)

    return fill


def _spec(request: Any) -> model_pb2.ModelSpec:
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    return request.model_spec


def _wanted(spec: model_pb2.ModelSpec) -> tuple[str, int | None, str | None]:
    if not spec.name:
        raise invalid("ModelSpec has no name specified.")
    version = spec.version.value if spec.HasField("version") else None
    return spec.name, version, spec.version_label or None
