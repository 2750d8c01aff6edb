"""Answers of a SavedModel to the rows of an Examples artifact."""

import evaluator_world
import numpy as np
import pytest

from evergreen.components.errors import ConfigError, DataRejected
from evergreen.components.evaluator import predict

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def world(build_once):
    return str(build_once("evaluator", evaluator_world.build))


def _answer(world, examples=None, model="good", splits=("train", "exam"), label="late", columns=("carrier", "day")):
    return predict.answer(examples or f"{world}/examples", splits, label, columns, f"{world}/{model}/Format-Serving")


def test_rows_in_the_order_of_the_files_with_labels_and_columns(world):
    found = _answer(world)
    rows = evaluator_world.rows()
    table = found.table
    assert found.error == "" and found.not_finite == 0
    assert table["split"].to_pylist() == ["train"] * 200 + ["exam"] * 900
    assert table["row"].to_pylist() == [*range(200), *range(900)]
    for name in ("late", "carrier", "day"):
        given = rows["train"][name] + rows["exam"][name]
        assert table["label" if name == "late" else name].to_pylist() == given
    x = np.array(rows["train"]["x"] + rows["exam"]["x"])
    assert table["prediction"].to_numpy() == pytest.approx(1 / (1 + np.exp(-2 * x)), abs=1e-6)


def test_batches_and_compression_do_not_matter(world, tmp_path, monkeypatch):
    evaluator_world.write_examples(f"{tmp_path}/gz", evaluator_world.rows(), suffix=".gz", files=1)
    monkeypatch.setattr(predict, "BATCH", 7)
    found = _answer(world, f"{tmp_path}/gz").table
    assert found.equals(_answer(world).table)


@pytest.mark.parametrize(("model", "why"), [("wide", "shape [7, 2]"), ("gone", "gone"), ("nowhere", "nowhere")])
def test_a_model_that_cannot_answer_is_a_finding(world, monkeypatch, model, why):
    monkeypatch.setattr(predict, "BATCH", 7)
    found = _answer(world, model=model, splits=("validation",))
    assert why in found.error and "\n" not in found.error
    assert found.not_finite == found.table.num_rows == 50


def test_a_split_without_rows_gives_none(world, tmp_path):
    columns = {"x": [], "noise": [], "late": []}
    evaluator_world.write_examples(f"{tmp_path}/e", {"exam": columns, "train": evaluator_world.rows()["train"]})
    assert _answer(world, f"{tmp_path}/e", splits=("exam",), columns=()).table.num_rows == 0
    assert _answer(world, f"{tmp_path}/e", splits=("train", "exam")).table.num_rows == 200
    assert _answer(world, f"{tmp_path}/e", splits=("validation",), columns=()).table.num_rows == 0


def test_a_column_that_no_row_has_is_named(world):
    with pytest.raises(ConfigError, match="No row has a feature `carier`") as refused:
        _answer(world, columns=("carier",))
    assert "carrier, day, late, noise, x" in str(refused.value)


def test_a_label_of_strings_is_refused(world):
    with pytest.raises(ConfigError, match="`carrier` is a string"):
        _answer(world, label="carrier")


def test_rows_without_a_label_are_refused(world, tmp_path):
    rows = {"exam": evaluator_world.rows()["exam"]}
    rows["exam"]["late"][5] = None
    evaluator_world.write_examples(f"{tmp_path}/e", rows)
    with pytest.raises(DataRejected, match="1 rows of the split `exam` have no label"):
        _answer(world, f"{tmp_path}/e", splits=("exam",))


def test_a_column_of_two_types_is_refused(world, tmp_path):
    rows = {"exam": evaluator_world.rows()["exam"]}
    rows["exam"]["day"][5] = "monday"
    evaluator_world.write_examples(f"{tmp_path}/e", rows)
    with pytest.raises(DataRejected, match="do not fit together"):
        _answer(world, f"{tmp_path}/e", splits=("exam",))
