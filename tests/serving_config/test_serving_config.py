"""What TensorFlow Serving, Prometheus, Compose and Kubernetes read: each file parses, and they agree."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from evergreen.components.pusher import labels
from evergreen.pipeline import config as configuration
from evergreen.pipeline import serve
from evergreen.serving import batching_config, flags, model_config, monitoring_config

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "serving_config"
MANIFESTS = sorted((CONFIG / "kubernetes").glob("*.yaml"))


@pytest.fixture(scope="module")
def project() -> configuration.Config:
    return configuration.load(ROOT / "examples" / "flights" / "evergreen.yaml")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((CONFIG / "compose.yaml").read_text())


def manifests() -> dict[str, dict[str, Any]]:
    """The Kubernetes objects by kind."""
    found = [one for path in MANIFESTS for one in yaml.safe_load_all(path.read_text())]
    return {one["kind"]: one for one in found}


def container() -> dict[str, Any]:
    (only,) = manifests()["Deployment"]["spec"]["template"]["spec"]["containers"]
    return only


def models() -> Any:
    return model_config.parse((CONFIG / "models.config").read_text(), "models.config").model_config_list.config


def test_the_models_are_the_examples_with_room_for_a_canary_and_for_a_way_back(project):
    (model,) = models()
    assert model.name == project.name
    assert model.base_path == f"/models/{Path(project.publish.base_path).name}"
    assert model.model_platform == "tensorflow"
    # Two labels name two versions, and retention keeps one more than is loaded.
    assert 2 <= model.model_version_policy.latest.num_versions < project.publish.keep
    assert not model.version_labels, "no version has this number on the first day"


def test_publishing_can_write_labels_into_the_file():
    text = (CONFIG / "models.config").read_text()
    edited = labels.edited(text, "flights", {"stable": 5, "canary": 7}, "models.config")
    (model,) = model_config.parse(edited, "models.config").model_config_list.config
    assert dict(model.version_labels) == {"stable": 5, "canary": 7}
    assert edited.count("#") == text.count("#"), "the comments stay"


def test_the_batching_parameters_are_consistent():
    found = batching_config.parse((CONFIG / "batching.config").read_text(), "batching.config")
    assert found.max_batch_size > 1
    assert found.batch_timeout_micros >= 0 and found.max_enqueued_batches > 0


def test_prometheus_reads_the_metrics_where_they_are(compose):
    path = monitoring_config.parse((CONFIG / "monitoring.config").read_text(), "monitoring.config").path
    scraped = yaml.safe_load((CONFIG / "prometheus.yml").read_text())
    (job,) = scraped["scrape_configs"]
    assert job["metrics_path"] == path
    assert job["static_configs"] == [{"targets": [f"serving:{serve.REST_PORT}"]}]
    assert "serving" in compose["services"]
    mounts = [volume.split(":")[0] for volume in compose["services"]["prometheus"]["volumes"]]
    assert all((CONFIG / mount).exists() for mount in mounts)
    annotations = manifests()["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/path"] == path
    assert annotations["prometheus.io/port"] == str(serve.REST_PORT)
    assert path in (CONFIG / "README.md").read_text()


def test_compose_and_kubernetes_start_the_server_alike_with_flags_that_exist_and_files_that_are_there(compose):
    command = compose["services"]["serving"]["command"]
    assert command == container()["args"]
    flags.parse(command)
    named = [value for value in serve.given_flags(command).values() if value.startswith("/")]
    assert len(named) == 3
    for path in named:
        assert (CONFIG / Path(path).relative_to("/serving_config")).is_file()
    assert "allow_version_labels_for_unavailable_models" in serve.given_flags(command)


def test_both_mount_the_base_path_for_reading_only(compose):
    volumes = [volume.rpartition(":")[0::2] for volume in compose["services"]["serving"]["volumes"]]
    mounted = [(place.rpartition(":")[2], mode) for place, mode in volumes]
    assert mounted == [("/models", "ro"), ("/serving_config", "ro")]
    assert {one["mountPath"]: one["readOnly"] for one in container()["volumeMounts"]} == {
        "/models": True,
        "/serving_config": True,
    }


def test_the_ports_are_the_command_lines_own(compose):
    ports = [port.split(":") for port in compose["services"]["serving"]["ports"]]
    assert [port[1:] for port in ports] == [[str(port)] * 2 for port in (serve.GRPC_PORT, serve.REST_PORT)]
    assert all(port[0] == "127.0.0.1" for port in ports), "nobody else is let in by copying a file"
    assert {one["name"]: one["containerPort"] for one in container()["ports"]} == {
        "grpc": serve.GRPC_PORT,
        "rest": serve.REST_PORT,
    }
    service = manifests()["Service"]["spec"]["ports"]
    assert {one["targetPort"]: one["port"] for one in service} == {"grpc": serve.GRPC_PORT, "rest": serve.REST_PORT}


def test_the_kubernetes_objects_name_each_other():
    found = manifests()
    deployment, autoscaler = found["Deployment"], found["HorizontalPodAutoscaler"]["spec"]
    template = deployment["spec"]["template"]
    assert deployment["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
    assert found["Service"]["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    target = autoscaler["scaleTargetRef"]
    assert (target["apiVersion"], target["kind"], target["name"]) == (
        deployment["apiVersion"],
        "Deployment",
        deployment["metadata"]["name"],
    )
    assert "replicas" not in deployment["spec"], "it would fight with the autoscaler"
    assert autoscaler["metrics"][0]["resource"]["name"] in container()["resources"]["requests"]
    volumes = {one["name"]: one for one in template["spec"]["volumes"]}
    assert {one["name"] for one in container()["volumeMounts"]} == set(volumes)
    assert volumes["models"]["persistentVolumeClaim"]["claimName"] == found["PersistentVolumeClaim"]["metadata"]["name"]
    kustomization = yaml.safe_load((CONFIG / "kustomization.yaml").read_text())
    assert sorted(kustomization["resources"]) == [f"kubernetes/{path.name}" for path in MANIFESTS]
    (generated,) = kustomization["configMapGenerator"]
    assert generated["name"] == volumes["serving-config"]["configMap"]["name"]
    assert set(generated["files"]) == {serve.MODELS, serve.BATCHING, serve.MONITORING}


def test_pods_are_ready_when_the_model_is():
    (model,) = models()
    for probe in ("startupProbe", "readinessProbe"):
        assert container()[probe]["httpGet"] == {"path": f"/v1/models/{model.name}", "port": "rest"}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kubectl_puts_them_together():
    done = subprocess.run(["kubectl", "kustomize", str(CONFIG)], capture_output=True, text=True, check=True)
    objects = list(yaml.safe_load_all(done.stdout))
    (config,) = (one for one in objects if one["kind"] == "ConfigMap")
    assert config["data"]["models.config"] == (CONFIG / "models.config").read_text()
    (deployment,) = (one for one in objects if one["kind"] == "Deployment")
    assert config["metadata"]["name"] in json.dumps(deployment), "a change of the files rolls out"


def test_the_read_me_names_every_file():
    text = (CONFIG / "README.md").read_text()
    for path in CONFIG.iterdir():
        assert path.name == "README.md" or re.search(rf"`{re.escape(path.name)}/?`", text), path.name
