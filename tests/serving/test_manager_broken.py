"""Broken versions beside good ones: the good one answers, the status says what is wrong, and mended ones are served."""

import itertools
import os
import shutil
import threading
import time

import pytest
from google.protobuf import text_format
from manager_world import LONG_S, X, config, managing, publish, served, states, wait, wait_for
from tensorflow_serving.config import model_server_config_pb2

from evergreen.serving.errors import ServingError, invalid

pytestmark = pytest.mark.tensorflow
WARM_UP = "assets.extra/tf_serving_warmup_requests"


def cut(file, part=0.5):
    os.truncate(file, int(file.stat().st_size * part))


def flip(file):
    """Changes a byte in the middle of a file."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(bytes(data))


def put(file, data):
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(data)


def as_file(folder):
    shutil.rmtree(folder)
    folder.write_text("")


def other_tags(folder):
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    model.meta_graphs[0].meta_info_def.tags[:] = ["train"]
    (folder / "saved_model.pb").write_bytes(model.SerializeToString())


def with_asset(folder):
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    model.meta_graphs[0].asset_file_def.add(filename="words.txt").tensor_info.name = "Const:0"
    (folder / "saved_model.pb").write_bytes(model.SerializeToString())


DATA = "variables.data-00000-of-00001"
# Name: how a good version becomes a broken one, what the status says, its code.
BROKEN = {
    "no pb": (lambda v: (v / "saved_model.pb").unlink(), "it has no saved_model.pb", "NOT_FOUND"),
    "truncated pb": (lambda v: cut(v / "saved_model.pb"), "saved_model.pb is cut short", "DATA_LOSS"),
    "empty pb": (lambda v: cut(v / "saved_model.pb", 0), "no meta graph tagged 'serve'", "NOT_FOUND"),
    "other tags": (other_tags, r"no meta graph tagged 'serve'.*'train'", "NOT_FOUND"),
    "no index": (lambda v: (v / "variables/variables.index").unlink(), "variables.index is missing", "NOT_FOUND"),
    "no variables": (lambda v: shutil.rmtree(v / "variables"), "variables.index is missing", "NOT_FOUND"),
    "empty index": (lambda v: cut(v / "variables/variables.index", 0), "variables.index is empty", "DATA_LOSS"),
    "truncated index": (lambda v: cut(v / "variables/variables.index"), "variables cannot be read: ", "DATA_LOSS"),
    "no data": (lambda v: (v / "variables" / DATA).unlink(), f"{DATA} is missing", "NOT_FOUND"),
    "truncated data": (lambda v: cut(v / "variables" / DATA, 0), "variables cannot be read: ", "OUT_OF_RANGE"),
    "changed data": (lambda v: flip(v / "variables" / DATA), "variables cannot be read: ", "DATA_LOSS"),
    "no asset": (with_asset, r"assets/words\.txt is missing", "NOT_FOUND"),
    "wrong warm-up": (lambda v: put(v / WARM_UP, b"no requests"), "warm-up request 0 is wrong", "INVALID_ARGUMENT"),
    "empty directory": (lambda v: (shutil.rmtree(v), v.mkdir()), "it has no saved_model.pb", "NOT_FOUND"),
    "a file": (as_file, "is a file; a version is a directory", "NOT_FOUND"),
}


def warm_up(model):
    if (model.path / WARM_UP).exists():
        raise invalid("warm-up request 0 is wrong")


@pytest.fixture(scope="module")
def broken(tf2, tmp_path_factory):
    """One manager of a model for each kind: version 1 is good, version 7 is broken and came while 1 answered."""
    base = tmp_path_factory.mktemp("broken")
    wanted = model_server_config_pb2.ModelServerConfig()
    for kind in BROKEN:
        publish(tf2, base / kind, 1)
        wanted.model_config_list.config.add(name=kind, base_path=str(base / kind), model_platform="tensorflow")
    with managing(wanted, warm_up=warm_up, max_num_load_retries=0) as manager:
        for kind, (damage, *_) in BROKEN.items():
            wait_for(manager, {1: "AVAILABLE"}, kind)
            staged = publish(tf2, base / kind / "aside", 7)
            damage(staged)
            os.rename(staged, base / kind / "7")
        yield manager, base


def status(manager, kind, version):
    return next((one for one in manager.status(kind) if one.version == version), None)


@pytest.mark.parametrize("kind", BROKEN)
def test_the_good_version_answers_and_the_status_says_what_is_wrong(broken, kind):
    manager, base = broken
    _, words, code = BROKEN[kind]
    wait(lambda: status(manager, kind, 7) and status(manager, kind, 7).state == "END")
    found = status(manager, kind, 7)
    assert found.code.name == code, found
    with pytest.raises(ServingError, match=words):
        raise ServingError(found.code, found.message)
    assert str(base / kind / "7") in found.message or "warm-up" in found.message
    with manager.lease(kind) as model:
        assert model.version == 1 and len(model.run("raw", X)["y"]) == 1
    with pytest.raises(ServingError, match="not found for request"), manager.lease(kind, version=7):
        pass


@pytest.mark.parametrize("kind", ["no pb", "truncated data", "wrong warm-up", "a file"])
def test_a_server_that_starts_beside_a_broken_version_serves_the_good_one(broken, kind):
    _, base = broken
    with managing(config(base / kind), warm_up=warm_up, max_num_load_retries=5) as manager:
        wait(lambda: states(manager).get(1) == "AVAILABLE")
        assert served(manager) == 1
        assert status(manager, "m", 7).code.name == BROKEN[kind][2]


def test_without_warm_up_nobody_reads_its_file(broken):
    _, base = broken
    with managing(config(base / "wrong warm-up"), warm_up=warm_up, enable_model_warmup=False) as manager:
        wait_for(manager, {7: "AVAILABLE"})


def test_a_version_that_is_copied_slowly_is_served_when_it_is_whole(tf2, tmp_path):
    publish(tf2, tmp_path / "m", 1)
    with managing(config(tmp_path / "m")) as manager:
        wait_for(manager, {1: "AVAILABLE"})
        target = tmp_path / "m" / "2"
        # The order of `cp -r` on many file systems, a file at a time and a large one in pieces.
        for name in ("saved_model.pb", "fingerprint.pb", f"variables/{DATA}", "variables/variables.index"):
            data = (tf2 / name).read_bytes()
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            for size in (len(data) // 2, len(data)):
                (target / name).write_bytes(data[:size])
                time.sleep(0.3)
                assert served(manager) in (1, 2)
        wait_for(manager, {2: "AVAILABLE", 1: "END"})
        assert served(manager) == 2


def test_a_failed_load_is_tried_again_as_often_as_asked_for(tf2, tmp_path):
    publish(tf2, tmp_path / "m", 1)
    tries = []

    def warm_up_later(model):
        if model.version == 2:
            tries.append(time.monotonic())
            if len(tries) < 3:
                raise invalid(f"try {len(tries)}")

    options = {"max_num_load_retries": 2, "load_retry_interval_micros": 300_000}
    with managing(config(tmp_path / "m"), warm_up=warm_up_later, **options) as manager:
        wait_for(manager, {1: "AVAILABLE"})
        publish(tf2, tmp_path / "m", 2)
        wait(lambda: len(tries) == 1 and status(manager, "m", 2).code.name == "INVALID_ARGUMENT")
        assert status(manager, "m", 2).state == "LOADING"  # it is not over
        assert served(manager) == 1
        wait_for(manager, {2: "AVAILABLE", 1: "END"})
        assert status(manager, "m", 2).code.name == "OK"
    assert len(tries) == 3 and all(later - before > 0.3 for before, later in itertools.pairwise(tries))


def test_a_newer_version_does_not_wait_for_the_tries_of_a_broken_one(tf2, tmp_path):
    publish(tf2, tmp_path / "m", 1)

    def refuse_two(model):
        if model.version == 2:
            raise invalid("no")

    with managing(config(tmp_path / "m"), warm_up=refuse_two) as manager:  # the next try is a minute away
        wait_for(manager, {1: "AVAILABLE"})
        publish(tf2, tmp_path / "m", 2)
        wait(lambda: status(manager, "m", 2) and status(manager, "m", 2).code.name == "INVALID_ARGUMENT")
        publish(tf2, tmp_path / "m", 3)
        wait_for(manager, {3: "AVAILABLE", 2: "END", 1: "END"})
        shutil.rmtree(tmp_path / "m" / "3")
        wait_for(manager, {3: "END", 2: "END", 1: "AVAILABLE"})


def test_a_slow_load_of_one_model_does_not_hold_up_another(tf2, tmp_path):
    held = threading.Event()
    two = text_format.Parse("model_config_list {}", model_server_config_pb2.ModelServerConfig())
    for name in ("slow", "m"):
        publish(tf2, tmp_path / name, 1)
        two.model_config_list.config.add(name=name, base_path=str(tmp_path / name), model_platform="tensorflow")

    def hold(model):
        assert model.name != "slow" or held.wait(LONG_S)

    with managing(two, warm_up=hold) as manager:
        wait_for(manager, {1: "AVAILABLE"})
        assert states(manager, "slow") == {1: "LOADING"}
        held.set()
        wait_for(manager, {1: "AVAILABLE"}, "slow")


def test_a_version_that_comes_back_is_loaded_anew(tf2, tmp_path):
    publish(tf2, tmp_path / "m", 1)
    with managing(config(tmp_path / "m"), max_num_load_retries=0) as manager:
        wait_for(manager, {1: "AVAILABLE"})
        (tmp_path / "m" / "2").mkdir()
        wait_for(manager, {2: "END", 1: "AVAILABLE"})
        (tmp_path / "m" / "2").rmdir()
        time.sleep(0.5)
        publish(tf2, tmp_path / "m", 2)
        wait_for(manager, {2: "AVAILABLE", 1: "END"})
