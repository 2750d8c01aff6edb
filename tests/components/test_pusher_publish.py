"""Publishing: what a server finds, what is refused, what a failure leaves behind."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from filelock import FileLock
from pusher_world import Project, make_model, tree

from evergreen.components import atomic
from evergreen.components.errors import ConfigError, EvergreenError, LockHeld, ModelRejected
from evergreen.components.pusher import catalog, publish, versions
from evergreen.components.pusher.manifest import MANIFEST_FILE, read_manifest


def in_child(call) -> int:
    """Runs a call in a fork, which may give up rights for good; returns the exit status that the call returns."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = call()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """Nothing here cuts the power; that the syncs are made is tested in test_atomic.py."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


def test_a_push_makes_a_pair_of_copies_with_manifests(project):
    outcome = project.push(1)
    assert (outcome.version, outcome.published, outcome.live) == (1001, True, True)
    assert outcome.path == project.base / "1001"
    source = tree(project.root / "models/1/Format-Serving")
    saved_model, lite = tree(project.base / "1001"), tree(project.lite / "1001")
    assert lite.pop(MANIFEST_FILE) == saved_model.pop(MANIFEST_FILE)
    assert saved_model == source
    assert lite == {"model.tflite": b"tflite 1"}
    manifest = read_manifest(outcome.path)
    assert (manifest.version, manifest.run, manifest.span, manifest.span_version) == (1001, "run-1", 1, 1)
    assert manifest.published == "1970-01-01T00:16:41Z"
    assert manifest.tflite == {"variant": "dynamic_int8", "bytes": len("tflite 1")}
    assert manifest.bytes == sum(map(len, source.values()))
    assert manifest.restores is None


def test_a_push_links_nothing_into_the_workspace(project):
    project.push(1)
    inodes = {p.stat().st_ino for p in (project.root / "models").rglob("*") if p.is_file()}
    for path in project.base.parent.rglob("*"):
        assert not path.is_symlink()
        assert path.stat().st_ino not in inodes


def test_a_manifest_that_came_with_the_model_is_replaced_and_other_extras_stay(project):
    extra = project.candidate(1).saved_model / "assets.extra"
    extra.mkdir()
    (extra / "evergreen.json").write_text("{}")
    (extra / "tf_serving_warmup_requests").write_text("rows")
    outcome = project.push(1)
    assert read_manifest(outcome.path).version == outcome.version
    assert (outcome.path / "assets.extra/tf_serving_warmup_requests").read_text() == "rows"


def test_a_model_without_a_quantized_one_has_no_pair(project):
    outcome = project.push(1, tflite=False)
    assert project.held() == ([1001], [])
    assert read_manifest(outcome.path).tflite is None
    assert not project.lite.exists()


def test_versions_rise_though_the_clock_falls_and_versions_go(project):
    first = project.push(1)
    project.now = 5.0
    second = project.push(2, keep=1)
    third = project.push(3, keep=1)
    for version in project.base.glob("[0-9]*"):
        atomic.remove(version)
    fourth = project.push(4)
    assert [o.version for o in (first, second, third, fourth)] == [1001, 1002, 1003, 1004]


def test_the_same_model_is_not_published_twice(project):
    first = project.push(1)
    before = tree(project.base.parent)
    again = project.push(1)
    assert (again.version, again.path, again.published, again.live) == (first.version, first.path, False, True)
    assert "published already" in again.message and "1001" in again.message
    assert tree(project.base.parent) == before


def test_a_model_that_is_on_disk_but_not_live_is_not_published_either(project):
    project.push(1)
    project.push(2)
    again = project.push(1)
    assert (again.version, again.published, again.live) == (1001, False, False)
    assert "1002 is live" in again.message


def test_a_workspace_made_anew_publishes_though_ids_repeat(project):
    project.push(1)
    anew = dataclasses.replace(project.candidate(1), model_created=999_999)
    outcome = publish.publish(project.base, anew, keep=3, now=lambda: 2000.0)
    assert outcome.published and outcome.version == 2000


