"""ChampionExam and the Evaluator on real models: who passes, who does not, and what is written."""

import json
import os

import evaluator_world
import numpy as np
import pyarrow.parquet as pq
import pytest
from tfx.dsl.components.base import base_beam_executor
from tfx.types import artifact_utils, channel_utils, standard_artifacts

from evergreen.components.errors import ConfigError, DataRejected, EvergreenError
from evergreen.components.evaluator import analysis, component, executor, metrics, slices, tables

pytestmark = pytest.mark.tensorflow

RUNNER = "--runner=apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"
# Any container image keeps TFX from packing itself up for remote workers, which costs seconds.
BEAM_ARGS = [RUNNER, "--sdk_container_image=none"]
SETTINGS = {
    "label": "late",
    "metrics": ["auc", "log_loss"],
    "min": {"auc": 0.6},
    "max_regression": {"auc": 0.01},
    "bootstrap": {"samples": 200},
}


@pytest.fixture(scope="module")
def world(build_once):
    return str(build_once("evaluator", evaluator_world.build))


@pytest.fixture
def without_tfma(monkeypatch):
    """The same metrics and slices without Beam: TFMA has its own tests and takes seconds."""

    def run(make_pipeline, predictions_file, output_uri, settings, model_uris):
        table = tables.read(predictions_file)
        return {
            key: {
                model: metrics.compute(
                    settings.metrics,
                    table["label"].to_numpy()[rows],
                    table[analysis.PREDICTION_COLUMNS[model]].to_numpy()[rows],
                    settings.threshold,
                )
                for model in model_uris
            }
            for columns in ((), *settings.slices)
            for key, rows in slices.members(table, columns)
        }

    monkeypatch.setattr(analysis, "run", run)


class _Exam:
    """Runs both executors in a folder of the test's own."""

    def __init__(self, world, folder):
        self.world = world
        self.folder = str(folder)
        self.examples = f"{world}/examples"

    def artifact(self, kind, uri, number=1):
        made = kind()
        made.uri = uri if os.path.isabs(uri) else os.path.join(self.folder, uri)
        made.id = number
        return made

    def given(self):
        examples = self.artifact(standard_artifacts.Examples, self.examples)
        examples.split_names = artifact_utils.encode_split_names(list(evaluator_world.ROWS))
        return [examples]

    def champion_exam(self, champion, **settings):
        evaluation = self.artifact(standard_artifacts.ModelEvaluation, "champion_exam")
        models = [self.artifact(standard_artifacts.Model, f"{self.world}/{champion}", 12)] if champion else []
        executor.ChampionExamExecutor().Do(
            {"examples": self.given(), "champion": models},
            {"evaluation": [evaluation]},
            {"settings": json.dumps({**SETTINGS, **settings}), "span": 4},
        )
        return evaluation

    def evaluate(self, model, champion="good", **settings):
        """Returns the blessing and comparison.json."""
        exam = self.champion_exam(champion, **settings)
        evaluation = self.artifact(standard_artifacts.ModelEvaluation, "evaluation")
        blessing = self.artifact(standard_artifacts.ModelBlessing, "blessing")
        context = base_beam_executor.BaseBeamExecutor.Context(
            beam_pipeline_args=list(BEAM_ARGS), tmp_dir=self.folder, unique_id="1"
        )
        executor.EvaluatorExecutor(context).Do(
            {
                "examples": self.given(),
                "model": [self.artifact(standard_artifacts.Model, f"{self.world}/{model}", 13)],
                "champion_evaluation": [exam],
            },
            {"evaluation": [evaluation], "blessing": [blessing]},
            {"settings": json.dumps({**SETTINGS, **settings}), "span": 4},
        )
        with open(os.path.join(evaluation.uri, "comparison.json"), encoding="utf-8") as stream:
            return blessing, json.load(stream)


@pytest.fixture
def exam(world, tmp_path):
    return _Exam(world, tmp_path)


def _reasons(blessing):
    return json.loads(blessing.get_string_custom_property("reasons"))


def _blessed(blessing):
    files = os.listdir(blessing.uri)
    blessed = blessing.get_int_custom_property("blessed")
    assert files == ["BLESSED" if blessed else "NOT_BLESSED"]
    return bool(blessed)


