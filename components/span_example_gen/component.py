"""SpanExampleGen as a TFX component: what goes in, what comes out."""

from __future__ import annotations

import json

from tfx import types
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import component_spec, standard_artifacts

from evergreen.components.errors import ConfigError
from evergreen.components.span_example_gen import executor
from evergreen.components.span_example_gen.settings import Settings


class SpanExampleGenSpec(types.ComponentSpec):
    """Parameters and channels of SpanExampleGen."""

    PARAMETERS = {
        "input_base": component_spec.ExecutionParameter(type=str),
        "files": component_spec.ExecutionParameter(type=str),
        "format": component_spec.ExecutionParameter(type=str),
        "span": component_spec.ExecutionParameter(type=int),
        "version": component_spec.ExecutionParameter(type=int),
        "digest": component_spec.ExecutionParameter(type=str),
        "settings": component_spec.ExecutionParameter(type=str),
        "column_types": component_spec.ExecutionParameter(type=str, optional=True),
        "fingerprint": component_spec.ExecutionParameter(type=str, optional=True),
    }
    INPUTS: dict[str, component_spec.ChannelParameter] = {}
    OUTPUTS = {"examples": component_spec.ChannelParameter(type=standard_artifacts.Examples)}


class SpanExampleGen(base_beam_component.BaseBeamComponent):
    """Turns the files of one version of a span into tf.Example, in the splits `train`, `validation` and `exam`.

    The splits are uncompressed TFRecord files, `Split-<name>/data_tfrecord-00000-of-00001`; the same files give the
    same bytes. `exam` is the span's tail by `data.time`, see `splits`; what becomes of a column's type, see `columns`.

    A span that cannot be read gives splits without rows, and the property `unreadable` says why: gate 1 rejects it.

    The output's custom properties: `digest`, `rows`, `rows_train`, `rows_validation`, `rows_exam`, and `exam_from`, the
    time from which on rows are in the exam (empty where it is not cut by time).
    """

    SPEC_CLASS = SpanExampleGenSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(executor.Executor)

    def __init__(
        self,
        input_base: str,
        files: str,
        format: str,
        span: int,
        version: int,
        digest: str,
        settings: str,
        schema_file: str = "",
        fingerprint: str | None = None,
    ):
        """Builds the component.

        Args:
          input_base: folder that holds the files.
          files: JSON list of the span version's files, relative to `input_base`.
          format: "parquet", "csv" or "tfrecord".
          span: the span's number.
          version: the span version's number.
          digest: fingerprint of the files, so that a changed file is read again.
          settings: JSON of the configuration's `data`; of it `time`, `split_key`, `exam`, `validation` and
            `csv.delimiter` are used, and only these are part of the cache key.
          schema_file: path of a schema.pbtxt whose column types CSV is read with, and whole numbers told from others.
            The types go into the cache key and not the file: the span is not read again because a domain changed.
          fingerprint: part of the cache key, nothing else.

        Raises:
          ConfigError: the schema file cannot be read.
        """
        types_json = json.dumps(column_types(schema_file), sort_keys=True) if schema_file else ""
        super().__init__(
            SpanExampleGenSpec(
                input_base=input_base,
                files=files,
                format=format,
                span=span,
                version=version,
                digest=digest,
                settings=Settings.from_section(settings).to_json(),
                column_types=types_json,
                fingerprint=fingerprint or "",
                examples=types.Channel(type=standard_artifacts.Examples),
            )
        )


def column_types(schema_file: str) -> dict[str, str]:
    """Reads the types of a schema's features.

    Args:
      schema_file: path of a schema in protobuf's text format.

    Returns:
      `{feature: "INT", "FLOAT" or "BYTES"}`.

    Raises:
      ConfigError: the file cannot be read.
    """
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2
    from tfx.dsl.io import fileio

    schema = schema_pb2.Schema()
    try:
        with fileio.open(schema_file, "r") as file:
            text_format.Parse(file.read(), schema)
    except (OSError, text_format.ParseError) as error:
        raise ConfigError(
            "the schema cannot be read", f"{schema_file}: {error}", "mend `schema` in the YAML"
        ) from error
    names = {value: name for name, value in schema_pb2.FeatureType.items()}
    return {feature.name: names[feature.type] for feature in schema.feature if feature.type}