def test_the_champion_is_checked_again(project):
    assert project.push(1, champion_model_uri="", examined_at=900.0).published
    uri = project.candidate(1).model_uri
    before = tree(project.base.parent)
    for wrong in ({"champion_model_uri": "/elsewhere"}, {"champion_model_uri": "", "examined_at": 1001.9}):
        with pytest.raises(ModelRejected, match="another model went live"):
            project.push(2, **wrong)
    assert tree(project.base.parent) == before
    assert project.push(2, champion_model_uri=uri).published
    assert project.push(3, champion_model_uri=None).published
    # The model itself is live: a push that was killed after its commit is adopted, not refused.
    assert not project.push(3, champion_model_uri=uri).published


def test_a_champion_that_ml_metadata_does_not_know_does_not_block_for_ever(project):
    """A workspace that was lost, or versions that somebody else put there."""
    make_model(project.base / "77")
    assert project.push(1, champion_model_uri="", examined_at=1000.5).published
    assert project.push(2, champion_model_uri="", examined_at=1002.0).published
    assert project.push(3, champion_model_uri="").published
    with pytest.raises(ModelRejected):
        project.push(4, champion_model_uri=project.candidate(2).model_uri)


def test_a_hold_refuses_until_it_is_released(project):
    project.push(1)
    hold = project.base / ".hold.json"
    hold.write_text(json.dumps({"reason": "Version 9 answered badly.", "since": "2024-05-01T00:00:00Z"}))
    with pytest.raises(ModelRejected) as caught:
        project.push(2)
    assert "2024-05-01" in caught.value.headline and caught.value.reason == "Version 9 answered badly."
    assert "evergreen release" in caught.value.next_step
    assert project.held() == ([1001], [1001])
    hold.unlink()
    assert project.push(2).published


def test_retention_keeps_pairs(project):
    for number in (1, 2, 3, 4):
        outcome = project.push(number, keep=2)
    assert project.held() == ([1003, 1004], [1003, 1004])
    assert outcome.removed == (1002,)
    assert not list(project.base.parent.rglob(".removed*"))


def test_retention_keeps_the_version_before_the_live_one_and_what_is_protected(project):
    """A rollback needs the one before; a label may point further back."""
    first, second, _, _ = (project.push(number, keep=9) for number in (1, 2, 3, 4))
    outcome = project.push(5, keep=1, protected=[first.version])
    assert project.held()[0] == [first.version, 1004, 1005]
    assert outcome.removed == (second.version, 1003)


def test_retention_keeps_the_only_tflite_version(project):
    project.push(1)
    for number in (2, 3, 4):
        project.push(number, tflite=False, keep=1)
    assert project.held() == ([1001, 1003, 1004], [1001])
    project.push(5, keep=1)
    assert project.held() == ([1004, 1005], [1005])


def test_retention_leaves_versions_of_others_alone(project):
    make_model(project.base / "77")
    make_model(project.lite / "78")
    (project.base / "500").mkdir()
    for number in (1, 2, 3):
        project.push(number, keep=1)
    assert project.held() == ([77, 500, 1002, 1003], [78, 1002, 1003])


def test_a_failure_in_retention_does_not_undo_the_push(project, monkeypatch):
    for number in (1, 2):
        project.push(number)

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(atomic, "remove", refuse)
    outcome = project.push(3, keep=1)
    assert outcome.published and outcome.removed == ()
    assert "next push" in outcome.warnings[0]
    monkeypatch.undo()
    assert project.push(4, keep=1).removed == (1001, 1002)


def test_recovery_removes_a_lone_tflite_version_and_leftovers(project):
    project.push(1)
    project.push(2)
    atomic.remove(project.base / "1002")  # as if killed between the two renames
    (project.base / ".staging-1003-1-ab" / "variables").mkdir(parents=True)
    (project.lite / ".removed-1000-1-ab").mkdir()
    done = publish.recover(project.base)
    assert len(done) == 3 and any("1002" in sentence for sentence in done)
    assert project.held() == ([1001], [1001])
    assert publish.recover(project.base) == []
    project.now = 0.0
    assert project.push(2).version == 1003  # a server may have seen 1002


