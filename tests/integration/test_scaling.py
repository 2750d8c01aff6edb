"""`evergreen scaling` on a project that has trained once: the table, the JSON, the picture, and nothing left behind."""

from __future__ import annotations

from xml.etree import ElementTree

import integration_world as world
import pytest

from evergreen.components.trainer import network

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    project = world.flights_project(tmp_path_factory.mktemp("scaling") / "flights", steps=12)
    world.deliver(project, [1, 2], step=40)
    answer = project.evergreen("run")
    assert answer.status == 0, answer.text
    return project


def recorded(project):
    """All that a run of any kind would have changed."""
    from evergreen.pipeline.config import load
    from evergreen.pipeline.store import Store

    config = load(project.config_file)
    store = Store(config.connection, config.name).mlmd
    ids = [len(found) for found in (store.get_executions(), store.get_artifacts(), store.get_contexts())]
    return ids, sorted(project.published_files()), sorted(project.workspace.glob("artifacts/**/*"))


def test_bytes_are_counted_as_computed_and_nothing_is_recorded(trained):
    before = recorded(trained)
    asked = ["--strategy", "multi_worker_mirrored,parameter_server", "--replicas", "2", "--steps", "20"]
    answer = trained.evergreen("scaling", *asked, "--bandwidth", "1Gbit", "--json")
    assert answer.status == 0, answer.text
    found = answer.json
    ring, servers = found["rows"]
    assert (ring["strategy"], servers["strategy"]) == ("multi_worker_mirrored", "parameter_server")
    gradients, rows = found["bytes"]["gradients"], found["bytes"]["rows"]
    assert gradients > 0 and rows > 0
    assert ring["bytes"]["total"] == pytest.approx(2 * gradients + rows)
    for row in (ring, servers):
        assert row["step_ms"] > 0 and row["predicted_step_ms"] > 0
        if network.private_prefix():  # else the processes share the machine's network, and its counters
            assert row["measured_bytes"] == pytest.approx(row["bytes"]["total"], rel=0.15)
    assert found["bandwidth_bytes_per_s"] == 1.25e8
    assert set(found["saturation"]) == {"multi_worker_mirrored", "parameter_server"}
    with open(found["plot"], "rb") as picture:
        assert picture.read(4) == b"\x89PNG"
    assert recorded(trained) == before


def test_the_table_and_a_picture_where_it_is_asked_for(trained, tmp_path):
    picture = tmp_path / "scaling.svg"
    answer = trained.evergreen(
        "scaling", "--strategy", "mirrored", "--replicas", "1,2", "--steps", "10", "--plot", str(picture)
    )
    assert answer.status == 0, answer.text
    assert "done    mirrored 2" in answer.text
    rows = [line.split() for line in answer.text.splitlines() if line.startswith(("single ", "mirrored "))]
    assert [row[:2] for row in rows] == [["single", "1"], ["mirrored", "1"], ["mirrored", "2"]]
    assert "mirrored: saturate" in answer.text
    assert "hosts of their own" in answer.text
    assert f"picture: {picture}" in answer.text
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")
    for word in ("WARNING", "tensorflow/core", "Traceback"):
        assert word not in answer.text


def test_a_model_that_fails_says_so_in_a_sentence(trained):
    broken = trained.folder / "broken.py"
    broken.write_text("def build_model(transform_output, hyperparameters):\n    return 1\n")
    answer = trained.evergreen("scaling", "--steps", "10", "--set", "trainer.model=broken:build_model")
    assert answer.status == 2
    assert "does not return a tf_keras.Model" in answer.text
