"""Retraining by Airflow 3: a file for its dags folder. It needs nothing of Evergreen or TFX in Airflow's environment.

One task is one retraining: `evergreen run` of another virtual environment, with the end of the data interval as its
scheduled time. More tasks would bring nothing: a retraining holds its workspace from the first stage to the last, and a
second attempt takes from the cache what is done. How the task ends follows from how the run ends:

    published                                           success, and an event of the asset; XCom holds the version
    nothing new                                         skipped
    the interval's span is not there yet                looked for again every POLL, failed after WAIT_FOR_SPAN
    another run holds the workspace, or what can pass   tried again, later and later
    rejected, held, wrong configuration, a defect       failed at once: another attempt would come to the same

Copy the file for each project, and change what stands under "yours".
"""

import json
import subprocess
import tempfile
from datetime import datetime, timedelta
from pathlib import Path

from airflow.sdk import DAG, Asset, BaseSensorOperator, CronDataIntervalTimetable, PokeReturnValue
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

# Yours: the project, where `evergreen` is installed, and when a retraining is due.
NAME = "flights"
CONFIG = "/srv/flights/evergreen.yaml"
EVERGREEN = "/srv/evergreen/.venv/bin/evergreen"
CRON, TIMEZONE = "0 3 * * *", "UTC"  # an hour at which the day before has been delivered
START = datetime(2026, 1, 1)  # the intervals since then are made up for, oldest first, one at a time
WAIT_FOR_SPAN, POLL = timedelta(hours=2), timedelta(minutes=5)
TIME_LIMIT = timedelta(hours=6)
RETRIES, FIRST_PAUSE, LONGEST_PAUSE = 3, timedelta(minutes=1), timedelta(hours=1)

GRACE_S = 30.0  # for a run that is stopped to write down that it was
FINAL = (2, 3, 4)  # wrong configuration or usage, data rejected, model rejected


class Retraining(BaseSensorOperator):
    """One retraining. A sensor, because it may have to wait for its span, and then should hold no worker."""

    _process: subprocess.Popen | None = None

    def poke(self, context):
        """Runs it.

        Returns:
          What was published; False while the span is not there.
        """
        # A run that a person triggered may have no interval.
        moment = context.get("data_interval_end") or context["dag_run"].run_after
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "result.json"
            command = [EVERGREEN, "run", "-c", CONFIG, "--trigger", "airflow", "--scheduled-time", moment.isoformat()]
            status = self._run([*command, "--result-file", str(file)])
            result = json.loads(file.read_text()) if file.exists() else {}
        ended, reason = result.get("result"), result.get("reason") or f"exit status {status}"
        if status == 0:
            if ended == "nothing":
                raise AirflowSkipException(reason)
            return PokeReturnValue(True, {key: result.get(key) for key in ("version", "span", "run", "metrics")})
        if ended == "late":
            self.log.info("%s", reason)
            return False
        # A run that was killed left no result, nor did one whose command line was wrong.
        if result["retryable"] if result else status not in FINAL:
            raise AirflowException(reason)
        raise AirflowFailException(f"{ended or 'not begun'}: {reason}")

    def on_kill(self):
        """Stops the run as Ctrl-C does; Airflow calls it when the task is cleared, marked, or out of time."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()

    def _run(self, command):
        """Runs a command with its output in the task's log, in the task's process group. Returns its exit status."""
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for line in self._process.stdout:
            self.log.info("%s", line.rstrip())
        return self._process.wait()


with DAG(
    dag_id=f"evergreen_{NAME}",
    schedule=CronDataIntervalTimetable(CRON, timezone=TIMEZONE),
    start_date=START,
    catchup=True,
    max_active_runs=1,
    tags=["evergreen"],
):
    Retraining(
        task_id="retrain",
        mode="reschedule",
        poke_interval=POLL,
        timeout=WAIT_FOR_SPAN,
        execution_timeout=TIME_LIMIT,
        retries=RETRIES,
        retry_delay=FIRST_PAUSE,
        retry_exponential_backoff=2.0,
        max_retry_delay=LONGEST_PAUSE,
        outlets=[Asset(f"evergreen_{NAME}")],
    )
