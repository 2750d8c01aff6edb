"""`create_pipeline(config)` is an ordinary TFX pipeline: the stock LocalDagRunner runs it, with Beam's DirectRunner."""

from __future__ import annotations

import urllib.request

import integration_world as world
import pytest

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def project(tmp_path) -> world.Project:
    made = world.flights_project(tmp_path / "flights", steps=20)
    world.deliver(made, [1, 2], step=30)
    made.change(beam={"runner": "DirectRunner"})
    return made


def test_the_stock_local_dag_runner_publishes(project, monkeypatch):
    from tfx.orchestration.local.local_dag_runner import LocalDagRunner

    from evergreen.pipeline.config import load
    from evergreen.pipeline.create import create_pipeline

    # Offline: what tries to reach a host fails at once instead of waiting.
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    # urlopen keeps the proxies of its first call; later tests must not get these.
    monkeypatch.setattr(urllib.request, "_opener", None)
    config = load(project.config_file)
    pipeline = create_pipeline(config)
    assert "--runner=DirectRunner" in pipeline.beam_pipeline_args
    LocalDagRunner().run(pipeline)
    (version,) = project.versions()
    assert version["span"] == 2
    assert version["live"]
    assert 2 not in project.states()
