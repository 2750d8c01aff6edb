"""An Airflow of its own, with a metadata database of SQLite, and the example's DAG file as a user would change it."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import machine
import pytest
import setup_airflow

EXAMPLE = Path(__file__).parents[1] / "examples" / "airflow" / "evergreen_retraining.py"


def copy(folder: Path, **yours: object) -> Path:
    """Copies the example, with names under "yours" set anew.

    Args:
      folder: where to.
      **yours: values by name; those of `datetime` are written as code.

    Returns:
      The file.
    """
    text = EXAMPLE.read_text(encoding="utf-8")
    place = "\nGRACE_S = "
    assert text.count(place) == 1
    own = "".join(f"{name} = {value!r}\n" for name, value in yours.items())
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / EXAMPLE.name
    file.write_text(text.replace(place, f"\nimport datetime as dt\n{own.replace('datetime.', 'dt.')}{place}"))
    return file


@dataclass(frozen=True)
class Airflow:
    """An installation.

    Attributes:
      venv: its virtual environment.
      home: its AIRFLOW_HOME.
    """

    venv: Path
    home: Path

    @property
    def dags(self) -> Path:
        return self.home / "dags"

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs a program of the virtual environment; what it printed is in `stdout`."""
        environment = {
            **os.environ,
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "PATH": f"{self.venv / 'bin'}:{os.environ['PATH']}",
        }
        return subprocess.run(
            [str(self.venv / "bin" / program), *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )


def install(home: Path) -> Airflow:
    """Makes an Airflow with an empty database, or skips the test where its packages cannot be had."""
    try:
        found = Airflow(setup_airflow.set_up(), home)
    except machine.SetupError as error:
        pytest.skip(f"Airflow cannot be installed here: {error}")
    found.dags.mkdir(parents=True)
    done = found.run("airflow", "db", "migrate")
    assert done.returncode == 0, done.stdout
    return found
