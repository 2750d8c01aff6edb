"""The warm-up file of a version: each record is answered, and one that is wrong fails the load with its reason."""

from __future__ import annotations

import shutil

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from evergreen.serving import tensors, warmup
from evergreen.serving.errors import ServingError
from evergreen.serving.saved_model import SavedModel

pytestmark = pytest.mark.tensorflow


class Counted(SavedModel):
    """A model that remembers what it was asked."""

    asked: list[tuple[str, int]]

    def run(self, signature, inputs, outputs=None):
        self.asked.append((signature, len(next(iter(inputs.values())))))
        return super().run(signature, inputs, outputs)


@pytest.fixture
def model(tf2, tmp_path):
    """A version of its own, which a test may spoil."""
    shutil.copytree(tf2, tmp_path / "1")
    (tmp_path / "1" / "assets.extra").mkdir(exist_ok=True)
    made = Counted("m", 1, tmp_path / "1")
    made.asked = []
    return made


def predict_log(signature="raw", rows=1, dtype=np.float32):
    """Makes a record that asks for a Predict."""
    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    request.model_spec.name, request.model_spec.signature_name = "m", signature
    tensors.to_proto(np.ones(rows, dtype), request.inputs["x"])
    return log


def write(model, *records):
    """Writes the warm-up file."""
    with tf.io.TFRecordWriter(str(model.path / warmup.FILE)) as writer:
        for record in records:
            writer.write(record if isinstance(record, bytes) else record.SerializeToString())


def refused(model):
    """Returns the status and the words with which the load fails."""
    with pytest.raises(ServingError) as error:
        warmup.warm_up(model)
    return error.value.code, error.value.message


def test_every_kind_of_record_is_answered(model):
    classify, regress, multi = (prediction_log_pb2.PredictionLog() for _ in range(3))
    example = tf.train.Example()
    for request, name in ((classify.classify_log.request, "classify"), (regress.regress_log.request, "regress")):
        request.model_spec.name, request.model_spec.signature_name = "m", name
        request.input.example_list.examples.append(example)
    asked = multi.multi_inference_log.request
    asked.input.example_list.examples.append(example)
    task = asked.tasks.add(method_name="tensorflow/serving/regress")
    task.model_spec.name, task.model_spec.signature_name = "m", "regress"
    write(model, predict_log(), predict_log(rows=3), classify, regress, multi)
    warmup.warm_up(model)
    assert model.asked == [("raw", 1), ("raw", 3), ("classify", 1), ("regress", 1), ("regress", 1)]


def test_a_version_without_the_file_needs_no_warm_up(model):
    warmup.warm_up(model)
    assert not model.asked


def test_at_most_a_thousand_records_are_answered(model):
    write(model, *[predict_log()] * 1010)
    warmup.warm_up(model)
    assert len(model.asked) == 1000


def test_a_record_that_the_model_refuses_fails_the_load_with_its_number(model):
    write(model, predict_log(), predict_log(dtype=np.int64))
    code, message = refused(model)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert message.startswith("Warm-up request 2 of tf_serving_warmup_requests failed: ")


def test_a_file_that_is_cut_off_or_no_tfrecord_fails_the_load(model):
    write(model, predict_log(), predict_log())
    path = model.path / warmup.FILE
    path.write_bytes(path.read_bytes()[:-10])
    assert refused(model)[0] == grpc.StatusCode.DATA_LOSS
    path.write_bytes(b"no records at all, but some text")
    assert refused(model)[0] == grpc.StatusCode.DATA_LOSS
    write(model, b"\xff no PredictionLog")
    assert refused(model)[0] == grpc.StatusCode.DATA_LOSS
    write(model, prediction_log_pb2.PredictionLog())
    assert refused(model) == (
        grpc.StatusCode.UNIMPLEMENTED,
        "Warm-up request 1 of tf_serving_warmup_requests failed: Unsupported log_type for warmup: None",
    )