def test_the_champion_answers_every_row_before_any_training(exam):
    found = exam.champion_exam("good", slices=[["carrier"]])
    rows = evaluator_world.rows()
    table = pq.read_table(os.path.join(found.uri, "predictions.parquet"))
    assert table.column_names == ["split", "row", "label", "prediction", "carrier"]
    assert table.num_rows == found.get_int_custom_property("rows") == sum(evaluator_world.ROWS.values())
    x, late = (np.concatenate([rows[split][name] for split in rows]) for name in ("x", "late"))
    expected = metrics.compute(["auc", "log_loss"], late, 1 / (1 + np.exp(-2 * x)))
    assert json.loads(found.get_string_custom_property("metrics")) == pytest.approx(expected, abs=1e-5)
    assert found.get_int_custom_property("champion") == 1
    assert found.get_int_custom_property("model_id") == 12


def test_no_champion_is_an_artifact_that_says_so(exam):
    found = exam.champion_exam(None)
    assert found.get_int_custom_property("champion") == 0
    assert found.get_string_custom_property("metrics") == "{}"


def test_a_worse_model_is_refused_with_numbers_and_a_tfma_result(exam):
    import tensorflow_model_analysis as tfma

    blessing, comparison = exam.evaluate("worse", slices=[["carrier"]])
    assert not _blessed(blessing) and comparison["blessed"] is False
    (reason,) = _reasons(blessing)
    assert reason.startswith("auc is 0.") and "more than the 0.01 allowed (evaluate.max_regression.auc)." in reason
    uri = os.path.join(exam.folder, "evaluation")
    overall = comparison["overall"]["metrics"]["auc"]
    for model in ("challenger", "champion"):
        loaded = tfma.load_eval_result(uri, model_name=model)
        assert loaded.get_metrics_for_slice(())["auc"]["doubleValue"] == overall[model]
    assert json.loads(blessing.get_string_custom_property("metrics"))["auc"] == overall["challenger"]
    assert json.loads(blessing.get_string_custom_property("champion_metrics"))["auc"] == overall["champion"]
    assert set(json.loads(blessing.get_string_custom_property("champion_on_span"))) == {"auc", "log_loss"}
    assert blessing.get_int_custom_property("current_model_id") == 13
    assert blessing.get_int_custom_property("baseline_model_id") == 12
    table = pq.read_table(os.path.join(uri, "predictions.parquet"))
    assert set(table["split"].to_pylist()) == {"exam"} and table.num_rows == evaluator_world.ROWS["exam"]


@pytest.mark.usefixtures("without_tfma")
def test_an_equal_model_passes_and_a_better_one_does(exam, world, tmp_path):
    blessing, comparison = exam.evaluate("good", champion="good")
    assert _blessed(blessing)
    assert comparison["overall"]["metrics"]["auc"]["gain"] == {"value": 0.0, "lower": 0.0, "upper": 0.0}
    better, comparison = _Exam(world, tmp_path / "better").evaluate("good", champion="worse")
    assert _blessed(better)
    assert comparison["overall"]["metrics"]["auc"]["gain"]["lower"] > 0.05


@pytest.mark.usefixtures("without_tfma")
def test_a_small_slice_is_shown_and_vetoes_nothing(exam, world, tmp_path):
    settings = {
        "slices": [["carrier"]],
        "min_slice_rows": 100,
        "max_regression": {},
        "slice_max_regression": {"auc": 0.0},
    }
    blessing, comparison = exam.evaluate("worse", **settings)
    shown = {one["slice"]: one for one in comparison["slices"]}
    assert not _blessed(blessing)
    assert {reason.split(" (")[0] for reason in _reasons(blessing)} == {
        "auc in the slice carrier=AA",
        "auc in the slice carrier=UA",
    }
    assert shown["carrier=WN"]["rows"] < 100 and not shown["carrier=WN"]["gated"]
    assert shown["carrier=WN"]["metrics"]["auc"]["gain"]["lower"] is None
    settings["min_slice_rows"] = 901
    assert _blessed(_Exam(world, tmp_path / "all small").evaluate("worse", **settings)[0])


@pytest.mark.usefixtures("without_tfma")
@pytest.mark.parametrize(("bound", "passes"), [(0.6, True), (0.99, False)])
def test_the_first_model_is_held_to_min(exam, bound, passes):
    blessing, comparison = exam.evaluate("worse", champion=None, min={"auc": bound})
    assert _blessed(blessing) is passes
    assert comparison["champion"] is None
    assert _reasons(blessing)[-1] == "There is no champion to compare with."
    assert blessing.get_string_custom_property("champion_metrics") == "null"
    assert blessing.get_string_custom_property("champion_on_span") == "null"


def test_nan_is_a_verdict_and_not_a_crash(exam):
    blessing, comparison = exam.evaluate("nan")
    assert not _blessed(blessing)
    (reason,) = _reasons(blessing)
    assert "is not a finite number in" in reason and "of 900 rows" in reason
    assert comparison["overall"]["metrics"]["auc"]["challenger"] is None
    assert json.loads(blessing.get_string_custom_property("metrics")) == {}
    assert json.loads(blessing.get_string_custom_property("champion_metrics"))["auc"] > 0.6


