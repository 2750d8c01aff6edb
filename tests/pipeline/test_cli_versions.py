"""`evergreen versions`: what it prints about a base path."""

from __future__ import annotations

import json

import pytest

from evergreen.pipeline import cli

YAML = """\
name: flights
data: {path: data, pattern: "{YYYY}-{MM}/*.parquet"}
schema: schema.pbtxt
features: features:preprocessing_fn
trainer: {model: "model:build_model"}
evaluate: {label: late, metrics: [auc, log_loss]}
publish: {base_path: models/flights}
"""
APRIL = 15796  # 2013-04-01


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "evergreen.yaml").write_text(YAML)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def publish(project, version: int, **manifest) -> None:
    folder = project / "models/flights" / str(version)
    (folder / "assets.extra").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"x" * 2000)
    if not manifest:
        return
    lite = project / "models/flights_lite" / str(version)
    lite.mkdir(parents=True)
    (lite / "model.tflite").write_bytes(b"x" * 700)
    values = {
        "format": 1, "name": "flights", "version": version, "published": "2026-01-02T03:04:05+00:00", "run": "r1",
        "span": APRIL, "span_version": 0, "model_artifact_id": 7, "model_uri": "/m", "pushed_by": "9",
        "metrics": {"auc": 0.68125, "log_loss": 0.5}, "champion_on_span": None, "restores": None,
        "tflite": {"variant": "float16", "bytes": 700}, "bytes": 2000, **manifest,
    }  # fmt: skip
    (folder / "assets.extra" / "evergreen.json").write_text(json.dumps(values))


def test_nothing_published_yet(project, capsys):
    assert cli.main(["versions"]) == 0
    assert f"nothing is published in {project / 'models/flights'} yet" in capsys.readouterr().out
    assert cli.main(["versions", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_newest_first_with_what_the_manifest_says(project, capsys):
    publish(project, 100, span=APRIL)
    publish(project, 200, span=APRIL + 30, champion_on_span={"auc": 0.65}, run="r2")
    assert cli.main(["versions"]) == 0
    head, _, newest, older = capsys.readouterr().out.splitlines()
    assert head.split() == ["version", "live", "published", "run", "span", "auc", "[before]", "size", "TFLite"]
    assert newest.split()[:2] == ["200", "live"]
    assert "r2" in newest
    assert "2013-05" in newest
    assert "0.6813 [0.65]" in newest
    assert "2 kB" in newest
    assert "700 B float16" in newest
    assert older.split()[:2] == ["100", "-"]
    assert "2013-04" in older
    assert "0.6813 " in older


def test_what_is_strange_stands_in_a_note(project, capsys):
    publish(project, 100)
    publish(project, 200, restores=150)
    cli.main(["versions"])
    head, _, newest, older = capsys.readouterr().out.splitlines()
    assert head.rstrip().endswith("note")
    assert newest.rstrip().endswith("restores 150")
    assert older.rstrip().endswith("not published by Evergreen")


def test_json_has_everything(project, capsys):
    publish(project, 200, champion_on_span={"auc": float("nan")})
    cli.main(["versions", "--json"])
    (version,) = json.loads(capsys.readouterr().out)
    assert version["version"] == 200
    assert version["live"] is True
    assert version["span_label"] == "2013-04"
    assert version["metrics"] == {"auc": 0.68125, "log_loss": 0.5}
    assert version["champion_on_span"] == {"auc": None}


def test_labels_and_a_version_that_is_being_watched(project, capsys):
    for version in (100, 200):
        publish(project, version, run=f"r{version}")
    (project / "models.config").write_text(
        'model_config_list { config { name: "flights" base_path: "/b" version_labels { key: "stable" value: 100 } } }'
    )
    (project / "models/flights/.watch.json").write_text('{"version": 200, "model": "flights"}')
    sets = ["--set", "publish.models_config=models.config", "--set", "publish.server=localhost:8500"]
    assert cli.main(["versions", *sets]) == 0
    *_, newest, older = capsys.readouterr().out.splitlines()
    assert newest.split()[0] == "200" and newest.rstrip().endswith("being watched")
    assert older.split()[0] == "100" and older.rstrip().endswith("`stable`")
    assert cli.main(["versions", "--json", *sets]) == 0
    assert [one["labels"] for one in json.loads(capsys.readouterr().out)] == [[], ["stable"]]
