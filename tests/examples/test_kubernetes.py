"""The Kubernetes files: kubectl takes each; each pod of the cluster gets a TF_CONFIG that fits its name."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from evergreen.components.trainer import cluster

ROOT = Path(__file__).parents[2]
FILE = ROOT / "examples" / "kubernetes" / "training.yaml"
FILES = [*(ROOT / "examples" / "kubernetes").glob("*.yaml"), ROOT / "serving_config" / "kubernetes" / "deployment.yaml"]
WORKLOADS = ("CronJob", "Deployment", "StatefulSet")


@pytest.fixture(scope="module")
def objects():
    found = list(yaml.safe_load_all(FILE.read_text(encoding="utf-8")))
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


def pods(objects):
    """Names of pods as Kubernetes gives them, with their specifications and labels."""
    for (kind, name), one in objects.items():
        if kind == "StatefulSet":
            for number in range(one["spec"]["replicas"]):
                yield f"{name}-{number}", one["spec"]["template"]
        elif kind == "CronJob":
            template = one["spec"]["jobTemplate"]["spec"]["template"]
            yield template["spec"]["hostname"], template


def test_every_pod_is_the_task_that_its_name_says(objects):
    text = objects["ConfigMap", "evergreen-training"]["data"]["CLUSTER"]
    seen = set()
    for name, template in pods(objects):
        (container,) = template["spec"]["containers"]
        script = "\n".join(line for line in container["args"][0].splitlines() if not line.startswith("exec"))
        shell = [*container["command"], f'{script}\nprintf %s "$TF_CONFIG"']
        done = subprocess.run(shell, env={"CLUSTER": text, "HOSTNAME": name}, capture_output=True, text=True)
        plan = cluster.read({"TF_CONFIG": done.stdout})
        assert plan.address(plan.task) == f"{name}.evergreen-training:2222"
        assert plan.task.job == template["metadata"]["labels"]["job"]
        seen.add(plan.task)
    assert seen == set(plan.tasks())


def test_only_the_cluster_reaches_its_pods(objects):
    policy = objects["NetworkPolicy", "evergreen-training"]["spec"]
    (rule,) = policy["ingress"]
    (origin,) = rule["from"]
    labels = policy["podSelector"]["matchLabels"]
    assert origin == {"podSelector": {"matchLabels": labels}}
    assert all(labels.items() <= template["metadata"]["labels"].items() for _, template in pods(objects))
    assert objects["Service", "evergreen-training"]["spec"]["selector"] == labels


def given(part, whole):
    """Lists the values of one structure that another one lacks."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return [f".{key}{rest}" for key, value in part.items() for rest in given(value, whole.get(key))]
    if isinstance(part, list) and isinstance(whole, list) and len(part) <= len(whole):
        return [f"[{n}]{rest}" for n, pair in enumerate(zip(part, whole)) for rest in given(*pair)]  # noqa: B905
    return [] if part == whole else [f": {part!r}"]


def lost(folder, text):
    """Lists what kubectl does not know in the workloads of a file; raises where a value's type is wrong."""
    wanted = [one for one in yaml.safe_load_all(text) if one["kind"] in WORKLOADS]
    (folder / "workloads.yaml").write_text(yaml.safe_dump_all(wanted))
    # Something that kubectl does to all of them without a server: it reads them into its own types, adds a variable,
    # and writes out what it understood.
    command = ["kubectl", "set", "env", "--local", "-f", str(folder / "workloads.yaml"), "-o", "json", "ANY=1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    decoder, found, rest = json.JSONDecoder(), [], done.stdout.strip()
    while rest:
        one, end = decoder.raw_decode(rest)
        found.append(one)
        rest = rest[end:].strip()
    return given(wanted, found)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_kubectl_knows_every_field_of_the_workloads(file, tmp_path):
    assert lost(tmp_path, file.read_text(encoding="utf-8")) == []


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_a_slip_of_the_pen_would_be_found(tmp_path):
    text = FILE.with_name("schedule.yaml").read_text(encoding="utf-8")
    typed = text.replace("concurrencyPolicy:", "concurencyPolicy:")
    assert lost(tmp_path, typed) == ["[0].spec.concurencyPolicy: 'Forbid'"]
    with pytest.raises(subprocess.CalledProcessError):
        lost(tmp_path, text.replace("replicas: 1", "replicas: one"))
