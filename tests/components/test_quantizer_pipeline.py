"""The Quantizer in a pipeline: what it publishes to ML Metadata, and what a node behind gate 3 receives."""

import json
import os

import pytest
import quantizer_world
from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.dsl.components.common import importer
from tfx.dsl.experimental.conditionals.conditional import Cond
from tfx.orchestration import metadata
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.orchestration.pipeline import Pipeline
from tfx.types import standard_artifacts
from tfx.types.channel import Channel
from tfx.types.component_spec import ChannelParameter, ComponentSpec

from evergreen.components.quantizer.component import Quantizer

pytestmark = pytest.mark.tensorflow


class _Consumer(base_executor.BaseExecutor):
    """Writes down which variants a node behind gate 3 was handed."""

    def Do(self, input_dict, output_dict, exec_properties):
        names = [model.get_string_custom_property("quantization") for model in input_dict.get("models", [])]
        output_dict["pushed"][0].set_string_custom_property("received", json.dumps(names))


class _ConsumerSpec(ComponentSpec):
    PARAMETERS = {}
    INPUTS = {"models": ChannelParameter(type=standard_artifacts.Model, optional=True)}
    OUTPUTS = {"pushed": ChannelParameter(type=standard_artifacts.PushedModel)}


class _ConsumerNode(base_component.BaseComponent):
    SPEC_CLASS = _ConsumerSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(_Consumer)


@pytest.mark.parametrize(
    ("model", "settings", "made", "received"),
    [
        ("model", {}, {"float16", "dynamic_int8"}, ["float16", "dynamic_int8"]),
        ("model", {"variants": ["float16"]}, {"float16"}, ["float16"]),
        ("from_run_fn", {}, set(), []),
        ("sensitive", {"max_drop": {"auc": 0.005}, "required": ["dynamic_int8"]}, {"float16"}, None),
    ],
)
def test_a_node_behind_gate_3_receives_what_passed(build_once, tmp_path, model, settings, made, received):
    world = build_once("quantizer", quantizer_world.build)
    inputs = {
        "model": (model, standard_artifacts.Model, {}),
        "transform_graph": ("transform_graph", standard_artifacts.TransformGraph, {}),
        "examples": ("examples", standard_artifacts.Examples, {"span": 4}),
        "evaluation": ("evaluation", standard_artifacts.ModelEvaluation, {}),
    }
    importers = {
        name: importer.Importer(f"{world}/{folder}", kind, properties=properties).with_id(name)
        for name, (folder, kind, properties) in inputs.items()
    }
    quantizer = Quantizer(
        **{name: node.outputs["result"] for name, node in importers.items()},
        settings=json.dumps(settings),
        evaluate_settings=quantizer_world.EVALUATE,
    )
    with Cond(quantizer.outputs["report"].future()[0].custom_property("passed") == 1):
        node = _ConsumerNode(
            _ConsumerSpec(models=quantizer.outputs["models"], pushed=Channel(type=standard_artifacts.PushedModel))
        )
    connection = metadata.sqlite_metadata_connection_config(str(tmp_path / "metadata.db"))
    nodes = [*importers.values(), quantizer, node]
    # The second run takes the Quantizer's outputs, an empty list among them, from the cache.
    for _ in range(2):
        LocalDagRunner().run(Pipeline("quantization", str(tmp_path / "root"), connection, nodes, enable_cache=True))

    with metadata.Metadata(connection) as handle:
        models = handle.store.get_artifacts_by_type("Model")
        (report,) = handle.store.get_artifacts_by_type("QuantizationReport")
        executions = handle.store.get_executions_by_type(f"{Quantizer.__module__}.Quantizer")
        pushed = handle.store.get_artifacts_by_type("PushedModel") if received is not None else []
    states = {metadata_store_pb2.Execution.State.Name(execution.last_known_state) for execution in executions}
    assert states == {"COMPLETE", "CACHED"}
    assert report.properties["span"].int_value == 4
    assert report.custom_properties["passed"].int_value == (received is not None)
    assert {os.path.basename(one.uri) for one in models if "quantization" in one.custom_properties} == made
    expected = set() if received is None else {json.dumps(received)}
    assert {artifact.custom_properties["received"].string_value for artifact in pushed} == expected
