"""What bad input gets: the exit status, one clear message, and nothing lost.

One project publishes two months; then month 3 is delivered in every broken way, and at last whole.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import integration_world as world
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> world.Project:
    made = world.flights_project(tmp_path_factory.mktemp("bad") / "flights", steps=20)
    world.deliver(made, [1, 2], step=20)
    answer = made.evergreen("run")
    assert answer.status == 0, answer.text
    return made


@pytest.fixture
def harmless(project):
    """Checks that a refusal leaves the base path, the metadata and the decided spans as they were."""
    before = project.published_files()
    accepted = _accepted(project)
    yield
    assert project.published_files() == before
    assert 2 not in project.states(), "an execution stayed RUNNING"
    assert accepted <= _accepted(project)


def _accepted(project: world.Project) -> set[tuple[int, int]]:
    from evergreen.pipeline.config import load
    from evergreen.pipeline.store import Store

    config = load(project.config_file)
    return {r.key for r in Store(config.connection, config.name).span_records() if r.accepted}


def _span(project: world.Project, month: int = 3) -> Path:
    """Delivers a good month and returns its file, for a test to break."""
    world.deliver(project, [month], step=20)
    return project.spans / str(month) / "flights.parquet"


def _missing_column(path: Path) -> None:
    pq.write_table(pq.read_table(path).drop(["carrier"]), path)


def _string_in_a_number_column(path: Path) -> None:
    table = pq.read_table(path)
    at = table.schema.get_field_index("distance")
    pq.write_table(table.set_column(at, "distance", pc.cast(table["distance"], pa.string())), path)


def _new_category(path: Path) -> None:
    table = pq.read_table(path)
    at = table.schema.get_field_index("carrier")
    pq.write_table(table.set_column(at, "carrier", pa.array(["Zeppelin"] * table.num_rows)), path)


def _too_few_rows(path: Path) -> None:
    pq.write_table(pq.read_table(path).slice(0, 100), path)


def _no_rows(path: Path) -> None:
    pq.write_table(pq.read_table(path).slice(0, 0), path)


def _empty_file(path: Path) -> None:
    path.write_bytes(b"")


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


@pytest.mark.usefixtures("harmless")
@pytest.mark.parametrize(
    ("broken", "named"),
    [
        (_missing_column, "carrier"),
        (_string_in_a_number_column, "distance"),
        (_new_category, "carrier"),
        (_too_few_rows, "min_rows"),
        (_no_rows, "no rows"),
        (_empty_file, "flights.parquet"),
        (_truncated, "flights.parquet"),
    ],
)
def test_a_broken_span_is_rejected_with_3_and_says_what_is_wrong(project, broken, named):
    broken(_span(project))
    answer = project.evergreen("run")
    assert answer.status == 3, answer.text
    assert named in answer.text
    assert "Traceback" not in answer.text
    assert project.runs()[0]["result"] == "data rejected"
    again = project.evergreen("run")
    assert again.status == 0, "a span version is decided once"
    assert "was rejected" in again.text


@pytest.mark.usefixtures("harmless")
def test_a_span_without_its_marker_does_not_exist_yet(project):
    _span(project).with_name("_SUCCESS").unlink()
    assert project.evergreen("run").status == 0
    answer = project.evergreen("run", "--span", "3")
    assert answer.status == 2
    assert "_SUCCESS" in answer.text


@pytest.mark.usefixtures("harmless")
@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("trainer.stepps=5", "stepps"),
        ("data.path=no-such-folder", "no-such-folder"),
        ("features=features:no_such_function", "no_such_function"),
        ("trainer.model=no_such_module:build_model", "no_such_module"),
        ("schema=no-such.pbtxt", "no-such.pbtxt"),
    ],
)
def test_a_wrong_configuration_is_refused_with_2_and_names_the_mistake(project, override, named):
    answer = project.evergreen("run", "--set", override)
    assert answer.status == 2, answer.text
    assert named in answer.text
    assert "Traceback" not in answer.text


@pytest.mark.usefixtures("harmless")
def test_a_model_whose_training_gives_nan_is_refused_with_4(project):
    """Month 4, so that month 3 stays undecided by a training."""
    model = project.folder / "model.py"
    kept = model.read_text()
    model.write_text(
        kept
        + "\n_build = build_model\n\n\ndef build_model(transform_output, hyperparameters):\n"
        + "    model = _build(transform_output, hyperparameters)\n"
        + "    model.compile(optimizer=model.optimizer, loss=lambda y, p: p * float('nan'))\n"
        + "    return model\n"
    )
    world.deliver(project, [4], step=20)
    shutil.rmtree(project.spans / "3", ignore_errors=True)
    try:
        answer = project.evergreen("run")
    finally:
        model.write_text(kept)
        shutil.rmtree(project.spans / "4")
    assert answer.status == 4, answer.text
    assert "nan" in answer.text.lower()
    assert project.runs()[0]["result"] == "model rejected"


def test_the_good_span_that_comes_at_last_publishes(project):
    """The last test of the file: a rejected span that is delivered again as a good version is accepted."""
    _span(project)
    before = len(project.versions())
    answer = project.evergreen("run")
    assert answer.status == 0, answer.text
    assert len(project.versions()) == before + 1
    assert project.versions()[0]["span"] == 3
