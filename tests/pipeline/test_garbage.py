"""What may be removed and what may not; and what is cut off between the record and the files."""

from __future__ import annotations

import dataclasses
import os

import pytest
from schedule_world import project

from evergreen.components.span_records import SpanRecord
from evergreen.pipeline import cli, garbage
from evergreen.pipeline import config as configuration
from evergreen.pipeline.garbage import needless
from evergreen.pipeline.store import Result, Run, Stage, State, Store


def run(number: int, result: Result = Result.PUBLISHED) -> Run:
    stages = (
        Stage("SpanExampleGen", State.DONE, number * 10, 1.0, 1),
        Stage("Trainer", State.DONE, number * 10 + 1, 1, 1),
    )
    return Run(f"r{number}", number, 0, str(number), result, "", "cron", 1, number, 0, 0, stages=stages)


def record(span: int, examples: int) -> SpanRecord:
    return SpanRecord(span, 0, True, 100, (), f"c{span}.q{span}", examples, 0, 0, span)


# Run n makes examples n00, and model, graph, training files and cache n01 to n04, n05 is a verdict.
RUNS = [run(number) for number in range(1, 9)]
OUTPUTS = {r.stages[0].execution_id: [n * 100, n * 100 + 5] for n, r in enumerate(RUNS, 1)} | {
    r.stages[1].execution_id: [n * 100 + k for k in (1, 2, 3, 4)] for n, r in enumerate(RUNS, 1)
}
KINDS = {0: "Examples", 1: "Model", 2: "TransformGraph", 3: "ModelRun", 4: "TransformCache", 5: "ExampleAnomalies"}
CANDIDATES = {n * 100 + k: kind for n in range(1, 9) for k, kind in KINDS.items()}
RECORDS = [record(n, n * 100) for n in range(1, 9)]


def gone(models=(401, 801), window: int = 3, runs=RUNS) -> list[int]:
    return needless(CANDIDATES, runs, OUTPUTS, RECORDS, models, window)


def test_examples_of_old_spans_go_and_those_of_the_window_stay():
    assert [one for one in gone() if CANDIDATES[one] == "Examples"] == [100, 200, 300, 400]


def test_what_published_versions_rest_on_stays():
    found = gone()
    assert not {401, 402, 403, 404} & set(found)
    assert {301, 302, 303, 304, 501, 601} <= set(found)


def test_the_last_runs_stay_whole_although_they_published_nothing():
    assert not [one for one in gone(models=()) if one >= 700]


def test_a_run_that_goes_on_stays_whole():
    runs = [dataclasses.replace(r, result=Result.RUNNING) if r.id == "r2" else r for r in RUNS]
    assert not {201, 202, 203, 204} & set(gone(runs=runs))


def test_verdicts_always_stay():
    assert not [one for one in gone(models=()) if CANDIDATES[one] == "ExampleAnomalies"]


def test_the_newest_analyzer_caches_stay_where_later_runs_made_none():
    without = {execution: [one for one in ids if one % 100 != 4 or one < 600] for execution, ids in OUTPUTS.items()}
    candidates = {one: kind for one, kind in CANDIDATES.items() if kind != "TransformCache" or one < 600}
    found = needless(candidates, RUNS, without, RECORDS, (), 3)
    assert 504 not in found and 404 not in found
    assert 304 in found


@pytest.fixture
def config(tmp_path):
    """A project with three old transform graphs in ML Metadata, each of 1,000 bytes."""
    from ml_metadata.proto import metadata_store_pb2 as pb

    loaded = configuration.load(project(tmp_path))
    mlmd = Store(loaded.connection, loaded.name).mlmd
    kind = mlmd.put_artifact_type(pb.ArtifactType(name="TransformGraph"))
    for number in (1, 2, 3):
        folder = loaded.pipeline_root / "Transform" / "transform_graph" / str(number)
        folder.mkdir(parents=True)
        (folder / "graph").write_bytes(b"x" * 1000)
        mlmd.put_artifacts([pb.Artifact(type_id=kind, uri=str(folder), state=pb.Artifact.LIVE)])
    return loaded


def states(config) -> list[int]:
    return [a.state for a in Store(config.connection, config.name).mlmd.get_artifacts()]


def command(capsys, config, *arguments: str) -> str:
    assert cli.main(["gc", "-c", str(config.file), *arguments]) == 0
    return capsys.readouterr().out


def test_nothing_is_removed_unless_that_is_asked_for(config, capsys):
    assert "3 kB could be removed" in command(capsys, config)
    assert states(config) == [2, 2, 2]
    assert len(os.listdir(config.pipeline_root / "Transform" / "transform_graph")) == 3


def test_records_stay_and_are_marked(config, capsys):
    assert "removed" in command(capsys, config, "--delete")
    assert states(config) == [4, 4, 4]
    assert os.listdir(config.pipeline_root / "Transform" / "transform_graph") == []
    assert "nothing to remove" in command(capsys, config)


def test_what_was_cut_off_is_finished(config, capsys, monkeypatch):
    store = Store(config.connection, config.name)
    with monkeypatch.context() as patched:
        patched.setattr(garbage.shutil, "rmtree", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            garbage.remove(store, garbage.find(config, store))
    assert states(config) == [4, 4, 4]
    command(capsys, config, "--delete")
    assert os.listdir(config.pipeline_root / "Transform" / "transform_graph") == []


def test_what_lies_elsewhere_is_not_ours_to_remove(config, capsys, tmp_path):
    from ml_metadata.proto import metadata_store_pb2 as pb

    mlmd = Store(config.connection, config.name).mlmd
    (tmp_path / "elsewhere").mkdir()
    kind = mlmd.get_artifact_type("TransformGraph").id
    mlmd.put_artifacts([pb.Artifact(type_id=kind, uri=str(tmp_path / "elsewhere"), state=pb.Artifact.LIVE)])
    command(capsys, config, "--delete")
    assert (tmp_path / "elsewhere").exists()
    assert states(config)[-1] == 2
