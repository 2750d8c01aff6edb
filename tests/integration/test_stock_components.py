"""Our Trainer among stock components: the file that docs/training.md shows, run as its reader would run it."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import trainer_world
from integration_world import ROOT

pytestmark = pytest.mark.tensorflow

ROWS = 600
STRATEGY = '"strategy": "mirrored", "devices": 2'


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with two functions and CSV files, and nothing of Evergreen's own."""
    made = tmp_path_factory.mktemp("own")
    trainer_world.write_project(made, features=trainer_world.FEATURES, model=trainer_world.MODEL)
    (made / "csv").mkdir()
    rows = trainer_world.rows(1, "train", ROWS)
    with open(made / "csv" / "rows.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["colour", "shop", "size", "count", trainer_world.LABEL])
        writer.writeheader()
        writer.writerows(rows)
    return made


def shown() -> str:
    """The file as the documentation shows it."""
    section = (ROOT / "docs" / "training.md").read_text(encoding="utf-8").split("## In a pipeline of your own\n")[1]
    (code,) = re.findall(r"```python\n(.*?)```", section.split("\n## ")[0], re.DOTALL)
    assert code.count(STRATEGY) == 1
    return code


def run(folder: Path, code: str) -> str:
    """Runs the file in a process of its own; returns what it printed."""
    (folder / "own.py").write_text(code, encoding="utf-8")
    # Offline: what tries to reach a host fails at once instead of waiting.
    proxies = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, "own.py"],
        cwd=folder,
        env={**os.environ, **proxies},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    return done.stdout


def newest(folder: Path, pattern: str) -> Path:
    return max(folder.glob(pattern), key=lambda path: path.stat().st_mtime_ns)


def check(folder: Path, before: set[Path]) -> dict:
    """Looks that a blessed version was pushed that loads and answers; returns the Trainer's report."""
    import tensorflow as tf

    (version,) = set((folder / "serving").iterdir()) - before
    served = tf.saved_model.load(str(version)).signatures["serving_default"]
    rows = [{"colour": "pink", "size": 16.0}, {"colour": "red", "size": 4.0, "shop": "west", "count": 3}]
    answers = served(examples=tf.constant([trainer_world.example(row) for row in rows]))["predictions"].numpy()
    assert answers.shape == (2, 1)
    assert answers[0] > answers[1], "the label follows the colour and the size"
    assert newest(folder, "artifacts/Evaluator/blessing/*/*").name == "BLESSED"
    report = json.loads(newest(folder, "artifacts/Trainer/model_run/*/report.json").read_text(encoding="utf-8"))
    assert report["steps"] == 100
    assert set(report["rows_by_span"]["0"]) == {"train", "eval"} and sum(report["rows"].values()) == ROWS
    assert report["rows"]["validation"] == report["rows_by_span"]["0"]["eval"] > 0
    assert "val_auc" in report["final"]
    return report


def test_a_stock_pipeline_around_our_trainer_pushes_a_model_that_answers(folder):
    run(folder, shown())
    report = check(folder, set())
    assert (report["strategy"], report["replicas"], report["devices"]) == ("mirrored", 2, ["CPU:0", "CPU:1"])


@pytest.mark.slow
def test_with_rows_that_transform_materialized(folder):
    before = set((folder / "serving").glob("*"))
    raw = 'Trainer(\n        examples=examples.outputs["examples"]'
    assert shown().count(raw) == 1
    code = shown().replace(raw, 'Trainer(\n        examples=transform.outputs["transformed_examples"]')
    run(folder, code.replace("materialize=False", "materialize=True"))
    check(folder, before)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "replicas"),
    [
        ('"strategy": "single"', 1),
        ('"strategy": "multi_worker_mirrored", "cluster": {"workers": 2}', 2),
        ('"strategy": "parameter_server", "cluster": {"workers": 2, "ps": 1}', 2),
        ('"strategy": "model_parallel", "mesh": [1, 2]', 1),
    ],
    ids=["single", "multi_worker_mirrored", "parameter_server", "model_parallel"],
)
def test_with_any_strategy(folder, strategy, replicas):
    """The stages before the Trainer come from the cache, as in a pipeline whose owner changes the strategy."""
    before = set((folder / "serving").glob("*"))
    run(folder, shown().replace(STRATEGY, strategy))
    report = check(folder, before)
    assert report["replicas"] == replicas and f'"{report["strategy"]}"' in strategy
