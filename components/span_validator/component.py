"""SpanValidator as a TFX component: what goes in, what comes out."""

from __future__ import annotations

import json

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import component_spec, standard_artifacts

from evergreen.components.span_validator import executor

_SETTINGS = ("min_rows", "on_anomalies")


class SpanValidatorSpec(types.ComponentSpec):
    """Parameters and channels of SpanValidator."""

    PARAMETERS = {
        "settings": component_spec.ExecutionParameter(type=str),
        "fingerprint": component_spec.ExecutionParameter(type=str, optional=True),
    }
    INPUTS = {
        "statistics": component_spec.ChannelParameter(type=standard_artifacts.ExampleStatistics),
        "schema": component_spec.ChannelParameter(type=standard_artifacts.Schema),
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "previous_statistics": component_spec.ChannelParameter(
            type=standard_artifacts.ExampleStatistics, optional=True
        ),
    }
    OUTPUTS = {"anomalies": component_spec.ChannelParameter(type=standard_artifacts.ExampleAnomalies)}


class SpanValidator(base_component.BaseComponent):
    """Gate 1: accepts or rejects a version of a span.

    TFDV validates the statistics against the schema (environment TRAINING, where the schema has it) and against those
    of an earlier span, by the schema's drift comparators. A verdict is an artifact and not an exception: a rejected
    span is a complete run.

    The anomalies of each split are kept as the stock ExampleValidator keeps them, `Split-<name>/SchemaDiff.pb`. What
    decides are the anomalies of the span as a whole, see `verdict.merge`, the drift of `train`, and the number of rows.
    They stand in `verdict.json` and in the output's custom properties: `verdict` ("accepted" or "rejected"), `accepted`
    (1 or 0), `reasons` (JSON list of `feature`, `reason`, `description`, `split`), `rows`, `span` and `version`.
    """

    SPEC_CLASS = SpanValidatorSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(
        self,
        statistics: types.BaseChannel,
        schema: types.BaseChannel,
        examples: types.BaseChannel,
        settings: str,
        previous_statistics: types.BaseChannel | None = None,
        fingerprint: str | None = None,
    ):
        """Builds the component.

        Args:
          statistics: ExampleStatistics of the span version.
          schema: Schema to hold them against.
          examples: Examples of the span version; its `span` and `version` are the verdict's.
          settings: JSON of the configuration's `data`; of it `min_rows` (default 1) and `on_anomalies` ("reject" or
            "warn") are used, and only these are part of the cache key.
          previous_statistics: ExampleStatistics of the last accepted span; may be empty.
          fingerprint: part of the cache key, nothing else.
        """
        section = json.loads(settings)
        used = {name: section[name] for name in _SETTINGS if name in section}
        super().__init__(
            SpanValidatorSpec(
                statistics=statistics,
                schema=schema,
                examples=examples,
                previous_statistics=previous_statistics,
                settings=json.dumps(used, sort_keys=True),
                fingerprint=fingerprint or "",
                anomalies=types.Channel(type=standard_artifacts.ExampleAnomalies),
            )
        )
