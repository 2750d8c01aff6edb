"""Lineage of a store that real runs made: three spans, one rejected, a chain of warm starts, one rollback."""

from __future__ import annotations

from pathlib import Path

import integration_world as world
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evergreen import pipeline

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def project(build_once) -> world.Project:
    """Months 1 and 2 give the first version, 3 the second (warm), 4 is rejected, 5 gives the third (warm, on 5 alone).

    Then the second version is restored.
    """

    def build(folder: Path) -> None:
        made = world.flights_project(folder / "flights", steps=20)
        made.change(data={"window": 2, "min_window": 1})
        world.deliver(made, [1, 2], step=20)
        assert made.evergreen("run").status == 0
        world.deliver(made, [3], step=20)
        assert made.evergreen("run").status == 0
        world.deliver(made, [4], step=20)
        file = made.spans / "4" / "flights.parquet"
        table = pq.read_table(file)
        at = table.schema.get_field_index("carrier")
        pq.write_table(table.set_column(at, "carrier", pa.array(["Zeppelin"] * table.num_rows)), file)
        assert made.evergreen("run").status == 3
        world.deliver(made, [5], step=20)
        assert made.evergreen("run").status == 0
        second = sorted(version["version"] for version in made.versions())[1]
        assert made.evergreen("rollback", "--to", str(second)).status == 0

    return world.Project(build_once("lineage", build) / "flights")


@pytest.fixture(scope="module")
def numbers(project) -> list[int]:
    """The four versions in the order in which they were published."""
    return sorted(version["version"] for version in project.versions())


def test_the_live_version_is_the_restored_one_with_all_that_stands_behind_it(project, numbers):
    first, second, _, restored = numbers
    found = project.evergreen("lineage", "--json").json
    assert (found["version"], found["live"], found["restores"]) == (restored, True, second)
    assert [(use["span"], use["verdict"], use["gone"]) for use in found["window"]] == [
        (2, "accepted", False),
        (3, "accepted", False),
    ]
    assert found["window"][1]["rows"] == sum(found["window"][1]["rows_by_split"].values()) > 500
    # The newest span's exam is the only split that nobody trained on.
    assert set(found["window"][1]["trained"]) == {"train", "validation"}
    assert found["window"][0]["trained"]["exam"] == found["window"][0]["rows_by_split"]["exam"]
    assert [(gate["gate"], gate["open"]) for gate in found["gates"]] == [(1, True), (2, True), (3, True), (4, True)]
    training = found["training"]
    assert (training["warm"], training["report"]["steps"], training["report"]["seed"]) == (True, 20, 0)
    assert training["settings"]["hyperparameters"]["units"]
    assert [(one["version"], one["window"], one["warm"]) for one in found["ancestors"]] == [(first, [1, 2], False)]
    assert found["transform"]["preprocessing_fn"] == "features.preprocessing_fn"
    assert found["schema"]["file"] == str(project.folder / "schema.pbtxt")
    assert found["gates"][3]["numbers"]["serving"]["rows"] == 50
    assert found["quantization"]["chosen"] in found["quantization"]["variants"]


def test_the_rollback_s_own_run_leads_to_the_same_model(project, numbers):
    rollback = next(run for run in project.runs() if run["result"] == "rolled back")
    found = project.evergreen("lineage", "--run", rollback["id"], "--json").json
    assert (found["version"], found["restores"]) == (numbers[3], numbers[1])
    assert [use["span"] for use in found["window"]] == [2, 3]


def test_the_run_that_made_it_names_code_packages_and_host(project, numbers):
    found = project.evergreen("lineage", str(numbers[1]), "--json").json
    properties = found["run_properties"]
    assert properties["result"] == "published" and properties["trigger"] == "manual"
    assert '"tensorflow": "2.' in properties["packages"]
    assert properties["host"] and properties["packages_digest"]


def test_what_was_made_from_span_2_goes_through_the_warm_start_on_month_5(project, numbers):
    first, second, third, restored = numbers
    found = project.evergreen("lineage", "--span", "2", "--json").json
    models = [(model["versions"], model["direct"], model["live"]) for model in found["models"]]
    assert models == [([first], True, False), ([second, restored], True, True), ([third], False, False)]
    assert found["models"][2]["through"] == [found["models"][1]["model_id"]]
    assert found["live_versions"] == [restored]


def test_nothing_was_made_from_the_rejected_span(project):
    found = project.evergreen("lineage", "--span", "4", "--json").json
    assert [(use["verdict"]) for use in found["deliveries"]] == ["rejected"]
    assert found["models"] == [] and found["live_versions"] == []
    run = project.runs()
    rejected = next(one for one in run if one["result"] == "data rejected")
    shown = project.evergreen("lineage", "--run", rejected["id"])
    assert shown.status == 0 and "data rejected" in shown.text
    assert "data refused: carrier" in shown.text


def test_diff_of_two_versions_names_their_spans_and_metrics(project, numbers):
    first, _, third, _ = numbers
    changes = project.evergreen("diff", str(first), str(third), "--json").json
    named = {(change["section"], change["name"]): change for change in changes}
    assert {name for section, name in named if section == "spans"} == {"span 1", "span 2", "span 5"}
    assert named["training", "warm start"]["after"] == "warm"
    assert ("metrics", "auc") in named
    assert not [name for section, name in named if section in ("packages", "schema", "hyperparameters")]


def test_a_notebook_loads_the_model_with_its_metrics_and_spans(project, numbers):
    published = pipeline.load(numbers[2], config=project.config_file)
    assert [use.span for use in published.spans] == [5]
    assert published.metrics["auc"] > 0.3
    assert "serving_default" in published.model.signatures
    assert published.tflite_path is not None and published.tflite_path.stat().st_size > 1000


def test_cards_of_the_live_version_of_the_rejected_run_and_of_the_history(project, numbers, tmp_path):
    runs = project.evergreen("runs", "--json").json
    rejected = next(run["id"] for run in runs if run["result"] == "data rejected")
    for name, asked, shown in (
        (
            "live",
            ("--version", str(numbers[-1])),
            ("Quality on the exam", "Embedding rows kept", "drift of what is", "Answers by signature"),
        ),
        ("rejected", (rejected,), ("✕ refused", "Zeppelin", "the run did not come so far")),
        ("history", ("--all",), ("Which spans each version learnt from", "data rejected", "rolled back")),
    ):
        file = tmp_path / f"{name}.html"
        written = project.evergreen("report", *asked, "--html", str(file))
        assert written.status == 0, written
        text = file.read_text(encoding="utf-8")
        assert [words for words in shown if words not in text] == [], name
