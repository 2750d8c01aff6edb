"""Skew between served requests and learnt rows: every way in which a request carries rows, and TFDV's verdicts."""

from __future__ import annotations

import numpy as np
import pytest

from evergreen.components.skew import measure, requests

pytestmark = pytest.mark.tensorflow

SCHEMA = """
default_environment: "TRAINING"
default_environment: "SERVING"
feature { name: "city" type: BYTES skew_comparator { infinity_norm { threshold: 0.2 } } presence { min_fraction: 1 } }
feature { name: "size" type: FLOAT skew_comparator { jensen_shannon_divergence { threshold: 0.05 } } }
feature { name: "rooms" type: INT }
feature { name: "late" type: INT }
feature { name: "day" type: BYTES not_in_environment: "SERVING" }
"""


def example(**features) -> bytes:
    import tensorflow as tf

    made = tf.train.Example()
    for name, value in features.items():
        feature = made.features.feature[name]
        if isinstance(value, bytes):
            feature.bytes_list.value.append(value)
        elif isinstance(value, float):
            feature.float_list.value.append(value)
        else:
            feature.int64_list.value.append(value)
    return made.SerializeToString()


def write(path, records) -> str:
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return str(path)


def predict(model: str = "homes", **inputs):
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.model_spec.name = model
    for name, value in inputs.items():
        log.predict_log.request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return log


def rows(records) -> list[dict]:
    import tensorflow as tf

    found = []
    for record in records:
        features = tf.train.Example.FromString(record).features.feature
        values = {name: [*f.bytes_list.value, *f.float_list.value, *f.int64_list.value] for name, f in features.items()}
        found.append({name: value for name, value in values.items() if value})
    return found


class TestRequests:
    def read(self, tmp_path, *logs, most=100):
        write(tmp_path / "log.0.tfrecord", [log.SerializeToString() for log in logs])
        return requests.read(requests.log_files(str(tmp_path / "log")), "homes", most)

    def test_serialized_examples_pass_through(self, tmp_path):
        given = [example(city=b"Oslo", size=3.5), example()]
        found = self.read(tmp_path, predict(anything=np.array(given, object)))
        assert found.rows == given and (found.count, found.unread) == (1, 0)

    def test_dense_features_become_rows_without_what_is_missing(self, tmp_path):
        log = predict(
            city=np.array([[b"Oslo"], [b""]], object),
            size=np.array([[np.nan], [2.0]], np.float32),
            rooms=np.array([[-(2**63)], [4]], np.int64),
        )
        assert rows(self.read(tmp_path, log).rows) == [{"city": [b"Oslo"]}, {"size": [2.0], "rooms": [4]}]

    def test_a_single_input_of_words_is_a_feature(self, tmp_path):
        found = self.read(tmp_path, predict(city=np.array([b"Oslo", b"Rome"], object)))
        assert rows(found.rows) == [{"city": [b"Oslo"]}, {"city": [b"Rome"]}]

    def test_classify_with_a_context(self, tmp_path):
        import tensorflow as tf
        from tensorflow_serving.apis import prediction_log_pb2

        log = prediction_log_pb2.PredictionLog()
        log.classify_log.request.model_spec.name = "homes"
        given = log.classify_log.request.input.example_list_with_context
        given.context.CopyFrom(tf.train.Example.FromString(example(city=b"Oslo")))
        given.examples.add().CopyFrom(tf.train.Example.FromString(example(rooms=3)))
        assert rows(self.read(tmp_path, log).rows) == [{"city": [b"Oslo"], "rooms": [3]}]

    def test_multi_inference_names_the_model_in_its_tasks(self, tmp_path):
        import tensorflow as tf
        from tensorflow_serving.apis import prediction_log_pb2

        log, empty = prediction_log_pb2.PredictionLog(), prediction_log_pb2.PredictionLog()
        empty.multi_inference_log.SetInParent()
        log.multi_inference_log.request.tasks.add().model_spec.name = "homes"
        given = log.multi_inference_log.request.input.example_list.examples.add()
        given.CopyFrom(tf.train.Example.FromString(example(rooms=3)))
        found = self.read(tmp_path, empty, log)
        assert rows(found.rows) == [{"rooms": [3]}] and found.count == 1

    def test_other_models_and_what_is_no_row_are_left_out(self, tmp_path):
        found = self.read(tmp_path, predict("taxi", size=np.ones(1)), predict(size=np.float32(2)), predict(size=[1.0]))
        assert (found.count, found.unread, len(found.rows)) == (2, 1, 1)

    def test_a_file_that_is_still_written_is_read_as_far_as_it_goes(self, tmp_path):
        path = tmp_path / "log.1.tfrecord"
        write(path, [predict(size=[float(i)]).SerializeToString() for i in range(3)])
        path.write_bytes(path.read_bytes()[:-5])
        found = requests.read(requests.log_files(str(tmp_path / "log")), "homes", 100)
        assert (len(found.rows), found.truncated) == (2, [str(path)])
        assert len(requests.read([str(path)], "homes", 1).rows) == 1


