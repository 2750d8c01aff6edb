"""Whole retrainings whose versions a running server must answer with: trial, withdrawal, a kill, and skew."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import integration_world as world
import pyarrow.parquet as pq
import pytest
from serving_world import Server, environment, serve

from evergreen.components.pusher import labels

# Each test goes on where the one before it ended: a training takes most of a minute.
pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

CONFIG = """\
model_config_list {{
  config {{
    name: "flights"  # ours
    base_path: "{base}"
    model_platform: "tensorflow"
    model_version_policy {{ latest {{ num_versions: 2 }} }}
    logging_config {{
      log_collector_config {{ filename_prefix: "{log}" }}
      sampling_config {{ sampling_rate: 1.0 }}
    }}
  }}
}}
"""
# The command line as a process, from this checkout.
RUN = "import sys; from evergreen.pipeline.cli import main; sys.exit(main())"
METRICS = "/monitoring/prometheus/metrics"


class Served:
    """A project, and the server that its versions must be answered by."""

    def __init__(self, project: world.Project, server: Server):
        self.project, self.server = project, server
        self.models_config = project.folder / "models.config"
        self.log = project.folder / "requests" / "flights"

    def publish(self, minutes: float = 0.1, **limits: float) -> None:
        canary = {"minutes": minutes, "max_error_ratio": 0.01, "max_latency_ratio": 1000.0, **limits}
        canary["metrics"] = [f"http://{self.server.rest}{METRICS}"]
        self.project.change(
            publish={"server": self.server.grpc, "models_config": str(self.models_config), "canary": canary}
        )

    @property
    def labels(self) -> dict[str, int]:
        return labels.read(self.models_config, "flights")

    @property
    def live(self) -> int:
        return next(version["version"] for version in self.project.versions() if version["live"])


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("watched")
    project = world.flights_project(folder / "flights", steps=20)
    project.base_path.mkdir()
    models_config, log = project.folder / "models.config", project.folder / "requests" / "flights"
    models_config.write_text(CONFIG.format(base=project.base_path, log=log))
    monitoring = project.folder / "monitoring.config"
    monitoring.write_text(f'prometheus_config {{ enable: true path: "{METRICS}" }}')
    flags = (f"--model_config_file={models_config}", f"--monitoring_config_file={monitoring}")
    with serve(folder / "server", *flags) as server:
        yield Served(project, server)


def test_versions_are_published_watched_and_tried(served):
    served.publish()
    world.deliver(served.project, [1, 2], step=30)
    answer = served.project.evergreen("run")
    assert answer.status == 0, answer.text
    first = served.live
    assert served.labels == {"canary": first, "stable": first}
    world.deliver(served.project, [3], step=30)
    answer = served.project.evergreen("run")
    assert answer.status == 0, answer.text
    assert served.live > first
    assert served.labels == {"canary": served.live, "stable": served.live}
    assert served.server.states("flights") == {served.live: "AVAILABLE", first: "AVAILABLE"}
    listed = {one["version"]: one["labels"] for one in served.project.versions()}
    assert listed == {served.live: ["canary", "stable"], first: []}


def test_a_version_that_fails_its_trial_is_withdrawn_and_the_run_exits_4(served):
    before = served.live
    served.publish(max_latency_ratio=0.001)
    world.deliver(served.project, [4], step=30)
    answer = served.project.evergreen("run")
    assert answer.status == 4, answer.text
    assert "was withdrawn after it had been published" in answer.text and "times the" in answer.text
    assert served.live == before
    assert served.labels == {"canary": before, "stable": before}
    run = served.project.runs()[0]
    assert run["result"] == "withdrawn" and "was withdrawn" in run["reason"] and run["pushed_version"] is None
    newest = served.project.versions()[0]
    assert newest["version"] > before and newest["withdrawn"]
    again = served.project.evergreen("run")
    assert again.status == 0 and "nothing to do" in again.text
    asked = served.project.evergreen("run", "--span", "4")
    assert asked.status == 4 and "withdrawn" in asked.text, "the cached push must not answer for a new one"


def test_a_run_that_is_killed_while_it_watches_is_finished_by_the_next(served):
    before = served.live
    served.publish(minutes=60.0)
    world.deliver(served.project, [5], step=30)
    pending = served.project.base_path / ".watch.json"
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, "run", "-c", str(served.project.config_file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    seen = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            seen.append(line)
            if "on trial as `canary`" in line:
                break
        else:
            raise AssertionError("".join(seen))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    tried = json.loads(pending.read_text())["version"]
    assert served.labels == {"canary": tried, "stable": before}
    served.publish(minutes=0.05)
    answer = served.project.evergreen("run")
    assert answer.status == 0, answer.text
    assert f"cut off after it had published version {tried}" in answer.text
    assert "answers with version" in answer.text and "nothing to do" in answer.text
    assert served.live == tried and not pending.exists()
    assert served.labels == {"canary": tried, "stable": tried}
    assert served.project.runs()[0]["result"] == "published"
    assert 2 not in served.project.states()


def test_a_rollback_takes_the_labels_along(served):
    answer = served.project.evergreen("rollback")
    assert answer.status == 0 and "warning" not in answer.text, answer.text
    assert served.labels == {"canary": served.live, "stable": served.live}
    assert served.project.evergreen("release").status == 0


def predict(served: Served, path: Path, **changed: str) -> None:
    """Sends the rows of a month to the server as a client would."""
    table = pq.read_table(served.project.spans / "3" / "flights.parquet")
    rows = table.drop(["late", "date", "time_hour"]).to_pylist()
    with path.open("w") as file:
        for row in rows[:600]:
            file.write(json.dumps({**{k: v for k, v in row.items() if v is not None}, **changed}) + "\n")
    answer = served.project.evergreen("predict", str(path), "--server", served.server.grpc)
    assert answer.status == 0, answer.text


def test_skew_between_what_is_asked_and_what_was_learnt(served, tmp_path):
    predict(served, tmp_path / "rows.jsonl")
    # The copy's thresholds are those of a few hundred flights; requests of 600 rows keep the example's own.
    schema = ("--set", f"schema={world.ROOT / 'schemas' / 'flights' / 'schema.pbtxt'}")
    answer = served.project.evergreen("skew", "--json", *schema)
    before = answer.json
    assert before["version"] == served.live and before["rows"] >= 600 and before["log"] == str(served.log)
    carrier = {line["feature"]: line for line in before["features"]}["carrier"]
    assert carrier["verdict"] == "ok" and carrier["threshold"] == 0.1 and not carrier["default"]
    for number in range(5):
        predict(served, tmp_path / f"{number}.jsonl", carrier="HA")
    answer = served.project.evergreen("skew", *schema)
    assert answer.status == 4
    (line,) = [line for line in answer.text.splitlines() if line.startswith("carrier")]
    assert "L-infinity" in line and line.rstrip().endswith("over")
    nothing = served.project.evergreen("skew", "--log", str(tmp_path / "none"))
    assert nothing.status == 2 and "no requests are logged" in nothing.text
