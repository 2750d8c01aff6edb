"""Conversions that begin beside the Trainer and the Evaluator: the Quantizer finds just what it would have begun."""

import dataclasses

import pytest
import quantizer_world

from evergreen.components import ahead
from evergreen.components.evaluator.settings import EvaluateSettings
from evergreen.components.quantizer import early, quantization, worker
from evergreen.components.quantizer.settings import QuantizeSettings

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.skipif(ahead.cores() < 2, reason="nothing is begun early where there is one core"),
]
SETTINGS = QuantizeSettings(variants=("float16", "int8"))
EVALUATE = EvaluateSettings.from_json(quantizer_world.EVALUATE)


@pytest.fixture(scope="module")
def world(build_once):
    return build_once("quantizer", quantizer_world.build)


@pytest.fixture(autouse=True)
def ended():
    yield
    ahead.end()
    assert not early._begun


def quantize(world):
    names = ("model", "transform_graph", "examples", "evaluation")
    inputs = quantization.Inputs(span=4, **{name: f"{world}/{name}" for name in names})
    return quantization.quantize(inputs, SETTINGS, EVALUATE)


def measured(row):
    return row["variant"], row["bytes"], row["metrics"]


def begin(world, settings=SETTINGS):
    early.preprocessing(f"{world}/transform_graph", EVALUATE.label, settings)
    early.model(f"{world}/model", settings)


def test_the_quantizer_takes_what_was_begun_and_begins_only_the_rest(world, monkeypatch):
    begin(world)
    taken = early._begun[0]
    assert [job["do"] for job in taken._begun.values()] == ["preprocessing", "convert", "convert"]
    submitted = []
    submit = worker.Worker._submit
    monkeypatch.setattr(
        worker.Worker, "_submit", lambda self, job, rows=None: submitted.append(job) or submit(self, job, rows)
    )
    process = taken.process
    made = quantize(world)
    assert process.returncode is not None  # it did all of it, and was ended
    kinds = [job.get("variant", job["do"]) for job in submitted]
    assert "preprocessing" not in kinds and "float32" not in kinds and "float16" not in kinds
    assert "int8" in kinds
    assert made.report["passed"] and made.page.startswith("<!DOCTYPE html>") and "<svg" in made.page
    monkeypatch.undo()
    alone = quantize(world)
    # Not the files: tables have random names in them.
    assert [measured(row) for row in alone.report["variants"]] == [measured(row) for row in made.report["variants"]]


def test_what_does_not_fit_is_given_up(world):
    begin(world, dataclasses.replace(SETTINGS, allow_select_ops=True))
    given_up = early._begun[0].process
    made = quantize(world)
    assert given_up.returncode is not None
    assert made.report["passed"]


def test_what_nobody_takes_is_ended_with_all_that_waits(world):
    begin(world)
    process = early._begun[0].process
    ahead.end()
    assert process.returncode is not None


def test_without_variants_nothing_is_begun(world):
    begin(world, dataclasses.replace(SETTINGS, variants=()))
    assert not early._begun


def test_a_model_without_a_core_is_not_converted(world, tmp_path):
    early.model(str(tmp_path), SETTINGS)
    assert not early._begun