def test_recovery_of_nothing_makes_nothing(project):
    assert publish.recover(project.base) == []
    assert not project.base.exists()


def test_tflite_versions_stay_where_the_base_path_is_not_mounted(project):
    project.push(1)
    project.base.rename(project.base.with_name("unmounted"))
    project.base.mkdir()
    publish.recover(project.base)
    assert list(versions.list_entries(project.lite)) == [1001]
    # A number that the TFLite base path knows is not given again.
    project.now = 0.0
    assert project.push(2).version == 1002


@pytest.mark.parametrize("file_limit", [500, 1500])
def test_a_full_disk_leaves_nothing_and_says_so(project, file_limit):
    """The kernel itself refuses a write in the middle of a file, as on a full disk."""
    project.push(1)
    candidate = project.candidate(2)
    before = tree(project.base.parent)

    def push_to_full_disk() -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
        try:
            publish.publish(project.base, candidate, keep=1)
        except EvergreenError as error:
            return 0 if "cannot publish into" in error.headline and "Free some space" in error.next_step else 2
        return 3

    assert in_child(push_to_full_disk) == 0
    assert tree(project.base.parent) == before
    assert not list(project.base.parent.rglob(".staging*"))


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EIO])
def test_a_refusal_at_the_commit_takes_the_tflite_version_back(project, monkeypatch, number):
    project.push(1)
    before = tree(project.base.parent)
    rename = os.rename

    def refuse(source, target):
        if Path(target).parent == project.base and Path(target).name.isdigit():
            raise OSError(number, os.strerror(number), str(target))
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(EvergreenError) as caught:
        project.push(2)
    assert os.strerror(number) in caught.value.reason and caught.value.next_step
    after = tree(project.base.parent)
    assert after.pop("flights/.highest-version") == b"1002\n"
    before.pop("flights/.highest-version")
    assert after == before


def test_a_base_path_that_is_a_file_is_one_clear_error(project, tmp_path):
    (tmp_path / "serving").mkdir()
    project.base.write_text("not a folder")
    with pytest.raises(EvergreenError, match="cannot publish into"):
        project.push(1)
    (tmp_path / "file").write_text("")
    with pytest.raises(EvergreenError, match="cannot publish into"):
        publish.publish(tmp_path / "file" / "below", project.candidate(1), keep=3)


def test_a_base_path_without_the_right_to_write_is_one_clear_error():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        project = Project(Path(folder))
        candidate = project.candidate(1)
        project.base.mkdir(parents=True)
        project.base.chmod(0o555)

        def push_as_nobody() -> int:
            if os.geteuid() == 0:  # root may write everywhere
                os.setgroups([])
                os.setuid(65534)
            try:
                publish.publish(project.base, candidate, keep=3)
            except EvergreenError as error:
                return 0 if "cannot publish into" in error.headline and "right to write" in error.next_step else 2
            return 3

        assert in_child(push_as_nobody) == 0
        assert list(project.base.iterdir()) == []


def test_wrong_input_is_refused_before_anything_is_written(project):
    empty = project.root / "empty"
    empty.mkdir()
    for candidate, keep in (
        (dataclasses.replace(project.candidate(1), saved_model=empty), 3),
        (dataclasses.replace(project.candidate(1), tflite=empty / "model.tflite"), 3),
        (project.candidate(1), 0),
    ):
        with pytest.raises(ConfigError):
            publish.publish(project.base, candidate, keep=keep)
    assert not project.base.parent.exists()


def test_a_relative_base_path_is_meant_from_the_current_folder(project, monkeypatch):
    monkeypatch.chdir(project.root)
    outcome = publish.publish("out/flights", project.candidate(1), keep=3, now=lambda: 7.0)
    assert outcome.path == project.root / "out/flights/7"
    assert (project.root / "out/flights_lite/7/model.tflite").is_file()


def test_a_push_waits_for_another_and_gives_up_with_its_own_error(project):
    project.push(1)
    with FileLock(str(project.base / ".publish.lock")), pytest.raises(LockHeld):
        project.push(2, lock_seconds=0.1)
    assert project.push(2).published


