"""The soak in small: three months, of which one is late and one damaged, and three kills."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

SOAK = Path(__file__).resolve().parents[2] / "benchmarks" / "soak.py"


def test_three_months_and_three_kills(tmp_path):
    picture = tmp_path / "auc.svg"
    options = ["--months", "3", "--kills", "3", "--steps", "20", "--seed", "1", "--json", "--out", str(picture)]
    answer = subprocess.run([sys.executable, str(SOAK), *options], capture_output=True, text=True, timeout=3600)
    assert answer.stdout, answer.stderr
    found = json.loads(answer.stdout)
    failed = [check for check in found["checks"] if not check["held"]]
    assert not failed, answer.stderr
    assert answer.returncode == 0
    assert len(found["kills"]) == 3
    # January's model, then the one of January, February, which came late, and March, which came twice.
    assert len(set(found["auc"]["versions"].values())) == 1
    assert found["ledger"][0][2] == "month 1 arrives"
    assert picture.stat().st_size > 0