class TestMeasure:
    @pytest.fixture(scope="class")
    def schema(self):
        from google.protobuf import text_format
        from tensorflow_metadata.proto.v0 import schema_pb2

        return text_format.Parse(SCHEMA, schema_pb2.Schema())

    def make(self, count: int, cities=(b"Oslo", b"Rome"), mean: float = 50.0, **more) -> list[bytes]:
        random = np.random.default_rng(7)
        sizes = random.normal(mean, 10, count)
        return [
            example(city=cities[i % len(cities)], size=float(sizes[i]), rooms=1 + i % 5, late=i % 2, **more)
            for i in range(count)
        ]

    @pytest.fixture(scope="class")
    def learnt(self, tmp_path_factory):
        return [write(tmp_path_factory.mktemp("learnt") / "data", self.make(2000, day=b"monday"))]

    def compared(self, served, learnt, schema):
        return {line.feature: line for line in measure.measure(served, learnt, schema, ["late"])}

    def test_the_same_rows_are_fine(self, learnt, schema):
        found = self.compared(self.make(500), learnt, schema)
        assert set(found) == {"city", "size", "rooms"}, "neither the label nor what no request has"
        assert {line.verdict for line in found.values()} == {measure.OK}
        assert (found["city"].measure, found["city"].threshold, found["city"].default) == ("L-infinity", 0.2, False)
        assert found["city"].value < 0.01
        assert (found["rooms"].measure, found["rooms"].threshold, found["rooms"].default) == (
            "Jensen-Shannon",
            measure.DEFAULT_THRESHOLD,
            True,
        )

    def test_other_values_are_over_their_thresholds(self, learnt, schema):
        found = self.compared(self.make(500, cities=(b"Oslo", b"Oslo", b"Lima"), mean=80.0), learnt, schema)
        assert found["city"].verdict == found["size"].verdict == measure.OVER
        assert found["city"].value == pytest.approx(0.5), "Rome's half is gone"
        assert found["rooms"].verdict == measure.OK

    def test_a_default_counts_only_where_the_schema_has_no_comparator_at_all(self, learnt, schema):
        from tensorflow_metadata.proto.v0 import schema_pb2

        served = [example(city=(b"Oslo", b"Rome")[i % 2], size=50.0 + i % 30, rooms=5) for i in range(300)]
        assert self.compared(served, learnt, schema)["rooms"].verdict == measure.HIGH
        bare = schema_pb2.Schema()
        bare.CopyFrom(schema)
        for feature in bare.feature:
            feature.ClearField("skew_comparator")
        found = self.compared(served, learnt, bare)
        assert found["rooms"].verdict == measure.OVER and found["rooms"].over
        assert found["city"].verdict == measure.OK and found["city"].default

    def test_a_feature_that_is_never_sent(self, learnt, schema):
        served = [example(city=(b"Oslo", b"Rome")[i % 2], rooms=1 + i % 5) for i in range(200)]
        size = self.compared(served, learnt, schema)["size"]
        assert (size.verdict, size.value, size.missing_served, size.missing_learnt) == (
            measure.NEVER_SENT,
            None,
            1.0,
            0.0,
        )
        assert size.over

    def test_few_rows_judge_nothing(self, learnt, schema):
        found = self.compared(self.make(20, cities=(b"Lima",)), learnt, schema)
        assert {line.verdict for line in found.values()} == {measure.TOO_FEW}
        assert found["city"].value > 0.4 and not found["city"].over
