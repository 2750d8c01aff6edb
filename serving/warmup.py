"""A version's warm-up file: requests that are answered once before anybody else's, inside the load."""

from __future__ import annotations

import itertools
import os

from tensorflow_serving.apis import prediction_log_pb2

from evergreen.serving import inference
from evergreen.serving.errors import ServingError, data_loss
from evergreen.serving.runtime import tf
from evergreen.serving.servable import Servable

FILE = os.path.join("assets.extra", "tf_serving_warmup_requests")
MAX_RECORDS = 1000


def warm_up(servable: Servable) -> None:
    """Replays the version's warm-up file where it has one: TFRecords of PredictionLog, at most 1000.

    Raises:
      ServingError: DATA_LOSS for a file that cannot be read; what a record's request gets, with the record's number.
        Either fails the load.
    """
    path = servable.path / FILE
    if not path.exists():
        return
    count = 0
    try:
        for record in itertools.islice(tf.compat.v1.io.tf_record_iterator(str(path)), MAX_RECORDS):
            count += 1
            inference.replay(servable, prediction_log_pb2.PredictionLog.FromString(record))
    except ServingError as error:
        raise ServingError(error.code, f"Warm-up request {count} of {path.name} failed: {error.message}") from error
    except Exception as error:  # TensorFlow's DataLossError, protobuf's DecodeError
        text = str(error).partition("\n")[0]
        raise data_loss(f"{path.name} cannot be read at record {count}: {text}") from error
