"""Speed does not slide: ratios of processor time, each against a reference that runs beside it.

Processor time, because other work on the machine stretches the clock. The bounds leave half of what was measured, so
that they hold on other machines and fail where something is done twice, row by row, or loaded for nothing.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.tensorflow

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def ingest():
    command = [sys.executable, str(BENCHMARKS / "ingest.py"), "--repeats", "1", "--json"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert answer.returncode == 0, answer.stderr[-2000:]
    return {name: ratio["processor_seconds"] for name, ratio in json.loads(answer.stdout)["ratios"].items()}


@pytest.mark.parametrize("files", ["read CSV", "read Parquet v. CSV"])
def test_a_span_is_read_many_times_as_fast_as_by_csv_example_gen(ingest, files):
    assert ingest[files] > 12


def test_statistics_cost_less_than_the_stock_ones(ingest):
    assert ingest["statistics"] > 1.5
