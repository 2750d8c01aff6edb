"""The component: its artifacts in and out, and training in a child process where this one cannot."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import trainer_world
from tfx.components.transform.component import Transform
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, channel_utils, standard_artifacts

from evergreen.components import model_layout
from evergreen.components.errors import ConfigError, ModelRejected
from evergreen.components.trainer import child, devices
from evergreen.components.trainer.component import Trainer
from evergreen.components.trainer.executor import Executor
from evergreen.components.trainer.request import from_artifacts
from evergreen.components.trainer.settings import TrainerSettings

pytestmark = pytest.mark.tensorflow


def artifact(kind, uri, **properties):
    made = kind()
    made.uri = str(uri)
    for name, value in properties.items():
        setattr(made, name, value)
    return made


@pytest.fixture
def execution(world, tmp_path):
    """Inputs, outputs and parameters as TFX hands them to an executor, newest span first."""
    splits = artifact_utils.encode_split_names(list(trainer_world.ROWS))
    inputs = {
        "examples": [
            artifact(standard_artifacts.Examples, world / "spans" / str(span), span=span, version=2, split_names=splits)
            for span in reversed(trainer_world.SPANS)
        ],
        "transform_graph": [artifact(standard_artifacts.TransformGraph, world / "transform_graph")],
        "schema": [artifact(standard_artifacts.Schema, world / "schema")],
        "base_model": [],
    }
    outputs = {
        "model": [artifact(standard_artifacts.Model, tmp_path / "model")],
        "model_run": [artifact(standard_artifacts.ModelRun, tmp_path / "run")],
    }
    for made in (*outputs["model"], *outputs["model_run"]):
        fileio.makedirs(made.uri)
    parameters = {
        "settings": json.dumps({"model": "tiny_model:build_model", "steps": 5, "seed": 3, "warm_start": {}}),
        "label": "late",
        "newest_span": 3,
        "project_dir": str(world / "project"),
        "fingerprint": "x",
    }
    return inputs, outputs, parameters


def test_an_execution_records_what_later_stages_ask_for(world, execution, tmp_path):
    inputs, outputs, parameters = execution
    Executor().Do(inputs, outputs, parameters)
    (model,), (run,) = outputs["model"], outputs["model_run"]
    ints = {name: model.get_int_custom_property(name) for name in ("span", "seed", "steps", "warm_start", "warm_runs")}
    assert ints == {"span": 3, "seed": 3, "steps": 5, "warm_start": 0, "warm_runs": 0}
    short = json.loads(run.get_string_custom_property("report"))
    assert short["steps"] == 5 and short["final"]["val_auc"] >= 0 and "curve" not in short
    assert len(json.dumps(short)) < 4000
    assert sorted(os.listdir(model.uri)) == ["Core", "Format-Serving", "warm_start"]

    again = {**inputs, "base_model": [model]}
    second = artifact(standard_artifacts.Model, tmp_path / "second")
    Executor().Do(again, {"model": [second], "model_run": outputs["model_run"]}, parameters)
    assert second.get_int_custom_property("warm_start") == second.get_int_custom_property("warm_runs") == 1
    third = from_artifacts({**inputs, "base_model": [second]}, outputs, parameters)
    assert third.base_model.warm_runs == 1


def test_materialized_artifacts_are_paired_in_transforms_order(execution, tmp_path):
    inputs, outputs, parameters = execution
    splits = artifact_utils.encode_split_names(["train"])
    shuffled = [artifact(standard_artifacts.Examples, tmp_path / str(n), split_names=splits) for n in (2, 0, 1)]
    request = from_artifacts({**inputs, "transformed_examples": shuffled}, outputs, parameters)
    assert [(os.path.basename(one.uri), one.span, one.version) for one in request.transformed_examples] == [
        ("0", 3, 2),
        ("1", 2, 2),
        ("2", 1, 2),
    ]


def test_too_few_devices_in_this_process_train_in_a_child(execution, monkeypatch):
    inputs, outputs, parameters = execution
    parameters["settings"] = json.dumps({"model": "m:f", "strategy": "mirrored", "devices": 64})
    asked = []
    monkeypatch.setattr(child, "train", lambda request: asked.append(request) or {"steps": 1, **_START})
    assert not devices.enough(TrainerSettings.from_json(parameters["settings"]))
    Executor().Do(inputs, outputs, parameters)
    assert asked[0].settings.devices == 64


_START = {"warm_start": {"warm": False, "reason": "", "warm_runs": 0}}


def test_a_refusal_in_the_child_is_the_same_here(world, tmp_path):
    project = trainer_world.write_project(
        tmp_path / "project",
        nan_model="""
            import tf_keras
            def f(t, h):
                print("a user may print")
                size = tf_keras.Input((1,), name="size")
                model = tf_keras.Model({"size": size}, tf_keras.layers.Dense(1, activation=lambda x: x * 1e30)(size))
                model.compile("sgd", "mse")
                return model
        """,
    )
    with pytest.raises(ModelRejected, match="by step 1; the learning rate is") as error:
        child.train(trainer_world.request(world, tmp_path, {"model": "nan_model:f"}, project_dir=str(project)))
    assert error.value.headline == "training gave NaN" and error.value.exit_status == 4
    assert not model_layout.is_saved_model(model_layout.serving_dir(str(tmp_path / "model")))


def test_a_child_dies_with_its_parent(world, tmp_path):
    request = trainer_world.request(world, tmp_path, {"steps": 10_000_000})
    parent = trainer_world.start_parent(request, tmp_path)
    try:
        line = next(line for line in parent.stdout if line.startswith("step"))
        children = _children(parent.pid)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert "/10000000, loss" in line and len(children) == 1
    deadline = time.monotonic() + 20
    while any(_alive(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(_alive(pid) for pid in children)


def _children(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(text) for text in file.read().split()]


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_component_can_leave_out_what_is_optional():
    channels = {
        "examples": channel_utils.as_channel([standard_artifacts.Examples()]),
        "transform_graph": channel_utils.as_channel([standard_artifacts.TransformGraph()]),
    }
    component = Trainer(**channels, settings="{}", label="late", newest_span=1, project_dir="/p")
    assert set(component.outputs) == {"model", "model_run"}
    assert set(component.inputs) == {"examples", "transform_graph"}


def channel(kind):
    return channel_utils.as_channel([kind()])


def component(**parameters):
    """The component as a user outside of Evergreen builds it; returns its parameters."""
    parameters = {"examples": channel(standard_artifacts.Examples), "label": "late", **parameters}
    return Trainer(transform_graph=channel(standard_artifacts.TransformGraph), **parameters).exec_properties


def test_settings_may_be_a_dict_and_are_checked_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(trainer_world.write_project(tmp_path))
    settings = {"model": "tiny_model:build_model", "devices": 2, "strategy": "mirrored"}
    made = component(settings=settings)
    assert TrainerSettings.from_json(made["settings"]) == TrainerSettings.from_dict(settings)
    assert made["project_dir"] == str(tmp_path) and made["newest_span"] is None
    with pytest.raises(ConfigError, match=r"trainer\.step is wrong"):
        component(settings={**settings, "step": 3})
    with pytest.raises(ConfigError, match="neither `examples` nor `transformed_examples`"):
        component(settings=settings, examples=None)
    component(settings=settings, examples=None, transformed_examples=channel(standard_artifacts.Examples))


def test_what_transform_materialized_is_taken_for_that():
    examples, graph = channel(standard_artifacts.Examples), channel(standard_artifacts.TransformGraph)
    transform = Transform(examples, channel(standard_artifacts.Schema), preprocessing_fn="features.preprocessing_fn")
    made = Trainer(
        examples=transform.outputs["transformed_examples"], transform_graph=graph, settings="{}", label="late"
    )
    assert set(made.inputs) == {"transformed_examples", "transform_graph"}


def test_a_change_of_the_users_module_changes_the_cache_key(tmp_path):
    settings = {"model": "tiny_model:build_model"}
    trainer_world.write_project(tmp_path)
    first = component(settings=settings, project_dir=tmp_path)
    assert component(settings=json.dumps(settings), project_dir=str(tmp_path)) == first
    (tmp_path / "tiny_model.py").write_text(trainer_world.MODEL.replace("0.01", "0.02"))
    assert component(settings=settings, project_dir=tmp_path)["fingerprint"] != first["fingerprint"]
    assert component(settings=settings, project_dir=tmp_path, fingerprint="x")["fingerprint"] == "x"


def test_the_newest_span_is_found_where_nobody_names_it(execution):
    inputs, outputs, parameters = execution
    del parameters["newest_span"]
    assert from_artifacts(inputs, outputs, parameters).newest_span == 3


def test_materialized_artifacts_alone_are_the_window(execution, tmp_path):
    inputs, outputs, parameters = execution
    del parameters["newest_span"], inputs["examples"]
    splits = artifact_utils.encode_split_names(["train", "eval"])
    kept = artifact(standard_artifacts.Examples, tmp_path / "0", split_names=splits)
    request = from_artifacts({**inputs, "transformed_examples": [kept]}, outputs, parameters)
    assert [one.uri for one in request.window] == [str(tmp_path / "0")]
    assert (request.examples, request.newest_span) == ((), 0)


def test_rows_that_are_no_tf_examples_are_refused(execution):
    inputs, outputs, parameters = execution
    inputs["examples"][0].set_string_custom_property("payload_format", "FORMAT_PARQUET")
    with pytest.raises(ConfigError, match="payload_format FORMAT_PARQUET, expected FORMAT_TF_EXAMPLE"):
        from_artifacts(inputs, outputs, parameters)


def test_building_a_pipeline_loads_no_training_code():
    """The import of the component is part of the start of every command that builds a pipeline."""
    program = """
        import sys
        import evergreen.components.trainer.component
        print(*(name.rpartition(".")[2] for name in sys.modules if name.startswith("evergreen.components.trainer.")))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=300)
    light = "child cluster component devices executor network parent report request settings watchdog"
    assert sorted(done.stdout.split()) == light.split()
