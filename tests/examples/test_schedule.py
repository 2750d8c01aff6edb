"""The unit, the crontab line and the Kubernetes files: read by their own tools where these are there."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from evergreen.pipeline import cli
from evergreen.pipeline.schedule.times import Cron
from evergreen.pipeline.settings_schedule import ScheduleSettings, seconds

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "examples" / "schedule" / "evergreen.service"
CRONTAB = ROOT / "examples" / "schedule" / "crontab"
KUBERNETES = ROOT / "examples" / "kubernetes" / "schedule.yaml"


def understood(arguments: list[str]) -> bool:
    """Whether our command line takes these arguments, without the program's name."""
    root = click.Context(cli.cli)
    command = cli.cli.get_command(root, arguments[0])
    command.make_context(arguments[0], arguments[1:], parent=root)
    return True


@pytest.fixture(scope="module")
def documents() -> dict[str, dict]:
    return {one["kind"]: one for one in yaml.safe_load_all(KUBERNETES.read_text(encoding="utf-8"))}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_systemd_takes_the_unit(tmp_path):
    # The programs are not installed where the example says.
    text = re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={sys.executable}", UNIT.read_text(encoding="utf-8"))
    (tmp_path / UNIT.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / UNIT.name)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_gives_a_run_its_grace_and_does_not_restart_what_a_restart_cannot_mend():
    text = UNIT.read_text(encoding="utf-8")
    assert understood(shlex.split(re.search(r"(?m)^ExecStart=\S+ (.*)$", text)[1]))
    assert "KillMode=mixed" in text
    stop = re.search(r"(?m)^TimeoutStopSec=(\d+)min$", text)
    assert int(stop[1]) * 60 > seconds(ScheduleSettings(every="1h").grace)
    assert "RestartPreventExitStatus=2 5" in text


def test_the_crontab_line_is_a_time_and_a_command():
    (line,) = (one for one in CRONTAB.read_text(encoding="utf-8").splitlines() if re.match(r"[\d*]", one))
    fields = line.split(None, 5)
    Cron(" ".join(fields[:5]), "UTC")
    command = re.search(r"bin/evergreen (.*?) >>", fields[5])
    assert understood(shlex.split(command[1]))


def crontab_check() -> list[str] | None:
    """The command that checks a crontab without installing it; None where there is none."""
    if shutil.which("crontab") is None:
        return None
    usage = subprocess.run(["crontab", "-?"], capture_output=True, text=True, check=False).stderr
    return next((["crontab", option] for option in ("-T", "-n") if re.search(rf"\[\s*{option}\b", usage)), None)


def test_crontab_takes_the_file():
    command = crontab_check()
    if command is None:
        pytest.skip("there is no crontab that checks a file (cronie: -T, Debian: -n)")
    done = subprocess.run([*command, str(CRONTAB)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_crontab_line_is_one_that_cron_and_the_shell_read_alike():
    (line,) = (one for one in CRONTAB.read_text(encoding="utf-8").splitlines() if re.match(r"[\d*]", one))
    command = line.split(None, 5)[5]
    assert "%" not in command, "cron ends the line there"
    shell = re.search(r"(?m)^SHELL=(.*)$", CRONTAB.read_text(encoding="utf-8"))[1]
    done = subprocess.run([shell, "-n", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_cron_job_runs_one_at_a_time_and_repeats_no_verdict(documents):
    spec = documents["CronJob"]["spec"]
    Cron(spec["schedule"], spec["timeZone"])
    assert spec["concurrencyPolicy"] == "Forbid"
    job = spec["jobTemplate"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"] == {"containerName": container["name"], "operator": "In", "values": [2, 3, 4]}
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # what a pod failure policy asks for
    assert understood(container["command"][1:])


def test_the_deployment_is_one_scheduler_with_its_grace(documents):
    deployment = documents["Deployment"]["spec"]
    assert deployment["replicas"] == 1
    assert deployment["strategy"] == {"type": "Recreate"}
    pod = deployment["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > seconds(ScheduleSettings(every="1h").grace)
    (container,) = pod["containers"]
    assert understood(container["command"][1:])
    assert deployment["selector"]["matchLabels"] == deployment["template"]["metadata"]["labels"]


def test_volumes_that_are_mounted_are_there(documents):
    job = documents["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    for pod in (job, documents["Deployment"]["spec"]["template"]["spec"]):
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
