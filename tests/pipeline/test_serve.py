"""Which flags `evergreen serve` gives to a server, and the request that it shows."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from project_world import YAML

from evergreen.components.model_server import messages
from evergreen.pipeline import config as configuration
from evergreen.pipeline import serve

SCHEMA = """
feature { name: "carrier" type: BYTES domain: "carriers" }
feature { name: "plane" type: BYTES string_domain { value: "it's" } }
feature { name: "distance" type: INT int_domain { min: 17 max: 5000 } }
feature { name: "wind" type: FLOAT float_domain { min: 1.5 } }
feature { name: "pixels" type: FLOAT }
string_domain { name: "carriers" value: "AA" value: "UA" }
"""


@pytest.fixture
def project(tmp_path) -> configuration.Config:
    folder = tmp_path / "above" / "project"
    folder.mkdir(parents=True)
    (folder / "evergreen.yaml").write_text(YAML.replace("serving/flights", 'serving/flights, server: "127.0.0.1:8500"'))
    (folder / "schema.pbtxt").write_text(SCHEMA)
    return configuration.load(folder / "evergreen.yaml")


def base(project) -> Path:
    return Path(project.publish.base_path)


def given(plan: serve.Serving) -> dict[str, str]:
    return serve.given_flags(plan.flags)


def write_config(project, name: str, text: str = "") -> Path:
    folder = project.project_dir.parent / "serving_config"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def test_by_default_the_projects_model_on_the_usual_ports(project):
    plan = serve.serving(project, [])
    assert given(plan) == {
        "port": "8500",
        "rest_api_port": "8501",
        "model_name": "flights",
        "model_base_path": str(base(project)),
    }
    assert (plan.grpc, plan.rest, plan.notes) == ("127.0.0.1:8500", "127.0.0.1:8501", [])


def test_flags_given_win_and_are_passed_on_as_they_are(project):
    arguments = ["--rest_api_port", "9001", "--enable_batching=false", "--port=0"]
    plan = serve.serving(project, arguments)
    assert plan.flags[-4:] == arguments
    assert [flag for flag in plan.flags if "port" in flag] == ["--rest_api_port", "--port=0"]
    assert (plan.grpc, plan.rest) == (None, "127.0.0.1:9001")


def test_with_a_model_named_the_project_is_not_asked():
    arguments = ["--model_name=m", "--model_base_path=/m"]
    assert serve.names_model(arguments)
    assert given(serve.serving(None, arguments)) == {
        "port": "8500",
        "rest_api_port": "8501",
        "model_name": "m",
        "model_base_path": "/m",
    }


def test_tflite_has_a_base_path_of_its_own(project):
    plan = serve.serving(project, ["--prefer_tflite_model"])
    assert given(plan)["model_base_path"] == f"{base(project)}_lite"
    for word in ("false", "False", "0"):
        plan = serve.serving(project, [f"--prefer_tflite_model={word}"])
        assert given(plan)["model_base_path"] == str(base(project))


def test_serving_config_of_the_nearest_folder_is_used(project):
    batching, monitoring = (write_config(project, name) for name in (serve.BATCHING, serve.MONITORING))
    found = given(serve.serving(project, []))
    assert (found["enable_batching"], found["batching_parameters_file"]) == ("true", str(batching))
    assert found["monitoring_config_file"] == str(monitoring)
    without = given(serve.serving(project, ["--enable_batching=false"]))
    assert "batching_parameters_file" not in without


def test_a_models_config_for_this_base_path_is_used_with_its_labels(project):
    text = 'model_config_list {{ config {{ name: "flights" model_platform: "tensorflow" base_path: "{}" }} }}'
    file = write_config(project, serve.MODELS, text.format(base(project)))
    found = given(serve.serving(project, []))
    assert found["model_config_file"] == str(file)
    assert "model_base_path" not in found
    assert found["allow_version_labels_for_unavailable_models"] == "true"
    file.write_text(text.format("/models/flights"))
    plan = serve.serving(project, [])
    assert given(plan)["model_base_path"] == str(base(project))
    assert not plan.notes, "the file is for another machine"
    named = configuration.load(project.file, [f"publish.models_config={file}"])
    (note,) = serve.serving(named, []).notes
    assert "/models/flights" in note and str(base(project)) in note


def test_the_request_has_a_plausible_value_for_each_feature_and_survives_a_shell(project):
    version = base(project) / "7"
    version.mkdir(parents=True)
    saved = messages.SavedModel()
    inputs = saved.meta_graphs.add().signature_def["predict_raw"].inputs
    kinds = {"carrier": (7, 1), "plane": (7, 1), "distance": (9, 1), "wind": (1, 1), "pixels": (1, 3)}
    for name, (number, width) in kinds.items():
        inputs[name].dtype = number
        for size in (-1, width):
            inputs[name].tensor_shape.dim.add(size=size)
    (version / "saved_model.pb").write_bytes(saved.SerializeToString())
    body = serve.request_body(project)
    row = {"carrier": ["AA"], "plane": ["it's"], "distance": [17], "wind": [1.5], "pixels": [0.0, 0.0, 0.0]}
    assert body == {"signature_name": "predict_raw", "instances": [row]}
    words = shlex.split(serve.curl("flights", "127.0.0.1:8501", body))
    assert json.loads(words[2]) == body
    assert words[3] == "http://127.0.0.1:8501/v1/models/flights:predict"


def test_before_the_first_version_the_status_is_asked(project):
    assert serve.request_body(project) is None
    assert serve.curl("flights", "h:1", None) == "curl http://h:1/v1/models/flights"
