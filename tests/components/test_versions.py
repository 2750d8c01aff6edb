"""Version numbers: what a server sees, what comes next, what may go."""

from __future__ import annotations

import pytest

from evergreen.components.errors import ConfigError, EvergreenError
from evergreen.components.pusher import versions


def saved_model(path):
    path.mkdir(parents=True)
    (path / "saved_model.pb").write_bytes(b"graph")


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("1", 1),
        ("00000123", 123),
        ("1367812345", 1367812345),
        ("9223372036854775807", 2**63 - 1),
        ("-5", -5),
        ("9223372036854775808", None),
        ("v1", None),
        ("5.tmp", None),
        (".staging-5", None),
        ("2.denied", None),
        ("1_000", None),
        ("٣", None),
        ("0.1", None),
        ("", None),
        (".highest-version", None),
    ],
)
def test_parse_version_reads_what_tensorflow_serving_reads(name, version):
    assert versions.parse_version(name) == version


def test_list_entries_lists_what_a_server_takes_for_versions(tmp_path):
    saved_model(tmp_path / "20")
    (tmp_path / "3").mkdir()
    (tmp_path / "100").write_text("a file named 100")
    (tmp_path / ".staging-21-1-ab").mkdir()
    (tmp_path / "notes").mkdir()
    assert list(versions.list_entries(tmp_path)) == [3, 20, 100]
    assert versions.list_entries(tmp_path / "missing") == {}
    assert versions.list_entries(tmp_path / "100") == {}


def test_of_two_names_of_one_number_the_servers_choice_counts(tmp_path):
    saved_model(tmp_path / "7")
    saved_model(tmp_path / "007")
    assert versions.list_entries(tmp_path) == {7: tmp_path / "7"}


def test_live_is_the_highest_complete_version(tmp_path):
    assert versions.live_version(tmp_path) is None
    saved_model(tmp_path / "9")
    saved_model(tmp_path / "10")
    (tmp_path / "11").mkdir()
    (tmp_path / "12").write_text("")
    assert versions.live_version(tmp_path) == 10


@pytest.mark.parametrize(
    ("now", "highest", "expected"),
    [
        (1700000000.9, 0, 1700000000),
        (1700000000.0, 1700000000, 1700000001),
        (1700000000.0, 1800000000, 1800000001),
        (0.0, 0, 1),
    ],
)
def test_next_version_is_the_time_and_always_higher(now, highest, expected):
    assert versions.next_version(now, highest) == expected


def test_next_version_says_when_no_number_is_left():
    with pytest.raises(EvergreenError, match="no version number is left"):
        versions.next_version(1.0, versions.MAX_VERSION)


def test_highest_ever_outlives_the_versions(tmp_path):
    base = tmp_path / "model"
    base.mkdir()
    assert versions.read_highest(base) is None
    assert versions.highest_ever(base) == 0
    versions.write_highest(base, 50)
    assert versions.highest_ever(base) == 50
    saved_model(base / "60")
    assert versions.highest_ever(base) == 60
    (tmp_path / "model_lite" / "70").mkdir(parents=True)
    assert versions.highest_ever(base) == 70
    assert [p.name for p in base.iterdir() if versions.parse_version(p.name) is not None] == ["60"]


@pytest.mark.parametrize("text", ["", "abc", "1.5", "-3"])
def test_a_damaged_highest_version_is_an_error_with_a_next_step(tmp_path, text):
    (tmp_path / ".highest-version").write_text(text)
    with pytest.raises(EvergreenError) as caught:
        versions.read_highest(tmp_path)
    assert ".highest-version" in caught.value.reason
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("present", "keep", "protected", "expected"),
    [
        ([1, 2, 3, 4], 3, (), [1]),
        ([4, 1, 3, 2], 1, (), [1, 2, 3]),
        ([1, 2, 3, 4], 2, (1,), [2]),
        ([1, 2], 3, (), []),
        ([], 1, (), []),
    ],
)
def test_retention_keeps_the_newest_and_what_is_protected(present, keep, protected, expected):
    assert versions.expired(present, keep, protected) == expected


@pytest.mark.parametrize("keep", [0, -1])
def test_retention_refuses_to_keep_nothing(keep):
    with pytest.raises(ConfigError, match="keep"):
        versions.expired([1], keep)


def test_pairs_are_found_by_number(tmp_path):
    base = tmp_path / "model"
    saved_model(base / "1")
    saved_model(base / "2")
    for name in ("1", "2", "3", ".staging-4"):
        (tmp_path / "model_lite" / name).mkdir(parents=True)
    assert versions.lite_path(f"{base}/") == tmp_path / "model_lite"
    assert versions.lone_lite_versions(base) == [3]


@pytest.mark.parametrize("path", ["gs://bucket/model", "s3://bucket/model", ""])
def test_only_local_paths_are_base_paths(path):
    with pytest.raises(ConfigError, match="base_path"):
        versions.local_path(path)


def test_a_relative_base_path_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert versions.local_path("serving/flights/") == tmp_path / "serving" / "flights"


def test_a_hold_is_read_and_a_damaged_one_holds_too(tmp_path):
    assert versions.read_hold(tmp_path) is None
    (tmp_path / ".hold.json").write_text('{"reason": "bad answers", "since": "2024-05-01T00:00:00Z"}')
    hold = versions.read_hold(tmp_path)
    assert (hold.reason, hold.since) == ("bad answers", "2024-05-01T00:00:00Z")
    for damaged in ("", "[1]", "{"):
        (tmp_path / ".hold.json").write_text(damaged)
        assert versions.read_hold(tmp_path) is not None
