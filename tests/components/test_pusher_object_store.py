"""Publishing into an object store, on TensorFlow's file system in memory: the graph last, deleted first."""

from __future__ import annotations

import dataclasses
import json

import pytest
from pusher_world import Project

from evergreen.components.errors import ConfigError, EvergreenError, ModelRejected
from evergreen.components.pusher import catalog, hold, publish, rollback, versions
from evergreen.components.pusher.manifest import MANIFEST_FILE

pytestmark = pytest.mark.tensorflow


class Remote(Project):
    """A workspace on disk, and a base path in memory."""

    def __init__(self, root, name):
        super().__init__(root)
        self.base = f"ram://{name}/flights"
        self.lite = f"ram://{name}/flights_lite"

    def held(self):
        from evergreen.components.pusher.objects import ObjectStore

        store = ObjectStore(self.base)
        return list(store.entries(store.base)), list(store.entries(store.lite))

    def files(self, uri):
        from evergreen.components.pusher.objects import ObjectStore

        store = ObjectStore(self.base)
        return {name: store.read(f"{uri}/{name}") for name in store.files(uri)}


@pytest.fixture
def project(tmp_path):
    return Remote(tmp_path, tmp_path.name)


class Killed(BaseException):
    """Stands for the end of the process: nothing behind it runs."""


@pytest.fixture
def written(monkeypatch):
    """Every object that is written or deleted, in order; `written.stop_at` ends the process before the n-th."""
    import tensorflow as tf

    class Written(list):
        stop_at = 0

        def note(self, what):
            self.append(what)
            if len(self) == self.stop_at:
                raise Killed

    done, gfile = Written(), tf.io.gfile
    copy, remove, opened = gfile.copy, gfile.remove, gfile.GFile

    def noted_copy(source, target, **_):
        done.note(("write", target))
        copy(source, target)

    def noted_remove(path):
        done.note(("remove", path))
        remove(path)

    def noted_open(path, mode="r"):
        if "w" in mode:
            done.note(("write", path))
        return opened(path, mode)

    monkeypatch.setattr(gfile, "copy", noted_copy)
    monkeypatch.setattr(gfile, "remove", noted_remove)
    monkeypatch.setattr(gfile, "GFile", noted_open)
    return done


def local_files(path):
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_a_push_writes_the_pair_first_and_the_graph_last(project, written):
    candidate = dataclasses.replace(project.candidate(1), warm_up=b"requests")
    outcome = publish.publish(project.base, candidate, keep=3, now=lambda: 1001.0)
    assert (outcome.version, outcome.path, outcome.published, outcome.live) == (
        1001,
        f"{project.base}/1001",
        True,
        True,
    )
    order = [path for what, path in written if what == "write"]
    assert order[-1] == f"{project.base}/1001/saved_model.pb"
    assert order[1:3] == [f"{project.lite}/1001/{name}" for name in (MANIFEST_FILE, "model.tflite")]
    assert order[3] == f"{project.base}/1001/{MANIFEST_FILE}"
    files = project.files(f"{project.base}/1001")
    assert files.pop(versions.WARMUP_FILE) == b"requests"
    assert json.loads(files.pop(MANIFEST_FILE))["run"] == "run-1"
    assert files == local_files(candidate.saved_model)
    assert project.files(f"{project.lite}/1001")["model.tflite"] == b"tflite 1"
    assert catalog.live_manifest(project.base).model_artifact_id == 1
    assert catalog.version_manifest(outcome.path).version == 1001


def test_nothing_is_overwritten(project, written):
    for number in (1, 2, 3, 4, 5):
        project.push(number, keep=2)
    publish.withdraw(project.base, 1005, "It does not load.")
    there = set()
    for what, path in written:
        assert what == "remove" or path not in there, path
        (there.add if what == "write" else there.discard)(path)


def test_the_same_rules_hold_as_on_a_file_system(project):
    first = project.push(1)
    again = project.push(1)
    assert (again.version, again.published) == (first.version, False)
    with pytest.raises(ModelRejected, match="another model went live"):
        project.push(2, champion_model_uri="/elsewhere")
    for number in (2, 3, 4):
        outcome = project.push(number, keep=1)
    before, live = project.held()[0]
    assert project.held()[0] == project.held()[1] and outcome.version == live and max(outcome.removed) < before
    project.now = 0.0
    assert project.push(5).version == live + 1
    newest, *_ = catalog.list_versions(project.base)
    assert (newest.live, newest.run, newest.tflite_variant, newest.problem) == (True, "run-5", "dynamic_int8", None)
    assert newest.tflite_bytes == len("tflite 5")


def test_a_new_version_without_a_tflite_model_takes_the_earlier_ones_away(project):
    project.push(1)
    without = dataclasses.replace(project.candidate(2, tflite=False), withdraw_tflite=True)
    publish.publish(project.base, without, keep=3, now=lambda: 2000.0)
    assert project.held() == ([1001, 2000], [])


