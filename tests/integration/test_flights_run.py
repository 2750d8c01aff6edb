"""One project's life: three months of flights, a first version, the next month, a fresher version.

The two retrainings are made once for the file; each test looks at one thing that a user would see.
"""

from __future__ import annotations

import gzip
import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.tensorflow


def test_two_versions_are_published_and_the_newer_is_live(lived):
    newer, older = lived.versions()
    assert newer["version"] > older["version"]
    assert (newer["live"], older["live"]) == (True, False)
    assert (older["span"], newer["span"]) == (3, 4)
    assert older["champion_on_span"] is None
    assert 0.3 < newer["champion_on_span"]["auc"] < 1
    assert 0.3 < newer["metrics"]["auc"] < 1
    assert newer["tflite_bytes"] < newer["bytes"]


def test_each_stage_goes_by_with_what_it_found(lived):
    first = (lived.folder.parent / "first.txt").read_text()
    for stage in ("SpanExampleGen.1", "SpanExampleGen", "SpanValidator", "Transform", "Trainer", "Evaluator", "Pusher"):
        assert f"done    {stage} " in first, stage
    assert "no champion yet" in first
    second = (lived.folder.parent / "second.txt").read_text()
    assert "SpanExampleGen.1" not in second, "a decided span is not read again"
    assert "champion on the new span before training" in second


def test_the_profile_says_where_the_time_went_and_leaves_a_trace(lived):
    lines = (lived.folder.parent / "second.txt").read_text().splitlines()
    start = lines.index("where the time went, in seconds")
    heading, *rows = ([cell.strip() for cell in re.split(r"  +", line.strip())] for line in lines[start + 1 :])
    assert heading[:2] == ["stage", "wall"]
    # Nothing is left to import: the first run was in this process.
    assert {"Beam graph", "TF graph", "work", "I/O", "children"} <= set(heading)
    values = {row[0]: [0.0 if cell == "-" else float(cell) for cell in row[1:]] for row in rows[1:] if len(row) > 2}
    for stage, (wall, *parts, _) in values.items():
        assert sum(parts) == pytest.approx(wall, abs=0.05 * (len(parts) + 1)), stage
    assert values["total"][0] == pytest.approx(sum(v[0] for name, v in values.items() if name != "total"), abs=1)
    of = {stage: dict(zip(heading[1:], row, strict=True)) for stage, row in values.items()}
    assert min(of["Transform"]["Beam graph"], of["Transform"]["TF graph"], of["Trainer"]["TF graph"]) > 0.2
    assert of["Quantizer"]["children"] > 0.2
    [line] = [line for line in lines if line.startswith("trace: ")]
    trace = Path(line.removeprefix("trace: ").partition(" (")[0])
    assert trace.parent == lived.workspace / "logs" / lived.runs()[0]["id"]
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    assert {"Transform", "Trainer", "Pusher"} < {event["name"] for event in events if event["ph"] == "X"}


def test_the_terminal_is_free_of_chatter(lived):
    text = (lived.folder.parent / "first.txt").read_text()
    for word in ("WARNING", "tensorflow/core", "apache_beam", "Traceback", "absl"):
        assert word not in text


def test_nothing_new_says_so_and_costs_little_more_than_to_import_what_reads_yaml_and_ml_metadata(lived):
    command = [str(Path(sys.executable).with_name("evergreen")), "run", "-c", str(lived.config_file)]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 0
    assert "nothing to do" in answer.stdout
    libraries = [sys.executable, "-c", "import click, filelock, ml_metadata, numpy, pydantic, yaml"]
    # A second and two thirds; TensorFlow and TFX alone would be ten times the libraries.
    assert min(_processor_seconds(command) for _ in range(3)) < 3 * min(_processor_seconds(libraries) for _ in range(3))


