"""What is saved in TensorFlow Transform changes no answer of it."""

import apache_beam as beam
import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from tensorflow_transform import inspect_preprocessing_fn as inspect
from tensorflow_transform.beam import analysis_graph_builder as analysis
from tensorflow_transform.beam.analyzer_cache import DatasetKey
from tensorflow_transform.tf_metadata.dataset_metadata import DatasetMetadata

from evergreen.components import fast_beam, fast_transform

pytestmark = pytest.mark.tensorflow


@pytest.fixture(autouse=True)
def _installed():
    fast_transform.install()
    fast_transform.install()


def test_a_preprocessing_function_is_traced_once_for_all_questions_and_answered_as_before():
    traced = []

    def preprocess(inputs):
        traced.append(sorted(inputs))
        centred = inputs["a"] - tft.mean(inputs["a"])
        return {"a": centred / tft.max(centred), "b": inputs["b"] + 1.0}

    specs = {name: tf.TensorSpec([None], tf.float32) for name in ("a", "b")}
    spans = {DatasetKey("span-1"), DatasetKey("span-2")}
    questions = [
        lambda function: inspect.get_analyze_input_columns(function, specs),
        lambda function: inspect.get_transform_input_columns(function, specs),
        lambda function: analysis.get_analysis_cache_entry_keys(function, specs, spans, False),
        lambda function: analysis.get_analysis_dataset_keys(function, specs, spans, {}, False),
        lambda function: inspect.get_analyze_input_columns(function, specs),
    ]
    # Another function for each question: nothing is remembered of it.
    before = [question(lambda inputs: preprocess(inputs)) for question in questions]
    assert len(traced) == len(questions)
    traced.clear()
    assert [question(preprocess) for question in questions] == before
    assert traced == [["a", "b"]]
    assert before[0] == ["a"] and len(before[2]) == 1 and len(before[3]) == 2
    with pytest.raises(KeyError):
        inspect.get_analyze_input_columns(preprocess, {"b": specs["b"]})


def preprocess(inputs):
    word = tft.compute_and_apply_vocabulary(inputs["word"])
    bucket = tft.bucketize(inputs["x"], 2)
    tft.compute_and_apply_vocabulary(inputs["word"], vocab_filename="of no output")
    return {
        "word": word,
        "bucket": bucket,
        "plain": tf.cast(inputs["x"] > 0, tf.int64),
        "z": tft.scale_to_0_1(inputs["x"]),
    }


def analysed(function, folder):
    """Returns the schemas of the outputs, before and after the analysis."""
    rows = [{"word": word, "x": x} for word, x in (("a", 1.0), ("b", 2.0), ("a", 7.0))]
    given = DatasetMetadata.from_feature_spec(
        {"word": tf.io.FixedLenFeature([], tf.string), "x": tf.io.FixedLenFeature([], tf.float32)}
    )
    with (
        tft_beam.Context(temp_dir=str(folder / "temp")),
        beam.Pipeline(argv=list(fast_beam.IN_PROCESS_ARGS)) as pipeline,
    ):
        data = pipeline | beam.Create(rows)
        written, metadata = (data, given) | tft_beam.AnalyzeDataset(function)
        (written, metadata) | tft_beam.WriteTransformFn(str(folder / "out"))
        before = metadata.dataset_metadata.schema
    return before, tft.TFTransformOutput(str(folder / "out")).transformed_metadata.schema


def test_the_outputs_that_get_a_range_are_known_without_another_trace(tmp_path, monkeypatch):
    times = []

    def counted(inputs):
        times.append(sorted(inputs))
        return preprocess(inputs)

    before, after = analysed(counted, tmp_path / "saved")
    spared = len(times)
    times.clear()
    monkeypatch.setattr(fast_transform._ranged, "of", lambda *_: None)
    assert analysed(counted, tmp_path / "as it was") == (before, after)
    assert len(times) == spared + 1
    assert {f.name for f in before.feature if f.int_domain.is_categorical} == {"word", "bucket"}
    assert {f.name: f.int_domain.max for f in after.feature if f.HasField("int_domain")} == {"word": 1, "bucket": 1}


def test_what_was_seen_of_another_function_is_not_told():
    def other(inputs):
        return {"x": inputs["x"]}

    with tf.Graph().as_default():
        fast_transform._ranged.watched(other)({"x": tf.constant([1.0])})
    assert fast_transform._ranged.of(other, {"x": None}) == []
    assert fast_transform._ranged.of(other, {"x": None, "y": None}) is None
    assert fast_transform._ranged.of(preprocess, {"x": None}) is None
