"""Computes statistics by TFDV's own generators in this process, where Beam would run in this process too.

On Beam's in-process runner most of the time goes into the runner: three splits are 450 transforms to build and to
pickle, and each record passes through Python. The same generators, fed with the same record batches, take a fifth of
the time. Every other runner, and every option that only the pipeline knows, takes the stock way.
"""

from __future__ import annotations

import json
import os
from typing import Any

import tensorflow_data_validation as tfdv
from apache_beam.options import pipeline_options
from tfx import types
from tfx.components.statistics_gen import executor as stock
from tfx.components.util import examples_utils
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.utils import io_utils

_LOCAL_RUNNERS = ("DirectRunner", "BundleBasedDirectRunner", "FnApiRunner")
_BATCH_ROWS = 8192
_EXACT_VALUES = 1 << 17  # a column with fewer distinct values is counted exactly
_DISTINCT_SKETCH = 1 << 14  # more distinct values than this are estimated; the stock sketch has the same size


class Executor(stock.Executor):
    """Writes the statistics of each split, as the stock executor does."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Computes the statistics; see the stock executor for parameters and artifacts."""
        options = _stats_options(exec_properties)
        (examples,) = input_dict["examples"]
        if options is None or not self._runs_here() or not _is_plain_tf_example(examples):
            super().Do(input_dict, output_dict, exec_properties)
            return
        self._log_startup(input_dict, output_dict, exec_properties)
        (statistics,) = output_dict["statistics"]
        if input_dict.get("schema"):
            options.schema = _read_schema(input_dict["schema"])
        excluded = json.loads(exec_properties.get("exclude_splits") or "null") or []
        splits = [name for name in artifact_utils.decode_split_names(examples.split_names) if name not in excluded]
        statistics.split_names = artifact_utils.encode_split_names(splits)
        statistics.span = examples.span
        for split in splits:
            pattern = io_utils.all_files_pattern(artifact_utils.get_split_uri([examples], split))
            computed = compute(sorted(fileio.glob(pattern)), options)
            path = os.path.join(artifact_utils.get_split_uri([statistics], split), stock.DEFAULT_FILE_NAME)
            fileio.makedirs(os.path.dirname(path))
            with fileio.open(path, "wb") as file:
                file.write(computed.SerializeToString())

    def _runs_here(self) -> bool:
        """Whether Beam's work would be done in this process, by one worker."""
        given = pipeline_options.PipelineOptions(flags=list(self._beam_pipeline_args))
        runner = (given.view_as(pipeline_options.StandardOptions).runner or "DirectRunner").rpartition(".")[2]
        direct = given.view_as(pipeline_options.DirectOptions)
        return runner in _LOCAL_RUNNERS and direct.direct_running_mode == "in_memory" and direct.direct_num_workers == 1


def compute(files: list[str], options: tfdv.StatsOptions) -> Any:
    """Computes the statistics of TFRecord files of tf.Example.

    Args:
      files: paths, gzip where they end in `.gz`.
      options: what TFDV computes; of them `schema`, the numbers of buckets and values, and `epsilon`.

    Returns:
      A DatasetFeatureStatisticsList with one dataset.
    """
    import tensorflow as tf
    from tensorflow_data_validation.statistics import stats_impl
    from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

    generators = _generators(options)
    for generator in generators:
        generator.setup()
    accumulators = [generator.create_accumulator() for generator in generators]
    decoder = ExamplesToRecordBatchDecoder()
    for path in files:
        compression = "GZIP" if path.endswith(".gz") else ""
        for records in tf.data.TFRecordDataset(path, compression).batch(_BATCH_ROWS).as_numpy_iterator():
            batch = decoder.DecodeBatch(records.tolist())
            accumulators = [g.add_input(a, batch) for g, a in zip(generators, accumulators, strict=True)]
    return stats_impl.extract_statistics_output(accumulators, generators)


def _generators(options: tfdv.StatsOptions) -> list[Any]:
    """TFDV's default generators; the sketch is large enough to be exact, as the stock pipeline's count of values is."""
    from tensorflow_data_validation.statistics import stats_impl
    from tensorflow_data_validation.statistics.generators import (
        basic_stats_generator,
        top_k_uniques_sketch_stats_generator,
    )

    given = tfdv.StatsOptions(schema=options.schema, add_default_generators=False)
    return [
        basic_stats_generator.BasicStatsGenerator(
            schema=options.schema,
            num_values_histogram_buckets=options.num_values_histogram_buckets,
            num_histogram_buckets=options.num_histogram_buckets,
            num_quantiles_histogram_buckets=options.num_quantiles_histogram_buckets,
            epsilon=options.epsilon,
        ),
        top_k_uniques_sketch_stats_generator.TopKUniquesSketchStatsGenerator(
            schema=options.schema,
            num_top_values=options.num_top_values,
            num_rank_histogram_buckets=options.num_rank_histogram_buckets,
            frequency_threshold=options.frequency_threshold,
            num_misragries_buckets=_EXACT_VALUES,
            num_kmv_buckets=_DISTINCT_SKETCH,
        ),
        # What the schema asks for: sparse features, domains of natural language.
        *stats_impl.get_generators(given, in_memory=True),
    ]


_OWN_OPTIONS = (
    "epsilon",
    "frequency_threshold",
    "num_histogram_buckets",
    "num_quantiles_histogram_buckets",
    "num_rank_histogram_buckets",
    "num_top_values",
    "num_values_histogram_buckets",
    "schema",
)


def _stats_options(exec_properties: dict[str, Any]) -> tfdv.StatsOptions | None:
    """The options to compute with, or None where there are some that only the stock pipeline knows."""
    if exec_properties.get("sharded_stats_output") or json.loads(exec_properties.get("sample_rate_by_split") or "null"):
        return None
    text = exec_properties.get("stats_options_json")
    if not text:
        return tfdv.StatsOptions()
    options = tfdv.StatsOptions.from_json(text)
    plain = tfdv.StatsOptions(**{name: getattr(options, name) for name in _OWN_OPTIONS})
    return options if json.loads(plain.to_json()) == json.loads(options.to_json()) else None


def _is_plain_tf_example(examples: types.Artifact) -> bool:
    return examples_utils.get_payload_format_string(
        examples
    ) == "FORMAT_TF_EXAMPLE" and not examples.has_custom_property("custom_split_pattern")


def _read_schema(schemas: list[types.Artifact]) -> Any:
    return io_utils.SchemaReader().read(io_utils.get_only_uri_in_dir(artifact_utils.get_single_uri(schemas)))
