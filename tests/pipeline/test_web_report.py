"""`evergreen report`: what stands in the file, that nothing is taken for markup, and that it needs no network."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from web_world import NASTY, make, version_of

from evergreen.pipeline import cli, config
from evergreen.pipeline.lineage import Lineage
from evergreen.pipeline.web import data, history, pages, statistics


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("web"))


@pytest.fixture
def lineage(project):
    return Lineage(config.load(project))


@pytest.fixture
def report(project, tmp_path, capsys):
    def write(*arguments: str) -> str:
        file = tmp_path / "new" / "card.html"
        status = cli.main(["-c", str(project), "report", *arguments, "--html", str(file)])
        assert status == 0, capsys.readouterr().err
        return file.read_text(encoding="utf-8")

    return write


class Parsed(HTMLParser):
    """A page's elements, its text by element, and every address in it."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, text):
        if self._inside == "script":
            self.scripts[-1] += text
        elif self._inside != "style":
            self.words.append(text)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def attributes(self, name: str) -> list[str]:
        return [value or "" for _, attributes in self.elements for key, value in attributes.items() if key == name]


def test_the_card_shows_every_part_of_the_last_run(report):
    page = Parsed(report())
    for shown in (
        "Gates",
        "Run 20200101T000024-1",
        f"published version {version_of(24)}",
        "Data of span 24",
        "12.5 ± 3.25",  # a feature's mean
        "20.0%",  # a feature's missing share
        "too much",  # drift beyond the schema's threshold
        "1,234",  # examples per second
        "carrier=AA",
        "1 slices of fewer than 500 rows",
        "left out",
        "Published beside the SavedModel: float16",
    ):
        assert shown in page.text, shown
    plots = [json.loads(plot)["title"] for plot in page.attributes("data-plot")]
    assert plots == ["loss"]
    (graph,) = [json.loads(text) for text in page.attributes("data-graph")]
    assert {"Pusher", "Trainer", "Examples"} <= {node["title"] for node in graph["nodes"]}
    assert all(node["href"] is None for node in graph["nodes"])


def test_names_from_the_data_stay_text(report):
    text = report()
    page = Parsed(text)
    assert "window.hacked = 1" in page.text
    assert not [script for script in page.scripts if "hacked" in script]
    assert len(page.scripts) == len(pages.SCRIPTS)