def test_a_withdrawn_version_is_kept_aside(project):
    project.push(1)
    project.push(2)
    files = project.files(f"{project.base}/1002")
    kept = publish.withdraw(project.base, 1002, "It answered with NaN.")
    assert kept == f"{project.base}/withdrawn-1002" and project.files(kept) == files
    assert project.held() == ([1001], [1001])
    gone, live = catalog.list_versions(project.base)
    assert (gone.version, gone.withdrawn, live.version, live.live) == (1002, "It answered with NaN.", 1001, True)
    with pytest.raises(ModelRejected, match="withdrawn"):
        project.push(2)
    with pytest.raises(ConfigError, match="no version 7"):
        publish.withdraw(project.base, 7, "")
    project.now = 0.0
    assert project.push(3).version == 1003
    for number in (4, 5):
        project.push(number, keep=2)
    assert [record.version for record in catalog.list_versions(project.base)] == [1005, 1004]


def test_a_rollback_restores_and_holds(project):
    project.push(1)
    project.push(2)
    done = rollback.roll_back(project.base, now=lambda: 2000.0)
    assert (done.version, done.restores, done.was_live) == (2000, 1001, 1002)
    assert project.held() == ([1001, 1002, 2000], [1001, 1002, 2000])
    assert project.files(f"{project.lite}/2000")["model.tflite"] == b"tflite 1"
    assert catalog.live_manifest(project.base).model_artifact_id == 1
    assert "restores version 1001" in versions.read_hold(project.base).reason
    with pytest.raises(ModelRejected, match="held"):
        project.push(3)
    with pytest.raises(ConfigError, match="holds the same model"):
        rollback.roll_back(project.base, 1001)
    assert hold.release(project.base).since == "1970-01-01T00:33:20Z"


def test_a_hold_is_kept_and_released(project):
    from evergreen.components.pusher.objects import ObjectStore

    project.push(1)
    ObjectStore(project.base).write(f"{project.base}/.hold.json", b'{"reason": "A person said so."}')
    with pytest.raises(ModelRejected) as caught:
        project.push(2)
    assert caught.value.reason == "A person said so."
    assert versions.read_hold(project.base).reason == "A person said so."
    assert hold.release(project.base).reason == "A person said so."
    assert hold.release(project.base) is None and project.push(2).published


@pytest.mark.parametrize("action", ["push", "rollback", "withdraw"])
def test_ended_at_any_write_the_earlier_version_stays_live_and_the_rest_is_swept(tmp_path, written, action):
    """What a server would load is whole: with its graph, a version has everything else."""
    stop, ended = 0, False
    live = set()
    while not ended:
        stop += 1
        project = Remote(tmp_path, f"{tmp_path.name}-{action}-{stop}")
        project.push(1)
        project.push(2)
        written.clear()
        written.stop_at = stop
        try:
            if action == "push":
                project.push(3, keep=2)
            elif action == "rollback":
                rollback.roll_back(project.base, now=lambda: 1003.0)
            else:
                publish.withdraw(project.base, 1002, "It does not load.")
            ended = True
        except Killed:
            pass
        written.stop_at = 0
        for record in catalog.list_versions(project.base):
            if record.problem is None and record.withdrawn is None:
                names = set(project.files(record.path))
                assert names == {*local_files(project.candidate(record.span).saved_model), MANIFEST_FILE}
        before = max(r.version for r in catalog.list_versions(project.base) if r.problem is None)
        publish.recover(project.base)
        assert project.held()[0] == project.held()[1]
        records = catalog.list_versions(project.base)
        assert all(record.problem is None for record in records)
        assert next(record.version for record in records if record.live) in (before, 1001)
        now_live = next(record.version for record in records if record.live)
        assert (versions.read_hold(project.base) is not None) is (action == "rollback" and now_live == 1003)
        live.add(now_live)
    assert live == ({1001, 1002} if action == "withdraw" else {1002, 1003}) and stop > 5


def test_a_scheme_that_tensorflow_does_not_know_is_one_clear_error(tmp_path):
    with pytest.raises(ConfigError, match="TensorFlow cannot read nosuch://bucket/flights"):
        catalog.list_versions("nosuch://bucket/flights")


def test_what_the_store_refuses_is_one_clear_error(project, monkeypatch):
    import tensorflow as tf

    def refuse(*_, **__):
        raise tf.errors.PermissionDeniedError(None, None, "403: no access to the bucket")

    monkeypatch.setattr(tf.io.gfile, "copy", refuse)
    with pytest.raises(EvergreenError, match="cannot publish into") as caught:
        project.push(1)
    assert "403" in caught.value.reason and "credentials" in caught.value.next_step