def _processor_seconds(command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_the_versions_hold_what_a_server_needs_and_where_they_come_from(lived):
    newer = lived.versions()[0]
    folder = Path(newer["path"])
    assert (folder / "saved_model.pb").stat().st_size > 0
    assert (folder / "variables" / "variables.index").exists()
    lite = lived.base_path.with_name("serving_lite") / str(newer["version"]) / "model.tflite"
    assert lite.read_bytes()[4:8] == b"TFL3"
    manifest = json.loads((folder / "assets.extra" / "evergreen.json").read_text())
    assert manifest["run"] == lived.runs()[0]["id"]
    assert manifest["span"] == 4


def test_a_version_brings_warm_up_requests_for_every_signature(lived):
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    file = Path(lived.versions()[0]["path"]) / "assets.extra" / "tf_serving_warmup_requests"
    records = tf.data.TFRecordDataset(str(file)).as_numpy_iterator()
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
    asked = [log.predict_log.request.model_spec.signature_name for log in logs]
    assert asked == [name for name in ("predict_raw", "serving_default", "transform_features") for _ in range(2)]


def test_the_live_version_answers_raw_rows_and_serialized_examples_alike(lived):
    import numpy as np
    import pyarrow.parquet as pq
    import tensorflow as tf

    served = tf.saved_model.load(lived.versions()[0]["path"])
    rows = pq.read_table(lived.spans / "4" / "flights.parquet").slice(0, 50).to_pylist()
    signature = served.signatures["predict_raw"].structured_input_signature[1]
    assert "late" not in signature
    columns, examples = {}, []
    for name, spec in signature.items():
        missing = {tf.string: "", tf.float32: float("nan")}.get(spec.dtype, -1)
        values = [missing if row[name] is None else row[name] for row in rows]
        columns[name] = tf.constant([[v] for v in values], spec.dtype)
    for row in rows:
        example = tf.train.Example()
        for name, spec in signature.items():
            if row[name] is None:
                continue
            feature = example.features.feature[name]
            if spec.dtype == tf.string:
                feature.bytes_list.value.append(row[name].encode())
            elif spec.dtype == tf.float32:
                feature.float_list.value.append(row[name])
            else:
                feature.int64_list.value.append(row[name])
        examples.append(example.SerializeToString())
    raw = served.signatures["predict_raw"](**columns)["predictions"]
    serialized = served.signatures["serving_default"](examples=tf.constant(examples))["predictions"]
    assert raw.shape == (50, 1)
    np.testing.assert_allclose(raw, serialized, atol=1e-6)
    assert np.ptp(raw) > 0


def test_the_tflite_version_answers_five_thousand_raw_rows_like_the_server(lived):
    import numpy as np
    import pyarrow.parquet as pq
    import tensorflow as tf

    from evergreen.components.quantizer import lite_file
    from evergreen.components.quantizer.interpreter import LiteModel
    from evergreen.components.span_records import property_value
    from evergreen.pipeline.config import load
    from evergreen.pipeline.store import Store

    version = lived.versions()[0]
    folder = lived.base_path.with_name("serving_lite") / str(version["version"])
    about = lite_file.metadata((folder / "model.tflite").read_bytes())
    assert (about["inputs"], about["name"], about["version"]) == ("raw", "flights", version["version"])
    assert about["features"]["carrier"]["missing"] == ""

    served = tf.saved_model.load(version["path"]).signatures["predict_raw"]
    signature = served.structured_input_signature[1]
    assert set(about["features"]) == set(signature)
    table = pq.read_table(lived.spans / "4" / "flights.parquet").to_pylist()
    random = np.random.default_rng(0)
    columns = {}
    for name, spec in signature.items():
        missing = {tf.string: b"", tf.float32: float("nan"), tf.int64: -(2**63)}[spec.dtype]
        values = [missing if row[name] is None else row[name] for row in table]
        values = [values[index] for index in random.integers(len(values), size=5000)]
        # A twentieth is missing, and as many tokens are in no vocabulary.
        chance = random.random(5000)
        unknown = "never seen" if spec.dtype == tf.string else missing
        values = [missing if c < 0.05 else unknown if c > 0.95 else v for c, v in zip(chance, values, strict=True)]
        columns[name] = np.array(values, np.bytes_ if spec.dtype == tf.string else spec.dtype.as_numpy_dtype)[:, None]
    expected = served(**{name: tf.constant(column) for name, column in columns.items()})["predictions"].numpy()
    assert np.ptp(expected) > 0.01

    config = load(lived.config_file)
    models = Store(config.connection, config.name).mlmd.get_artifacts_by_type("Model")
    newest = {property_value(model, "quantization"): model.uri for model in sorted(models, key=lambda one: one.id)}
    for variant, bound in (("float32", 1e-5), ("float16", 2e-3), ("dynamic_int8", 0.02), ("int8", 0.05)):
        model = LiteModel(f"{newest[variant]}/Format-Serving/model.tflite")
        assert np.abs(model.predict(columns) - expected).max() < bound, variant


def test_the_variants_are_small_and_answer_well(lived):
    from evergreen.pipeline.config import load
    from evergreen.pipeline.store import Store

    config = load(lived.config_file)
    reports = Store(config.connection, config.name).mlmd.get_artifacts_by_type("QuantizationReport")
    newest = max(reports, key=lambda one: one.id)
    report = json.loads(Path(newest.uri, "report.json").read_text())
    assert report["inputs"] == "raw"
    rows = {row["variant"]: row for row in report["variants"]}
    weights = {variant: row["parts"]["weights"] for variant, row in rows.items()}
    assert weights["float16"] / weights["float32"] == pytest.approx(0.5, abs=0.005)
    assert weights["int8"] / weights["float32"] <= 0.26
    # Beside the weights, vocabularies and structure: half a million parameters would make them lighter still.
    assert rows["float16"]["ratio"] <= 0.56
    assert max(rows["dynamic_int8"]["ratio"], rows["int8"]["ratio"]) <= 0.35
    assert rows["float32"]["largest_difference"] < 1e-5
    assert rows["float16"]["loss"]["auc"] <= 0.002
    assert rows["int8"]["loss"]["auc"] <= 0.005
    assert rows["int8"]["float_operators"] == []


def test_runs_tell_span_result_and_stages(lived):
    newer, older = lived.runs()
    assert (older["result"], newer["result"]) == ("published", "published")
    assert (older["span"], newer["span"]) == (3, 4)
    assert newer["pushed_version"] == lived.versions()[0]["version"]
    nodes = [stage["node"] for stage in newer["stages"]]
    assert nodes.index("SpanValidator") < nodes.index("Transform") < nodes.index("Trainer") < nodes.index("Pusher")


def test_ml_metadata_holds_the_names_that_others_rely_on(lived):
    from evergreen.components.span_records import property_value
    from evergreen.pipeline.config import load
    from evergreen.pipeline.store import Store

    config = load(lived.config_file)
    store = Store(config.connection, config.name).mlmd
    pushed = store.get_artifacts_by_type("PushedModel")
    assert sorted(int(property_value(p, "pushed_version")) for p in pushed) == sorted(
        v["version"] for v in lived.versions()
    )
    assert {property_value(p, "span") for p in pushed} == {3, 4}
    assert all(property_value(p, "pushed_destination") for p in pushed)
    quantized = [a for a in store.get_artifacts_by_type("Model") if property_value(a, "quantization")]
    assert {property_value(a, "quantization") for a in quantized} == {
        *("float32", "float16", "dynamic_int8", "int8"),
    }
    assert store.get_artifacts_by_type("QuantizationReport")
    context = store.get_context_by_type_and_name("pipeline_run", lived.runs()[0]["id"])
    for name in ("trigger", "span", "attempt", "result", "code_version"):
        assert name in context.custom_properties, name


def test_the_second_run_trains_on_the_last_three_spans_and_carries_the_analyzer_cache(lived):
    from evergreen.components import span_records
    from evergreen.pipeline.config import load
    from evergreen.pipeline.store import Store

    config = load(lived.config_file)
    store = Store(config.connection, config.name)
    run = lived.runs()[0]
    execution = next(stage["execution"] for stage in run["stages"] if stage["node"] == "Transform")
    events = store.mlmd.get_events_by_execution_ids([execution])
    read = store.mlmd.get_artifacts_by_id([e.artifact_id for e in events if e.type == 3])
    types = {t.id: t.name for t in store.mlmd.get_artifact_types()}
    spans = sorted(span_records.property_value(a, "span") for a in read if types[a.type_id] == "Examples")
    assert spans == [2, 3, 4]
    assert any(types[a.type_id] == "TransformCache" for a in read)


def test_status_says_what_is_live(lived):
    status = lived.evergreen("status", "--json").json
    assert status["live"]["version"] == lived.versions()[0]["version"]
    assert status["running"] is None
    assert "nothing to do" in status["next"]


def test_a_named_span_that_does_not_exist_or_is_not_complete_exits_2(lived):
    answer = lived.evergreen("run", "--span", "9")
    assert answer.status == 2
    assert "9" in answer.text


def test_a_second_run_at_once_is_refused_with_5(lived):
    import filelock

    with filelock.FileLock(str(lived.workspace / "run.lock")):
        answer = lived.evergreen("run")
    assert answer.status == 5
    assert "another run" in answer.text


def test_the_logs_of_a_stage_can_be_read(lived):
    run = lived.runs()[0]["id"]
    assert "Trainer" in lived.evergreen("logs", run).text
    assert lived.evergreen("logs", run, "Trainer").status == 0
