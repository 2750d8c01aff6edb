"""The exam is honest: a model that learnt from spoilt labels is refused, on windows that end in September and November.

A quarter of the labels of all training rows is turned round; the exam, the newest span's tail, is left as it is. A
random tenth of each day's flights would not have told: a model that saw the day knows the rest of it.
"""

from __future__ import annotations

import os

import integration_world as world
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]


def _spoil(path, seed: int, keep_tail: bool) -> None:
    """Turns a quarter of the labels round, but not in the last quarter of the rows by time where that is the exam."""
    data = world.flights_data()
    table = pq.read_table(path).sort_by("time_hour")
    spoilt = data.flip(table, 0.25, seed)
    if keep_tail:
        cut = table["time_hour"][int(table.num_rows * 0.75)]
        tail = pc.greater_equal(table["time_hour"], cut)
        column = pc.if_else(tail, table["late"], spoilt["late"])
        at = table.schema.get_field_index("late")
        spoilt = table.set_column(at, table.schema.field(at), column)
    pq.write_table(spoilt, path)
    os.utime(path)


@pytest.mark.parametrize("newest", [9, 11])
def test_a_challenger_that_learnt_from_spoilt_labels_is_refused(tmp_path, newest):
    project = world.flights_project(tmp_path / "flights")
    example = yaml.safe_load((world.FLIGHTS / "evergreen.yaml").read_text(encoding="utf-8"))
    project.change(trainer=example["trainer"], evaluate=example["evaluate"])
    project.change(trainer={"warm_start": None}, evaluate={"max_regression": {"auc": 0.005}})
    world.deliver(project, [newest - 3, newest - 2, newest - 1], step=1)
    answer = project.evergreen("run")
    assert answer.status == 0, answer.text
    world.deliver(project, [newest], step=1)
    for month in (newest - 2, newest - 1, newest):
        _spoil(project.spans / str(month) / "flights.parquet", month, keep_tail=month == newest)
    answer = project.evergreen("run")
    assert answer.status == 4, answer.text
    assert "gate 2" in answer.text
    assert "auc" in answer.text
    assert len(project.versions()) == 1
    assert project.runs()[0]["result"] == "model rejected"
    spoilt = project.runs()[0]["metrics"]
    # The same window with its labels as they were: the exam tells the two models apart.
    world.deliver(project, [newest - 2, newest - 1, newest], step=1)
    assert project.evergreen("run").status in (0, 4)
    sound = project.runs()[0]["metrics"]
    assert sound["champion_exam"] == spoilt["champion_exam"]
    assert sound["exam"]["auc"] > spoilt["exam"]["auc"]
