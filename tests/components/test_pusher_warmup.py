"""Warm-up requests: for every signature, of rows from the schema, and never one that the model does not answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.tensorflow

SCHEMA = """
feature { name: "carrier" type: BYTES domain: "carriers" value_count { min: 1 max: 1 } }
feature { name: "distance" type: FLOAT float_domain { min: 80 max: 4983 } }
feature { name: "hour" type: INT int_domain { min: 0 max: 23 } }
feature { name: "seats" type: INT int_domain { min: 12 } shape { dim { size: 2 } } }
feature { name: "night" type: BYTES bool_domain { true_value: "yes" false_value: "no" } }
feature { name: "note" type: BYTES }
feature { name: "late" type: INT not_in_environment: "SERVING" }
feature { name: "old" type: INT lifecycle_stage: DEPRECATED }
string_domain { name: "carriers" value: "AA" value: "UA" value: "B6" }
"""


@pytest.fixture(scope="module")
def schema_uri(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("schema")
    (folder / "schema.pbtxt").write_text(SCHEMA)
    return str(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """Signatures on serialized examples, on raw features, on a fixed batch, and one that fails on small batches."""
    import tensorflow as tf

    spec = {"distance": tf.io.FixedLenFeature([1], tf.float32), "carrier": tf.io.FixedLenFeature([1], tf.string)}

    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "examples")])
        def on_examples(self, examples):
            return {"predictions": tf.io.parse_example(examples, spec)["distance"]}

        @tf.function(
            input_signature=[
                tf.TensorSpec([None, 1], tf.string, "carrier"),
                tf.TensorSpec([None], tf.int64, "hour"),
                tf.TensorSpec([None, 2], tf.float32, "seats"),
                tf.TensorSpec([None, 3], tf.float32, "unknown"),
            ]
        )
        def on_raw(self, carrier, hour, seats, unknown):
            return {"predictions": tf.cast(hour, tf.float32) + tf.reduce_sum(seats + unknown[:, :2], 1)}

        @tf.function(input_signature=[tf.TensorSpec([4, 3], tf.float32, "image")])
        def fixed(self, image):
            return {"predictions": image}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "note")])
        def fragile(self, note):
            with tf.control_dependencies([tf.debugging.assert_less(tf.size(note), 2)]):
                return {"predictions": tf.identity(note)}

    module, path = Module(), tmp_path_factory.mktemp("model") / "1"
    signatures = {
        "serving_default": module.on_examples,
        "raw": module.on_raw,
        "fixed": module.fixed,
        "one": module.fragile,
    }
    tf.saved_model.save(module, str(path), signatures=signatures)
    return path


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Path:
    """A SavedModel as TensorFlow 1 wrote them, with signatures for Classify and Regress."""
    import tensorflow as tf

    path = str(tmp_path_factory.mktemp("v1") / "1")
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        serialized = v1.placeholder(tf.string, [None], "serialized")
        parsed = v1.parse_example(serialized, {"distance": tf.io.FixedLenFeature([1], tf.float32)})
        weight = v1.get_variable("weight", initializer=1.0, use_resource=True)
        score = tf.squeeze(parsed["distance"] * weight, 1)
        scores = tf.stack([score, 1 - score], 1)
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(path)
        utils = v1.saved_model.signature_def_utils
        signatures = {
            "classify": utils.classification_signature_def(serialized, None, scores),
            "regress": utils.regression_signature_def(serialized, score),
        }
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()
    return Path(path)


def read(made) -> list:
    """Reads the records back, as a server does."""
    import tempfile

    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(made.content)
        records = list(tf.data.TFRecordDataset(file.name).as_numpy_iterator())
    assert len(records) == made.records
    return [prediction_log_pb2.PredictionLog.FromString(record) for record in records]


def raw_request(made):
    """The request of eight rows for the signature `raw`."""
    requests = [log.predict_log.request for log in read(made)]
    asked = [request for request in requests if request.model_spec.signature_name == "raw"]
    return next(request for request in asked if request.inputs["hour"].tensor_shape.dim[0].size == 8)


def make(path, schema_uri):
    from evergreen.components.pusher import warmup

    return warmup.make(path, warmup.rows_for("schema", [schema_uri], []), "flights")


def test_rows_lie_in_the_schemas_domains(schema_uri):
    from evergreen.components.pusher import warmup

    rows = warmup.rows_for("schema", [schema_uri], [])
    assert len(rows) == warmup.ROWS
    assert {row["carrier"][0] for row in rows} == {b"AA", b"UA", b"B6"}
    assert {row["night"][0] for row in rows} == {b"yes", b"no"}
    assert all(80 <= row["distance"][0] <= 4983 and 0 <= row["hour"][0] <= 23 for row in rows)
    assert len({row["distance"][0] for row in rows}) == warmup.ROWS
    assert all(len(row["seats"]) == 2 and min(row["seats"]) >= 12 for row in rows)
    assert all(set(row) == {"carrier", "distance", "hour", "seats", "night", "note"} for row in rows)
    assert rows == warmup.rows_for("schema", [schema_uri], []), "the same version twice has the same requests"


def test_every_signature_gets_one_row_and_several(model, schema_uri):
    made = make(model, schema_uri)
    asked = {}
    for log in read(made):
        request = log.predict_log.request
        assert request.model_spec.name == "flights"
        sizes = {tensor.tensor_shape.dim[0].size for tensor in request.inputs.values()}
        asked.setdefault(request.model_spec.signature_name, []).extend(sizes)
    assert asked == {"serving_default": [1, 8], "raw": [1, 8], "fixed": [4], "one": [1]}


def test_what_the_model_does_not_answer_is_left_out_with_a_warning(model, schema_uri):
    (warning,) = make(model, schema_uri).warnings
    assert "of 8 for the signature one" in warning and "InvalidArgument" in warning


def test_raw_tensors_hold_the_rows(model, schema_uri):
    import tensorflow as tf

    logs = [log.predict_log.request for log in read(make(model, schema_uri))]
    raw = next(
        r for r in logs if r.model_spec.signature_name == "raw" and r.inputs["hour"].tensor_shape.dim[0].size == 8
    )
    assert tf.make_ndarray(raw.inputs["carrier"])[:3].tolist() == [[b"AA"], [b"UA"], [b"B6"]]
    assert tf.make_ndarray(raw.inputs["hour"]).max() <= 23
    assert tf.make_ndarray(raw.inputs["seats"]).shape == (8, 2)
    assert not tf.make_ndarray(raw.inputs["unknown"]).any()


def test_classify_and_regress_get_logs_of_their_kind(classifier, schema_uri):
    made = make(classifier, schema_uri)
    assert made.warnings == ()
    kinds = [(log.WhichOneof("log_type"), len(_examples(log))) for log in read(made)]
    assert kinds == [("classify_log", 1), ("classify_log", 8), ("regress_log", 1), ("regress_log", 8)]


def _examples(log):
    return getattr(log, log.WhichOneof("log_type")).request.input.example_list.examples


def test_real_rows_come_from_the_exam(model, tmp_path):
    import tensorflow as tf

    from evergreen.components.pusher import warmup

    (tmp_path / "Split-exam").mkdir()
    with tf.io.TFRecordWriter(str(tmp_path / "Split-exam" / "data_tfrecord-00000-of-00001.gz"), "GZIP") as writer:
        for number in range(20):
            example = tf.train.Example()
            example.features.feature["distance"].float_list.value.append(number)
            example.features.feature["carrier"].bytes_list.value.append(b"EV")
            if number % 2:
                example.features.feature["hour"].int64_list.value.append(5)
            writer.write(example.SerializeToString())
    rows = warmup.rows_for("real", [], [str(tmp_path)])
    made = warmup.make(model, rows, "flights")
    logs = [log.predict_log.request for log in read(made)]
    raw = next(
        r for r in logs if r.model_spec.signature_name == "raw" and r.inputs["hour"].tensor_shape.dim[0].size == 8
    )
    assert set(tf.make_ndarray(raw.inputs["carrier"]).ravel()) == {b"EV"}
    assert tf.make_ndarray(raw.inputs["hour"]).tolist()[:2] == [-(2**63), 5], (
        "what is absent is said as predict_raw wants"
    )


def test_a_model_that_cannot_be_loaded_gets_none(tmp_path, schema_uri):
    (tmp_path / "saved_model.pb").write_bytes(b"no graph")
    made = make(tmp_path, schema_uri)
    assert made.content == b"" and "cannot be loaded" in made.warnings[0]


def test_a_file_that_came_with_the_model_is_left_alone(tmp_path, schema_uri):
    from evergreen.components.pusher import versions

    (tmp_path / versions.WARMUP_FILE).parent.mkdir()
    (tmp_path / versions.WARMUP_FILE).write_bytes(b"of the user's")
    made = make(tmp_path, schema_uri)
    assert (made.content, made.records, made.warnings) == (b"", 0, ())


@pytest.mark.parametrize(("setting", "expected"), [("schema", True), ("none", False), (None, True)])
def test_the_pusher_puts_them_into_the_version(model, schema_uri, tmp_path, setting, expected):
    import shutil

    from tfx.types import standard_artifacts

    from evergreen.components.pusher import catalog, executor, versions

    shutil.copytree(model, tmp_path / "model" / "Format-Serving")
    inputs = {}
    for key, kind, uri in (
        ("model", standard_artifacts.Model, tmp_path / "model"),
        ("schema", standard_artifacts.Schema, schema_uri),
    ):
        inputs[key] = kind()
        inputs[key].uri, inputs[key].id = str(uri), 1
    pushed = standard_artifacts.PushedModel()
    pushed.uri = str(tmp_path / "pushed")
    settings = {"base_path": str(tmp_path / "base"), **({"warmup": setting} if setting else {})}
    executor.Executor().Do(
        {key: [artifact] for key, artifact in inputs.items()},
        {"pushed_model": [pushed]},
        {"settings": json.dumps(settings), "span": 1, "name": "flights"},
    )
    record = catalog.list_versions(tmp_path / "base")[0]
    file = Path(record.path) / versions.WARMUP_FILE
    assert file.exists() is expected
    # What retention and rollback compare counts the requests too.
    assert catalog.live_manifest(tmp_path / "base").bytes == record.bytes
