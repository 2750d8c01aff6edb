"""Several spans' analyzer caches, read as one, mean what they mean one by one."""

import apache_beam as beam
import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from tensorflow_transform.beam import analyzer_cache as caches
from tensorflow_transform.tf_metadata.dataset_metadata import DatasetMetadata
from tfx_bsl.tfxio import tf_example_record

from evergreen.components import fast_beam, folded_cache

pytestmark = pytest.mark.tensorflow

ARGS = list(fast_beam.IN_PROCESS_ARGS)
SPEC = {"word": tf.io.FixedLenFeature([], tf.string), "x": tf.io.FixedLenFeature([], tf.float32)}


def preprocess(inputs):
    return {
        "word": tft.compute_and_apply_vocabulary(inputs["word"], vocab_filename="words", frequency_threshold=2),
        "x": tft.scale_to_z_score(inputs["x"]),
        "bucket": tft.bucketize(inputs["x"], 3),
        "least": inputs["x"] - tft.min(inputs["x"]),
    }


def rows(span):
    return [{"word": word, "x": float(span * 10 + i)} for i, word in enumerate(["a", "b", f"only in {span}", "a"])]


def examples(span):
    for row in rows(span):
        example = tf.train.Example()
        example.features.feature["word"].bytes_list.value.append(row["word"].encode())
        example.features.feature["x"].float_list.value.append(row["x"])
        yield example.SerializeToString()


def build(pipeline, function, folder, window, cached=None, folds=True):
    """Builds the analysis of a window as TFX's Transform does.

    Returns:
      Of how many spans rows are needed.
    """
    folded_cache.install(folds)
    keys = {span: caches.DatasetKey(f"span-{span}") for span in window}
    io = tf_example_record.TFExampleBeamRecord(
        physical_format="inmem", telemetry_descriptors=["test"], schema=DatasetMetadata.from_feature_spec(SPEC).schema
    )
    specs = io.TensorAdapter().OriginalTypeSpecs()
    with tft_beam.Context(temp_dir=str(folder / "temp")):
        wanted = tft_beam.analysis_graph_builder.get_analysis_cache_entry_keys(function, specs, keys.values(), False)
        read = {}
        if cached:
            read = pipeline | caches.ReadAnalysisCacheFromFS(str(cached), keys.values(), cache_entry_keys=wanted)
        needed = tft_beam.analysis_graph_builder.get_analysis_dataset_keys(function, specs, keys.values(), read, False)
        data = {
            key: pipeline | f"rows {span}" >> beam.Create(list(examples(span))) | f"{span}" >> io.BeamSource()
            if key in needed
            else None
            for span, key in keys.items()
        }
        config = io.TensorAdapterConfig()
        written, made = (data, read, config) | tft_beam.AnalyzeDatasetWithCache(function, pipeline=pipeline)
        _ = written | tft_beam.WriteTransformFn(str(folder / "out"))
        _ = made | caches.WriteAnalysisCacheToFS(pipeline, str(folder / "cache"), keys.values())
    return len(needed)


def analyse(*arguments, **options):
    with beam.Pipeline(argv=ARGS) as pipeline:
        return build(pipeline, *arguments, **options)


def applied(folder):
    layer = tft.TFTransformOutput(str(folder / "out")).transform_features_layer()
    answers = layer({name: tf.constant([row[name] for row in rows(3)]) for name in SPEC})
    return {name: values.numpy().tolist() for name, values in answers.items()}


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    """The caches of three spans."""
    folder = tmp_path_factory.mktemp("cached")
    fast_beam.install(ARGS)
    analyse(preprocess, folder, range(1, 4))
    return folder / "cache"


def test_a_window_of_caches_is_analysed_as_one_by_one(cached, tmp_path):
    for folds in (True, False):
        assert analyse(preprocess, tmp_path / str(folds), range(1, 5), cached, folds) == 1
    folded, one_by_one = applied(tmp_path / "True"), applied(tmp_path / "False")
    assert sorted(folded) == sorted(one_by_one) == ["bucket", "least", "word", "x"]
    for name, values in one_by_one.items():
        assert folded[name] == pytest.approx(values, rel=1e-6), name
    made = {folds: sorted(path.name for path in (tmp_path / folds / "cache").iterdir()) for folds in ("True", "False")}
    assert made["True"] == made["False"] == ["span-4"]


def test_spans_whose_rows_are_needed_are_not_folded(cached, tmp_path):
    def function(inputs):
        centred = inputs["x"] - tft.mean(inputs["x"])
        return {"x": centred / tft.max(centred)}  # which the second look at the rows tells

    analyse(function, tmp_path / "first", range(1, 3))
    assert analyse(function, tmp_path / "second", range(1, 3), tmp_path / "first" / "cache") == 2
    assert applied(tmp_path / "second") == applied(tmp_path / "first")


def test_the_pipeline_does_not_grow_with_the_spans_whose_cache_it_reads(cached, tmp_path):
    steps = {}
    for folds in (True, False):
        for first in (1, 2):
            pipeline = beam.Pipeline(argv=ARGS)
            build(pipeline, preprocess, tmp_path / f"{folds}-{first}", range(first, 5), cached, folds)
            steps[folds, first] = len(pipeline.to_runner_api().components.transforms)
    assert steps[True, 1] == steps[True, 2] < steps[False, 2] < steps[False, 1]
