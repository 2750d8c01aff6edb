"""The DAG file of examples/airflow in a real Airflow: three intervals publish three versions."""

from __future__ import annotations

import ast
import datetime
import json
import sys
from pathlib import Path

import airflow_world
import integration_world as world
import pytest

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

EVERGREEN = str(Path(sys.executable).with_name("evergreen"))
# Calls the task's `poke` for a run that comes to each of the results in turn, and prints what came of it.
OUTCOMES = """
import importlib.util, json, sys, threading
from airflow.sdk import timezone
spec = importlib.util.spec_from_file_location("dag", sys.argv[1])
dag = importlib.util.module_from_spec(spec)
spec.loader.exec_module(dag)
task = dag.Retraining(task_id="retrain")
context = {"data_interval_end": timezone.datetime(2013, 2, 1, 3)}
for status, result in json.loads(sys.argv[3]):
    with open(sys.argv[2], "w") as file:
        json.dump([status, result], file)
    if status == "killed":
        threading.Timer(1, task.on_kill).start()
    try:
        found = task.poke(context)
        print("CAME", json.dumps(found.xcom_value if found else found))
    except Exception as error:
        print("CAME", json.dumps([type(error).__name__, str(error)]))
"""
# Stands for `evergreen`: comes to whatever lies in a file beside it.
COMMAND = """#!{python}
import json, os, sys, time
assert sys.argv[1:3] == ["run", "-c"], sys.argv
assert sys.argv[sys.argv.index("--scheduled-time") + 1].startswith("2013-02-01T03:00:00"), sys.argv
status, result = json.load(open("{wanted}"))
if result is not None:
    json.dump(result, open(sys.argv[sys.argv.index("--result-file") + 1], "w"))
if status == "killed":
    time.sleep(600)
os._exit(status)
"""


@pytest.fixture(scope="module")
def airflow(tmp_path_factory) -> airflow_world.Airflow:
    return airflow_world.install(tmp_path_factory.mktemp("airflow"))


def month(project: world.Project, number: int) -> None:
    """Delivers a month of flights as a span that is named by its date."""
    world.deliver(project, [number], step=30)
    (project.spans / str(number)).rename(project.spans / f"2013-{number:02}")


def test_three_intervals_publish_three_versions(airflow, tmp_path):
    project = world.flights_project(tmp_path / "flights", steps=20)
    project.change(data={"pattern": "{YYYY}-{MM}/*.parquet", "window": 2, "min_window": 1}, publish={"keep": 5})
    airflow_world.copy(
        airflow.dags,
        CONFIG=str(project.config_file),
        EVERGREEN=EVERGREEN,
        CRON="0 3 1 * *",
        START=datetime.datetime(2013, 1, 1),
        WAIT_FOR_SPAN=datetime.timedelta(0),
    )

    def interval(end: str) -> tuple[int, str]:
        done = airflow.run("airflow", "dags", "test", "evergreen_flights", f"{end}T03:00:00+00:00")
        return done.returncode, done.stdout

    # As after an outage: the later months lie there already, and each interval takes its own all the same.
    for number in (1, 2, 3):
        month(project, number)
    for end in ("2013-02-01", "2013-03-01", "2013-04-01"):
        status, text = interval(end)
        assert status == 0, text
    runs = project.store().runs()
    assert [(run.properties["scheduled_time"], run.properties["span_label"]) for run in runs] == [
        ("2013-02-01T03:00:00Z", "2013-01"),
        ("2013-03-01T03:00:00Z", "2013-02"),
        ("2013-04-01T03:00:00Z", "2013-03"),
    ]
    assert [(run["trigger"], run["result"]) for run in project.runs()] == [("airflow", "published")] * 3
    versions = [version["version"] for version in project.versions()]
    assert len(versions) == 3 and versions[::-1] == sorted(project.pushed())
    assert 2 not in project.states(), "an execution stayed RUNNING"

    status, text = interval("2013-04-01")
    # Run again, an interval ends as it did.
    assert status == 0 and "already rests on" in text and "Skipping task" not in text, text
    assert len(project.runs()) == 3
    status, text = interval("2013-05-01")
    assert status != 0 and "Sensor has timed out" in text and "2013-04" in text, text
    assert len(project.runs()) == 3


def test_the_end_of_the_task_follows_from_the_end_of_the_run(airflow, tmp_path):
    wanted, command = tmp_path / "wanted.json", tmp_path / "evergreen"
    command.write_text(COMMAND.format(python=sys.executable, wanted=wanted))
    command.chmod(0o755)
    file = airflow_world.copy(tmp_path, EVERGREEN=str(command))

    def result(ended: str, reason: str = "why", retryable: bool = False) -> dict[str, object]:
        values = {"result": ended, "reason": reason, "retryable": retryable}
        return {**values, "version": 7, "span": "2013-01", "run": "r1", "metrics": {"auc": 0.7}, "drift": None}

    published = {"version": 7, "span": "2013-01", "run": "r1", "metrics": {"auc": 0.7}}
    cases = [
        (0, result("published"), published),
        (0, result("unchanged"), published),
        (0, result("nothing"), ["AirflowSkipException", "why"]),
        (2, result("late"), False),
        (2, result("configuration"), ["AirflowFailException", "configuration: why"]),
        (3, result("data rejected"), ["AirflowFailException", "data rejected: why"]),
        (4, result("model rejected"), ["AirflowFailException", "model rejected: why"]),
        (4, result("withdrawn"), ["AirflowFailException", "withdrawn: why"]),
        (5, result("locked", retryable=True), ["AirflowException", "why"]),
        (1, result("failed", retryable=True), ["AirflowException", "why"]),
        (1, result("failed"), ["AirflowFailException", "failed: why"]),
        (137, None, ["AirflowException", "exit status 137"]),
        (2, None, ["AirflowFailException", "not begun: exit status 2"]),
        ("killed", None, ["AirflowException", "exit status -15"]),
    ]
    done = airflow.run(
        "python", "-c", OUTCOMES, str(file), str(wanted), json.dumps([[status, given] for status, given, _ in cases])
    )
    came = [json.loads(line[5:]) for line in done.stdout.splitlines() if line.startswith("CAME ")]
    assert came == [expected for _, _, expected in cases], done.stdout


def test_the_file_needs_nothing_but_airflow():
    tree = ast.parse(airflow_world.EXAMPLE.read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    own = {name for name in imported if name.partition(".")[0] not in sys.stdlib_module_names}
    assert own == {"airflow.sdk", "airflow.sdk.exceptions"}
