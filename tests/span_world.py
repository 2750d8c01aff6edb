"""Runs the components of gate 1 one by one: what tests of ingestion, statistics and validation share."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

BEAM_ARGS = [
    "--runner=apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner",
    "--sdk_container_image=in-process",  # or TFX packs its own source for workers that there are none of
]


def artifact(artifact_class: Any, folder: Path) -> Any:
    """Makes an artifact with its folder, as TFX does before an executor runs."""
    folder.mkdir(parents=True, exist_ok=True)
    made = artifact_class()
    made.uri = str(folder)
    return made


def ingest(
    folder: Path,
    files: list[str],
    out: Path,
    settings: Mapping[str, Any],
    format: str = "parquet",
    column_types: Mapping[str, str] | None = None,
) -> Any:
    """Runs SpanExampleGen's executor and returns its Examples."""
    from tfx.types import standard_artifacts

    examples = artifact(standard_artifacts.Examples, out)
    run_example_gen(str(folder), files, examples, settings, format, column_types)
    return examples


def run_example_gen(
    input_base: str,
    files: list[str],
    examples: Any,
    settings: Mapping[str, Any],
    format: str,
    column_types: Mapping[str, str] | None,
) -> None:
    """Runs SpanExampleGen's executor on files of any file system, into an Examples."""
    from evergreen.components.span_example_gen.executor import Executor

    context = Executor.Context(beam_pipeline_args=BEAM_ARGS, tmp_dir="", unique_id="1")
    parameters = {
        "input_base": input_base,
        "files": json.dumps(files),
        "format": format,
        "span": 7,
        "version": 2,
        "digest": "abc",
        "settings": json.dumps(settings),
        "column_types": json.dumps(column_types) if column_types else "",
    }
    Executor(context).Do({}, {"examples": [examples]}, parameters)


def compute_statistics(examples: Any, out: Path, schema: Any = None) -> Any:
    """Runs StatisticsGen's executor and returns its ExampleStatistics."""
    from tfx.types import standard_artifacts

    from evergreen.components.statistics_gen.executor import Executor

    statistics = artifact(standard_artifacts.ExampleStatistics, out)
    context = Executor.Context(beam_pipeline_args=BEAM_ARGS, tmp_dir=str(out), unique_id="1")
    inputs = {"examples": [examples], "schema": [schema] if schema is not None else []}
    Executor(context).Do(inputs, {"statistics": [statistics]}, {"exclude_splits": "[]"})
    return statistics


def schema_artifact(text: str, out: Path) -> Any:
    """Makes a Schema from protobuf's text format."""
    from tfx.types import standard_artifacts

    schema = artifact(standard_artifacts.Schema, out)
    (out / "schema.pbtxt").write_text(text, encoding="utf-8")
    return schema


def shards(examples: Any, split: str) -> list[Path]:
    """Returns a split's files, in order."""
    return sorted((Path(examples.uri) / f"Split-{split}").iterdir())


def records(examples: Any, split: str) -> list[bytes]:
    """Reads the serialized rows of a split, in order."""
    import tensorflow as tf

    paths = [str(path) for path in shards(examples, split)]
    return list(tf.data.TFRecordDataset(paths).as_numpy_iterator())


def rows(examples: Any, split: str) -> list[dict[str, list[Any]]]:
    """Reads the rows of a split, in order: feature to its list of values."""
    return [dict(_features(record)) for record in records(examples, split)]


def _features(record: bytes) -> Iterator[tuple[str, list[Any]]]:
    import tensorflow as tf

    for name, feature in tf.train.Example.FromString(record).features.feature.items():
        kind = feature.WhichOneof("kind")
        yield name, list(getattr(feature, kind).value) if kind else []
