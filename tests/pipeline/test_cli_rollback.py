"""`evergreen rollback` and `evergreen release`: what they do, print, and leave in ML Metadata."""

from __future__ import annotations

import json
import os
import signal

import pytest
from project_world import YAML
from pusher_world import Project

from evergreen.components.model_server.process import free_port
from evergreen.components.pusher import placing, publish, rollback, versions
from evergreen.components.pusher.manifest import read_manifest
from evergreen.components.span_records import property_value
from evergreen.pipeline import cli, config, recovery
from evergreen.pipeline.store import Result, State, Store


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "evergreen.yaml").write_text(YAML)
    monkeypatch.chdir(tmp_path)
    project = Project(tmp_path)
    for number in (1, 2):
        project.push(number)
    return project


def run(capsys, *arguments):
    status = cli.main(arguments)
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def store_of(project):
    loaded = config.load(project.root / "evergreen.yaml")
    return loaded, Store(loaded.connection, loaded.name)


def test_back_and_on_again(project, capsys):
    status, text = run(capsys, "rollback")
    live = versions.live_version(project.base)
    assert status == 0, text
    assert f"live was version 1002; now version {live} restores version 1001" in text
    assert "evergreen release" in text
    _, text = run(capsys, "versions")
    assert "restores 1001" in text and "publishing is held since" in text
    _, text = run(capsys, "status")
    assert f"version {live}, published" in text and "to restore version 1001" in text
    assert "held     publishing is held since" in text
    status, text = run(capsys, "release")
    assert status == 0 and "released; publishing was held since" in text and "restores version 1001" in text
    status, text = run(capsys, "release")
    assert (status, text) == (0, f"nothing holds publishing into {project.base}\n")
    assert "held" not in run(capsys, "status")[1]


def test_a_plan_says_that_nothing_will_be_published(project, capsys):
    for span in (1, 2, 3):
        (project.root / "data" / str(span)).mkdir(parents=True)
        (project.root / "data" / str(span) / "rows.parquet").write_bytes(b"rows")
    (project.root / "schema.pbtxt").write_text('feature { name: "late" type: INT }')
    (project.root / "features.py").write_text("def preprocessing_fn(inputs): ...")
    (project.root / "model.py").write_text("def build_model(output, hyperparameters): ...")
    status, text = run(capsys, "plan")
    assert status == 0 and "span 3 is new" in text and "held" not in text, text
    run(capsys, "rollback")
    text = run(capsys, "plan")[1]
    assert "publishing is held, nothing will be published before `evergreen release`" in text


def test_for_programs(project, capsys):
    done = json.loads(run(capsys, "rollback", "--to", "1001", "--json")[1])
    assert (done["restores"], done["was_live"], done["held"]) == (1001, 1002, True)
    assert json.loads(run(capsys, "status", "--json")[1])["held"]["since"]
    assert json.loads(run(capsys, "release", "--json")[1])["released"] is True
    assert json.loads(run(capsys, "release", "--json")[1]) == {"released": False, "reason": None, "since": None}


def test_what_is_refused_exits_2_and_leaves_no_trace(project, capsys):
    status, text = run(capsys, "rollback", "--to", "7")
    assert status == 2 and "version 7 cannot be restored" in text and "1001, 1002" in text
    assert not (project.root / ".evergreen" / "metadata.db").exists()


def test_a_withdrawn_version_is_listed_with_its_reason(project, capsys):
    publish.withdraw(project.base, 1002, "It answered with NaN.")
    *_, newest, older = run(capsys, "versions")[1].splitlines()
    assert newest.split()[:2] == ["1002", "withdrawn"] and newest.rstrip().endswith("It answered with NaN.")
    assert older.split()[:2] == ["1001", "live"]
    newest, _ = json.loads(run(capsys, "versions", "--json")[1])
    assert (newest["withdrawn"], newest["live"], newest["run"]) == ("It answered with NaN.", False, "run-2")
    assert newest["tflite_variant"] == "dynamic_int8"


def test_ml_metadata_knows_the_rollback(project, capsys):
    run(capsys, "rollback")
    _, store = store_of(project)
    (found,) = store.runs(stages=True)
    live = versions.live_version(project.base)
    assert (found.trigger, found.result, found.pushed_version) == ("rollback", Result.ROLLED_BACK, live)
    assert (found.span, found.label) == (None, "1"), "it is no run on a span, and must not count as one"
    (stage,) = found.stages
    assert (stage.node, stage.state) == ("Rollback", State.DONE)
    (pushed,) = store.outputs(stage.execution_id)["pushed_model"]
    assert property_value(pushed, "pushed_version") == str(live)
    assert property_value(pushed, "restores") == 1001
    assert read_manifest(project.base / str(live)).pushed_by == str(stage.execution_id)
    assert "rolled back" in run(capsys, "runs")[1]


def test_a_rollback_that_fails_is_a_run_that_failed(project, capsys, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rollback, "put", refuse)
    status, text = run(capsys, "rollback")
    assert status == 1 and "cannot roll back in" in text
    (found,) = store_of(project)[1].runs(stages=True)
    assert (found.result, found.stages[0].state) == (Result.FAILED, State.FAILED)
    assert versions.live_version(project.base) == 1002


def test_without_ml_metadata_it_is_done_all_the_same(project, capsys):
    (project.root / ".evergreen").mkdir()
    (project.root / ".evergreen" / "metadata.db").write_text("not a database " * 100)
    status, text = run(capsys, "rollback")
    assert status == 0 and "ML Metadata does not know of this rollback" in text
    assert read_manifest(project.base / str(versions.live_version(project.base))).restores == 1001


@pytest.mark.parametrize("moment", ["before the commit", "after the commit"])
def test_a_rollback_that_was_killed_is_put_right_by_the_next_start(project, moment):
    child = os.fork()
    if child == 0:
        commit = placing.atomic.commit

        def killed(staging, target):
            if target.parent == project.base and moment == "before the commit":
                os.kill(os.getpid(), signal.SIGKILL)
            commit(staging, target)
            if target.parent == project.base:
                os.kill(os.getpid(), signal.SIGKILL)

        placing.atomic.commit = killed
        cli.main(["rollback"])
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    loaded, store = store_of(project)
    assert store.runs()[0].result is Result.RUNNING
    found = recovery.recover(loaded, store)
    live = versions.live_version(project.base)
    (recorded,) = store.runs(stages=True)
    if moment == "before the commit":
        assert live == 1002 and versions.read_hold(project.base) is None
        assert (recorded.result, recorded.stages[0].state) == (Result.KILLED, State.FAILED)
    else:
        assert live > 1002 and versions.read_hold(project.base).reason
        assert (recorded.result, recorded.pushed_version) == (Result.ROLLED_BACK, live)
        assert found.adopted == {recorded.id: live}
        assert property_value(store.outputs(recorded.stages[0].execution_id)["pushed_model"][0], "restores") == 1001
    assert not recovery.recover(loaded, store)


def test_labels_that_no_server_takes_keep_no_rollback_from_being_done(project, capsys):
    (project.root / "models.config").write_text('model_config_list { config { name: "flights" base_path: "/b" } }')
    port = free_port()
    sets = (f"publish.server=127.0.0.1:{port}", "publish.models_config=models.config", "publish.watch.timeout=1")
    status, text = run(capsys, "rollback", *(part for one in sets for part in ("--set", one)))
    live = versions.live_version(project.base)
    assert status == 0 and f"now version {live} restores version 1001" in text
    assert "warning The labels stay where they are: 127.0.0.1" in text
    assert "version_labels" not in (project.root / "models.config").read_text()
