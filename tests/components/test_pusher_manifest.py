"""The manifest: what is written is read; what is broken is named."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime, timezone

import pytest

from evergreen.components.errors import EvergreenError
from evergreen.components.pusher.manifest import Manifest, parse_manifest, read_manifest, utc_time

MANIFEST = Manifest(
    version=1714532400,
    name="flights",
    published="2024-05-01T03:00:00Z",
    run="run-7",
    span=4,
    span_version=2,
    model_artifact_id=12,
    model_uri="/workspace/Trainer/model/7",
    model_created=1714532000123,
    pushed_by="31",
    metrics={"auc": 0.66},
    champion_on_span={"auc": 0.65},
    tflite={"variant": "dynamic_int8", "bytes": 70000},
    bytes=300000,
)


def test_what_is_written_is_read():
    assert parse_manifest(MANIFEST.to_json(), "x") == MANIFEST
    assert json.loads(MANIFEST.to_json())["format"] == 1


def test_the_keys_that_readers_rely_on_are_there():
    assert set(json.loads(MANIFEST.to_json())) >= {
        "format", "name", "version", "published", "run", "span", "span_version", "model_artifact_id", "model_uri",
        "pushed_by", "metrics", "champion_on_span", "restores", "tflite", "bytes",
    }  # fmt: skip


def test_unknown_keys_are_passed_over_and_optional_ones_may_be_absent():
    data = json.loads(MANIFEST.to_json())
    data["colour"] = "green"
    for key in ("span_version", "model_created", "pushed_by", "metrics", "champion_on_span", "restores", "tflite"):
        del data[key]
    found = parse_manifest(json.dumps(data), "x")
    assert (found.version, found.metrics, found.tflite, found.restores) == (MANIFEST.version, {}, None, None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": "7"}, "version='7'"),
        ({"span": True}, "span=True"),
        ({"metrics": None}, "metrics=None"),
        ({"restores": 1.5}, "expected int or null"),
        ({"format": 2}, "format=2"),
        ({"model_uri": None}, "model_uri=None"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(change, words):
    text = json.dumps({**json.loads(MANIFEST.to_json()), **change})
    with pytest.raises(EvergreenError) as caught:
        parse_manifest(text, "/models/flights/7/manifest")
    assert words in caught.value.reason and "/models/flights/7/manifest" in caught.value.reason


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "{}"])
def test_what_is_no_manifest_is_an_error(text):
    with pytest.raises(EvergreenError, match="cannot be read"):
        parse_manifest(text, "x")


def test_a_missing_key_is_named():
    data = json.loads(MANIFEST.to_json())
    del data["model_uri"]
    with pytest.raises(EvergreenError, match="'model_uri' is missing"):
        parse_manifest(json.dumps(data), "x")


def test_a_version_without_a_manifest_has_none(tmp_path):
    assert read_manifest(tmp_path) is None
    assert read_manifest(tmp_path / "gone") is None


def test_a_model_is_known_by_id_uri_and_creation():
    assert MANIFEST.carries(12, "/workspace/Trainer/model/7", 1714532000123)
    assert not MANIFEST.carries(13, "/workspace/Trainer/model/7", 1714532000123)
    assert not MANIFEST.carries(12, "/elsewhere/Trainer/model/7", 1714532000123)
    # A workspace made anew gives the same id and URI to another model.
    assert not MANIFEST.carries(12, "/workspace/Trainer/model/7", 1714999999999)
    assert dataclasses.replace(MANIFEST, model_created=0).carries(12, "/workspace/Trainer/model/7", 1714999999999)


def test_utc_time_is_iso_8601():
    assert utc_time(1714532400.7) == "2024-05-01T03:00:00Z"
    assert datetime.fromisoformat(utc_time(0).replace("Z", "+00:00")) == datetime(1970, 1, 1, tzinfo=timezone.utc)