@pytest.mark.usefixtures("without_tfma")
def test_a_challenger_that_cannot_be_called_is_refused(exam):
    blessing, _ = exam.evaluate("gone")
    assert not _blessed(blessing)
    assert _reasons(blessing)[0].startswith("The challenger cannot answer the exam rows: ")


@pytest.mark.usefixtures("without_tfma")
@pytest.mark.parametrize("champion", ["gone", "nan"])
def test_a_champion_that_cannot_answer_does_not_hold_its_place(exam, champion):
    blessing, comparison = exam.evaluate("good", champion=champion)
    assert _blessed(blessing)
    assert _reasons(blessing)[-1].startswith("The champion (model 12) cannot be compared with: ")
    assert comparison["champion"]["error"]
    assert comparison["overall"]["metrics"]["auc"]["champion"] is None


@pytest.mark.usefixtures("without_tfma")
def test_blocks_are_drawn_and_few_of_them_are_mentioned(exam, world, tmp_path):
    _, comparison = exam.evaluate("worse", bootstrap={"block": "day", "samples": 200})
    assert comparison["bootstrap"] == {"samples": 200, "confidence": 0.95, "block": ["day"], "units": 30}
    assert comparison["notes"] == []
    _, comparison = _Exam(world, tmp_path / "few").evaluate("worse", bootstrap={"block": "carrier", "samples": 200})
    assert comparison["notes"] == ["The bootstrap drew from 4 blocks only: its bounds are rough."]


@pytest.mark.usefixtures("without_tfma")
def test_answers_to_other_rows_are_not_compared(exam, tmp_path):
    rows = evaluator_world.rows()
    rows["exam"]["late"][0] = 1 - rows["exam"]["late"][0]
    evaluator_world.write_examples(f"{tmp_path}/other", rows)
    champion_exam = exam.champion_exam

    def on_other_rows(*args, **settings):
        exam.examples = f"{tmp_path}/other"
        found = champion_exam(*args, **settings)
        exam.examples = f"{exam.world}/examples"
        return found

    exam.champion_exam = on_other_rows
    with pytest.raises(EvergreenError, match="answered other exam rows"):
        exam.evaluate("good")


def test_an_exam_without_rows_is_data_that_says_nothing(exam, tmp_path):
    rows = evaluator_world.rows()
    rows["exam"] = {name: [] for name in rows["exam"]}
    evaluator_world.write_examples(f"{tmp_path}/empty", rows)
    exam.examples = f"{tmp_path}/empty"
    with pytest.raises(DataRejected, match="Span 4 has no exam rows"):
        exam.evaluate("good", champion=None)


def test_metrics_of_yes_and_no_do_not_suit_a_value(exam):
    with pytest.raises(ConfigError, match="`auc` does not suit the label"):
        exam.evaluate("good", label="day", metrics=["auc"])


def test_components_take_and_give_what_the_pipeline_wires():
    examples = channel_utils.as_channel([standard_artifacts.Examples()])
    model = channel_utils.as_channel([standard_artifacts.Model()])
    first = component.ChampionExam(examples=examples, champion=model, settings="{}", span=4, fingerprint="a")
    second = component.Evaluator(
        examples=examples,
        model=model,
        champion_evaluation=first.outputs["evaluation"],
        settings="{}",
        span=4,
    )
    assert first.outputs["evaluation"].type is standard_artifacts.ModelEvaluation
    assert second.outputs["blessing"].type is standard_artifacts.ModelBlessing
    assert first.exec_properties["fingerprint"] == "a"


def test_the_blessing_is_the_stock_one():
    from tfx.components.evaluator import constants

    assert constants.BLESSED_FILE_NAME == executor.BLESSED_FILE
    assert constants.NOT_BLESSED_FILE_NAME == executor.NOT_BLESSED_FILE
    assert constants.ARTIFACT_PROPERTY_BLESSED_KEY == executor.BLESSED
    assert constants.ARTIFACT_PROPERTY_CURRENT_MODEL_URI_KEY == executor.CURRENT_MODEL
    assert constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY == executor.CURRENT_MODEL_ID
    assert constants.ARTIFACT_PROPERTY_BASELINE_MODEL_URI_KEY == executor.BASELINE_MODEL
    assert constants.ARTIFACT_PROPERTY_BASELINE_MODEL_ID_KEY == executor.BASELINE_MODEL_ID
