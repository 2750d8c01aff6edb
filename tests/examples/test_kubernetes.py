"""The Kubernetes example: each pod gets a TF_CONFIG that fits its name, and only the cluster gets in."""

import subprocess
from pathlib import Path

import pytest
import yaml

from evergreen.components.trainer import cluster

FILE = Path(__file__).parents[2] / "examples" / "kubernetes" / "training.yaml"


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