def test_processes_that_push_at_once_get_versions_of_their_own(project):
    script = (
        "import sys; from pathlib import Path; from evergreen.components.pusher import publish\n"
        "n, base, model = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])\n"
        "c = publish.Candidate(model, n, str(n), 'flights', 'run', 1)\n"
        "print(publish.publish(base, c, keep=9, now=lambda: 50.0).version)"
    )
    model = project.candidate(1).saved_model
    processes = [
        subprocess.Popen([sys.executable, "-c", script, str(n), project.base, model], stdout=subprocess.PIPE)
        for n in range(4)
    ]
    numbers = sorted(int(process.communicate(timeout=60)[0]) for process in processes)
    assert numbers == [50, 51, 52, 53]
    for number in numbers:
        copied = tree(project.base / str(number))
        del copied[MANIFEST_FILE]
        assert copied == tree(model)


def test_a_server_that_looks_all_the_time_sees_whole_versions_only(project):
    """Polls as a server does while 25 versions come and go; whatever appears is whole at first sight."""
    stop = threading.Event()
    seen, broken = set(), []
    names = set(tree(project.candidate(1).saved_model)) | {MANIFEST_FILE}

    def poll():
        while not stop.is_set():
            entries = versions.list_entries(project.base)
            if not entries:
                continue
            newest = max(entries)
            if newest not in seen:
                seen.add(newest)
                # Two pushes later it may be gone, if this thread had to wait for them.
                if set(tree(entries[newest])) != names and newest in versions.list_entries(project.base):
                    broken.append(newest)

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        for number in range(1, 26):
            project.push(number, keep=2)
    finally:
        stop.set()
        thread.join()
    assert broken == [] and len(seen) > 5


def test_the_catalog_lists_what_a_base_path_holds(project):
    assert catalog.list_versions(project.base) == []
    make_model(project.base / "77")
    (project.base / "99999").write_text("a file that is named like a version")
    first, second = project.push(1), project.push(2, tflite=False)
    records = catalog.list_versions(project.base)
    assert [r.version for r in records] == [100001, 100000, 99999, 77]
    newest, older, file, foreign = records
    assert (newest.version, newest.live, newest.run, newest.span) == (second.version, True, "run-2", 2)
    assert (newest.metrics, newest.champion_on_span) == ({"auc": 0.62}, {"auc": 0.6})
    assert newest.bytes == sum(map(len, tree(project.candidate(2).saved_model).values()))
    assert (newest.tflite_bytes, newest.tflite_variant, newest.problem) == (None, None, None)
    assert (older.version, older.live, older.published) == (first.version, False, "1970-01-01T00:16:41Z")
    assert (older.tflite_bytes, older.tflite_variant) == (len("tflite 1"), "dynamic_int8")
    assert (file.live, file.problem) == (False, catalog.INCOMPLETE)
    assert (foreign.live, foreign.problem, foreign.run) == (False, catalog.FOREIGN, None)
    assert json.loads(json.dumps([dataclasses.asdict(r) for r in records]))[0]["version"] == 100001


def test_the_catalog_names_a_broken_manifest_and_goes_on(project):
    project.push(1)
    outcome = project.push(2)
    (outcome.path / MANIFEST_FILE).write_text("{}")
    record = catalog.list_versions(project.base)[0]
    assert record.live and MANIFEST_FILE in record.problem
    with pytest.raises(EvergreenError, match="manifest"):
        catalog.live_manifest(project.base)
    assert project.push(3).published


def test_the_live_manifest_names_the_champion(project):
    assert catalog.live_manifest(project.base) is None
    project.push(1)
    assert catalog.live_manifest(project.base).model_artifact_id == 1
    project.push(2)
    assert catalog.live_manifest(project.base).model_uri == project.candidate(2).model_uri
    make_model(project.base / "999999")
    assert catalog.live_manifest(project.base) is None


def test_nothing_here_imports_tensorflow_beam_or_tfx():
    code = (
        "import sys; from evergreen.components.pusher import catalog, manifest, publish, versions;"
        "print([m for m in ('tensorflow', 'apache_beam', 'tfx', 'ml_metadata', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
