"""Runs the ingestion of a span version as a Beam pipeline over pieces of its files."""

from __future__ import annotations

import datetime
import json
from typing import Any

import apache_beam as beam
from tfx import types
from tfx.dsl.components.base import base_beam_executor

from evergreen.components.errors import ConfigError, DataRejected
from evergreen.components.span_example_gen import convert, files, pieces, tfrecord_source
from evergreen.components.span_example_gen.settings import FORMATS, SPLITS, Settings


class Executor(base_beam_executor.BaseBeamExecutor):
    """Reads the files of a span version and writes tf.Example in the splits train, validation and exam."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Ingests a span version; see `component.SpanExampleGen` for the parameters and the artifact.

        A span that cannot be read (damaged files, a missing column, a value that its column cannot hold, no rows) gives
        Examples without rows whose property `unreadable` says why: gate 1 decides on it like on any other span, and a
        run that only wanted it for its window goes on without it.

        Raises:
          SpanError: a file is gone.
          ConfigError: the format is unknown.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        (examples,) = output_dict["examples"]
        try:
            self._ingest(examples, exec_properties)
        except DataRejected as refusal:
            _leave_empty(examples, exec_properties, refusal)

    def _ingest(self, examples: types.Artifact, exec_properties: dict[str, Any]) -> None:
        """Reads and writes; raises DataRejected where the span cannot be read."""
        settings = Settings.from_section(exec_properties["settings"])
        format = exec_properties["format"]
        if format not in FORMATS:
            raise ConfigError(f"`data.format` is {format!r}", f"Expected one of {', '.join(FORMATS)}", "mend the YAML")
        names = json.loads(exec_properties["files"])
        column_types = json.loads(exec_properties.get("column_types") or "null")

        paths = pieces.paths(exec_properties["input_base"], names)
        surveys = [pieces.survey(path, format, settings, column_types) for path in paths]
        work = pieces.divide(surveys)
        job = pieces.Job(
            format, settings, pieces.common_kinds(surveys, format, column_types), len(work), examples.uri.rstrip("/")
        )
        _make_folders(job)
        with self._make_beam_pipeline() as pipeline:
            build(pipeline, work, job)
        outcomes = _collect(job)
        rows = {split: sum(outcome.rows.get(split, 0) for outcome in outcomes) for split in SPLITS}
        if not sum(rows.values()):
            raise DataRejected(
                f"span {exec_properties['span']} has no rows", f"read: {', '.join(paths)}", files.NEXT_STEP
            )
        _fill_empty_splits(job, rows)
        timed = any(settings.time in survey.timestamps for survey in surveys)
        _describe(examples, exec_properties, rows, _exam_from(outcomes[0].cut, timed))


def build(pipeline: beam.Pipeline, work: list[pieces.Piece], job: pieces.Job) -> None:
    """Adds the stages: where the exam is cut by time the times of all pieces are counted first.

    Args:
      pipeline: an empty pipeline.
      work: the pieces of the span.
      job: what they have in common.
    """
    parts = pipeline | "Pieces" >> beam.Create(work)
    if not job.settings.cuts_by_time:
        _ = parts | "Write" >> beam.Map(convert.write_piece, job)
        return
    cut = (
        parts
        | "CountTimes" >> beam.Map(convert.count_times, job)
        | "MergeCounts" >> beam.CombineGlobally(convert.merge_counts)
        | "FindCut" >> beam.Map(convert.find_cut, job)
    )
    _ = parts | "Write" >> beam.Map(convert.write_piece, job, beam.pvalue.AsSingleton(cut))


def _make_folders(job: pieces.Job) -> None:
    from tfx.dsl.io import fileio

    for folder in (convert.STAGING, *(f"Split-{split}" for split in SPLITS)):
        fileio.makedirs(f"{job.uri}/{folder}")


def _collect(job: pieces.Job) -> list[convert.Outcome]:
    """Reads the outcome of each piece; the first failure is raised."""
    from tfx.dsl.io import fileio

    outcomes = []
    kinds: dict[str, str] = {}
    for index in range(job.pieces):
        with fileio.open(convert.outcome_path(job, index), "r") as file:
            outcome = convert.Outcome.read(file.read())
        if outcome.failure:
            raise outcome.failure.exception()
        tfrecord_source.merge_kinds(f"piece {index + 1} of {job.pieces}", kinds, outcome.kinds)
        outcomes.append(outcome)
    fileio.rmtree(f"{job.uri}/{convert.STAGING}")
    return outcomes


def _fill_empty_splits(job: pieces.Job, rows: dict[str, int]) -> None:
    """Gives a split without rows an empty TFRecord file: stock components refuse a pattern that matches nothing."""
    for split, count in rows.items():
        if not count:
            _write_empty(convert.shard_path(job, split, 0))


def _write_empty(path: str) -> None:
    from tfx.dsl.io import fileio

    with fileio.open(path, "wb") as file:
        file.write(b"")  # without a write TensorFlow makes no file


def _leave_empty(examples: types.Artifact, exec_properties: dict[str, Any], refusal: DataRejected) -> None:
    """Turns the artifact into one without rows that says why."""
    from tfx.dsl.io import fileio

    uri = examples.uri.rstrip("/")
    for name in fileio.listdir(uri):
        fileio.rmtree(f"{uri}/{name}")
    for split in SPLITS:
        fileio.makedirs(f"{uri}/Split-{split}")
        _write_empty(f"{uri}/Split-{split}/data_tfrecord-00000-of-00001")
    _describe(examples, exec_properties, dict.fromkeys(SPLITS, 0), "")
    examples.set_string_custom_property("unreadable", ": ".join(filter(None, (refusal.headline, refusal.reason))))


def _exam_from(cut: Any, is_time: bool) -> str:
    if cut is None:
        return ""
    if is_time:
        return datetime.datetime.fromtimestamp(cut, datetime.timezone.utc).isoformat()
    return str(cut)


def _describe(examples: types.Artifact, exec_properties: dict[str, Any], rows: dict[str, int], exam_from: str) -> None:
    """Sets the artifact's properties: the stock ones, by which stock components read it, and ours."""
    examples.span = exec_properties["span"]
    examples.version = exec_properties["version"]
    examples.split_names = json.dumps(SPLITS)
    examples.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    examples.set_string_custom_property("file_format", "tfrecords_gzip")  # the stock name; readers go by the file's end
    examples.set_string_custom_property("digest", exec_properties["digest"])
    examples.set_string_custom_property("exam_from", exam_from)
    examples.set_int_custom_property("rows", sum(rows.values()))
    for split, count in rows.items():
        examples.set_int_custom_property(f"rows_{split}", count)
