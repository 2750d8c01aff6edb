"""What the Quantizer hands on, in the hands of TFX's own components."""

import json
from pathlib import Path

import pytest
import quantizer_world
import tensorflow_model_analysis as tfma
from google.protobuf import text_format
from ml_metadata.proto import metadata_store_pb2
from tfx.components.evaluator.component import Evaluator
from tfx.components.infra_validator.component import InfraValidator
from tfx.components.pusher.component import Pusher
from tfx.dsl.components.common.importer import Importer
from tfx.dsl.experimental.conditionals.conditional import Cond
from tfx.orchestration import metadata
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import infra_validator_pb2, pusher_pb2
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from evergreen.components.quantizer.component import Quantizer

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]
SETTINGS = {"variants": ["int8"], "max_drop": {"auc": 0.02}}
EVAL_CONFIG = """
    model_specs { model_type: "tf_lite" label_key: "late" }
    slicing_specs {}
    metrics_specs {
      metrics {
        class_name: "AUC"
        threshold { value_threshold { lower_bound { value: 0.5 } } }
      }
    }
"""


@pytest.fixture(scope="module")
def ran(build_once, tmp_path_factory):
    """A pipeline of our Quantizer and TFX's Evaluator and Pusher behind it; its folder and its ML Metadata."""
    world, folder = build_once("quantizer", quantizer_world.build), tmp_path_factory.mktemp("stock")
    kinds = {
        "model": ("dense", standard_artifacts.Model, {}),
        "transform_graph": ("transform_graph", standard_artifacts.TransformGraph, {}),
        "examples": ("examples", standard_artifacts.Examples, {"span": 4, "split_names": '["exam", "train"]'}),
        "evaluation": ("dense_evaluation", standard_artifacts.ModelEvaluation, {}),
    }
    # TFMA's reader of TFLite models knows no missing values.
    complete = [row for row in quantizer_world.raw_rows() if len(row) == 3]
    quantizer_world.write_examples(f"{folder}/complete", complete)
    given = {
        name: Importer(f"{world}/{place}", kind, properties=properties).with_id(name)
        for name, (place, kind, properties) in kinds.items()
    }
    complete_rows = Importer(
        f"{folder}/complete", standard_artifacts.Examples, properties={"span": 4, "split_names": '["exam", "train"]'}
    ).with_id("complete_rows")
    quantizer = Quantizer(
        **{name: node.outputs["result"] for name, node in given.items()},
        settings=json.dumps(SETTINGS),
        evaluate_settings=quantizer_world.EVALUATE,
    )
    models = quantizer.outputs["models"]
    with Cond(quantizer.outputs["report"].future()[0].custom_property("passed") == 1):
        evaluator = Evaluator(
            examples=complete_rows.outputs["result"],
            model=models,
            eval_config=text_format.Parse(EVAL_CONFIG, tfma.EvalConfig()),
            example_splits=["exam"],
        )
        pusher = Pusher(
            model=models,
            model_blessing=evaluator.outputs["blessing"],
            push_destination=pusher_pb2.PushDestination(
                filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=f"{folder}/pushed")
            ),
        )
    connection = metadata.sqlite_metadata_connection_config(f"{folder}/metadata.db")
    nodes = [*given.values(), complete_rows, quantizer, evaluator, pusher]
    runner = "--runner=apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"
    LocalDagRunner().run(Pipeline("stock", f"{folder}/root", connection, nodes, beam_pipeline_args=[runner]))
    return folder, connection


def artifacts(connection, kind):
    with metadata.Metadata(connection) as handle:
        return handle.store.get_artifacts_by_type(kind)


def test_the_stock_evaluator_measures_the_same_and_blesses(ran):
    _, connection = ran
    (blessing,) = artifacts(connection, "ModelBlessing")
    assert blessing.custom_properties["blessed"].int_value == 1
    by_place = {Path(one.uri).parent.parent.name: one.uri for one in artifacts(connection, "ModelEvaluation")}
    ((_, metrics),) = tfma.load_eval_result(by_place["Evaluator"]).slicing_metrics
    (variant,) = [one for one in artifacts(connection, "Model") if "quantization" in one.custom_properties]
    ours = json.loads(variant.custom_properties["metrics"].string_value)["auc"]
    # A tenth of our rows lacks a feature, and its area is that of 10,000 thresholds.
    assert metrics[""][""]["auc"]["doubleValue"] == pytest.approx(ours, abs=0.03)


def test_the_stock_pusher_publishes_what_tensorflow_serving_and_a_phone_read(ran):
    folder, connection = ran
    (pushed,) = artifacts(connection, "PushedModel")
    assert pushed.custom_properties["pushed"].int_value == 1
    (version,) = Path(folder, "pushed").iterdir()
    assert {path.name for path in version.iterdir()} == {"model.tflite", "tflite"}
    assert (version / "model.tflite").read_bytes()[4:8] == b"TFL3"


def test_the_stock_infra_validator_takes_the_model_and_finds_it(ran):
    _, connection = ran
    (variant,) = [one for one in artifacts(connection, "Model") if "quantization" in one.custom_properties]
    assert variant.state == metadata_store_pb2.Artifact.LIVE
    node = InfraValidator(
        model=Importer(variant.uri, standard_artifacts.Model).outputs["result"],
        serving_spec=infra_validator_pb2.ServingSpec(
            tensorflow_serving=infra_validator_pb2.TensorFlowServing(tags=["latest"]),
            local_docker=infra_validator_pb2.LocalDockerConfig(),
        ),
    )
    assert "model" in node.inputs
    assert Path(path_utils.serving_model_path(variant.uri), "model.tflite").is_file()