def test_the_file_asks_for_nothing_and_its_policy_lets_only_its_own_scripts_run(report):
    for text in (report(), report("--all")):
        page = Parsed(text)
        policy = next(a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
        assert policy is not None and policy.startswith("default-src 'none'")
        allowed = set(re.findall(r"'sha256-([^']+)'", policy))
        assert {base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in page.scripts} == allowed
        assert not page.attributes("src")
        assert [address for address in page.attributes("href") if not address.startswith(("#", "data:"))] == []
        assert "@import" not in text and "url(http" not in text


def test_a_version_and_a_refused_run_have_cards_too(report):
    assert f"Version {version_of(23)}" in Parsed(report("--version", str(version_of(23)))).text
    refused = Parsed(report("20200101T000019")).text
    assert "model rejected" in refused and "✕ refused" in refused
    assert "the run did not come so far" in refused


def test_two_questions_at_once_are_refused(project, capsys):
    assert cli.main(["-c", str(project), "report", "x", "--all", "--html", "never.html"]) == 2
    assert "Ask for one thing" in capsys.readouterr().err


def test_the_history_says_what_each_version_learnt_from_and_what_was_refused_and_why(lineage, report):
    found = history.history(lineage)
    assert [row["span"] for row in found["refused"]] == [9, 19]
    assert found["refused"][0]["why"] == ["as it was"]
    live = found["rows"][-1]
    assert (live["live"], live["window"], live["chosen"], live["tflite_bytes"]) == (True, [22, 23, 24], "float16", 1000)
    assert [plot["title"] for plot in found["plots"]][:2] == ["auc", "log_loss"]
    assert [series["label"] for series in found["plots"][0]["series"]] == [
        "published, on its exam",
        "refused, on its exam",
        "the version before, on the new span",
    ]
    assert found["windows"]["rows"][0] == {
        "version": version_of(24),
        "live": True,
        "cells": [span >= "22" for span in map("{:02}".format, range(25))],
    }
    assert "25 runs" in Parsed(report("--all")).text


def test_a_long_history_shows_the_newest_and_says_so(lineage):
    found = history.history(lineage, count=5)
    assert [row["span"] for row in found["rows"]] == [20, 21, 22, 23, 24] and found["more"]
    assert found["rows"][0]["answered"] == 3600


def test_an_empty_project_is_a_page_and_a_missing_run_is_one_clear_error(tmp_path, capsys):
    (tmp_path / "schema.pbtxt").write_text("")
    text = (Path(__file__).parents[1] / "web_world.py").read_text()
    (tmp_path / "evergreen.yaml").write_text(text.split('_YAML = """\\\n')[1].split('"""')[0])
    arguments = ["-c", str(tmp_path / "evergreen.yaml"), "report", "--html", str(tmp_path / "card.html")]
    assert cli.main([*arguments, "--all"]) == 0
    assert "There are no runs yet" in (tmp_path / "card.html").read_text()
    assert cli.main(arguments) == 2
    assert "there are no runs yet" in capsys.readouterr().err


def test_a_part_whose_files_are_gone_is_left_out(lineage):
    found = lineage.version(version_of(22))
    card = data.card(lineage, found, str)
    assert card["quality"] is None and card["data"]["statistics"] is None
    assert "files are gone" in Parsed(pages.report("card", card=card, project="p", pages=False, made="now")).text


SERVING = {
    "server": "built-in",
    "rows": 50,
    "load_s": 0.4,
    "peak_bytes": 310_000_000,
    "reasons": [f"REST answered {NASTY}"],
    "models": [
        {
            "model": "SavedModel",
            "signatures": [
                {"signature": "serving_default", "api": "REST", "compared": "gRPC", "p50_ms": None, "p99_ms": None},
                {"signature": "predict_raw", "api": "gRPC", "compared": "", "p50_ms": 1.25, "p99_ms": 3.5},
            ],
        }
    ],
}


def test_what_a_model_server_answered_is_shown(lineage):
    card = {**data.card(lineage, lineage.version(), str), "serving": SERVING}
    text = pages.report("card", card=card, project="p", pages=False, made="now")
    page = Parsed(text)
    for shown in ("built-in", "310 MB", "predict_raw", "1.25", f"REST answered {NASTY}"):
        assert shown in page.text, shown
    assert NASTY not in text
    assert history.server_ms(SERVING) == 1.25


def test_reports_that_tell_little_still_make_a_card(lineage):
    found = lineage.version()
    training = dataclasses.replace(found.training, report={"steps": 7}, settings={})
    card = {
        **data.card(lineage, found, str),
        "training": data.training_part(training),
        "quality": data.quality({"overall": {"metrics": {"auc": {"challenger": 0.5}}}, "metrics": ["auc", "other"]}),
        "variants": data.variants({"variants": [{"variant": "float16", "bytes": None}]}),
        "serving": {"passed": True},
    }
    page = Parsed(pages.report("card", card=card, project="p", pages=False, made="now"))
    assert "steps 7" in page.text and "left out" in page.text


def test_drift_is_measured_against_the_schema_s_threshold(project):
    folder = project.parent / "files"
    drift = statistics.read_drift(str(folder / "ExampleAnomalies" / "24"))
    assert (drift[NASTY].measure, drift[NASTY].exceeded) == ("L∞", True)
    read = statistics.read(str(folder / "ExampleStatistics" / "24"), drift)
    assert read is not None and (read.split, read.rows) == ("train", 100)
    text, number = read.features
    assert (text.distinct, text.drift, text.bars[0][1]) == (2, drift[NASTY], 70)
    assert (number.missing, number.bars) == (
        pytest.approx(0.2),
        (("0 to 1", 0), ("1 to 2", 10), ("2 to 3", 20), ("3 to 4", 30)),
    )


def test_slices_are_ordered_by_rows_and_small_ones_have_no_bounds():
    from web_world import COMPARISON

    quality = data.quality(COMPARISON)
    assert quality is not None
    rows = quality["metrics"][0]["rows"]
    assert [row["slice"] for row in rows] == ["overall", "carrier=UA", "carrier=AA", f"carrier={NASTY}"]
    assert rows[2]["upper"] < 0 and rows[3]["lower"] is None


def test_our_scripts_can_stand_inside_of_a_page():
    for name in (*pages.SCRIPTS, *pages.STYLES):
        assert "</" not in (pages.STATIC / name).read_text(encoding="utf-8").replace("</title", ""), name
