"""Runs gate 1: TFDV validates, `verdict` decides."""

from __future__ import annotations

import json
import os
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils

from evergreen.components.span_validator import merged_statistics, verdict
from evergreen.components.span_validator.verdict import Reason

VERDICT_FILE = "verdict.json"
_DIFF_FILE = "SchemaDiff.pb"  # the stock ExampleValidator's
_ENVIRONMENT = "TRAINING"
# Drift is measured on the first of these that has rows in both spans.
_DRIFT_SPLITS = ("train", "exam", "validation")
_DRIFT = "COMPARATOR_"


class Executor(base_executor.BaseExecutor):
    """Validates the statistics of a span version and writes the verdict."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Decides on a span version; see `component.SpanValidator` for channels, parameters and properties."""
        self._log_startup(input_dict, output_dict, exec_properties)
        (statistics,), (examples,) = input_dict["statistics"], input_dict["examples"]
        (anomalies,) = output_dict["anomalies"]
        previous = (input_dict.get("previous_statistics") or [None])[0]
        settings = json.loads(exec_properties["settings"])

        splits = _load(statistics)
        schema = _load_schema(input_dict["schema"])
        drift_split, before = _drift_pair(splits, _load(previous) if previous is not None else {})
        found = _validate_splits(splits, schema, drift_split, before, anomalies)
        reasons: tuple[Reason, ...] = ()
        filled = {name: dataset for name, dataset in splits.items() if dataset.num_examples}
        if filled:
            whole, divided = merged_statistics.merge(list(filled.values()))
            in_span = _reasons(_validate(whole, schema), verdict.SPAN)
            in_splits = {name: [r for r in found[name] if not r.reason.startswith(_DRIFT)] for name in filled}
            drift = [r for r in found.get(drift_split, []) if r.reason.startswith(_DRIFT)]
            reasons = tuple(sorted((*verdict.merge(in_span, in_splits, divided), *drift)))
        decided = verdict.decide(
            reasons,
            {name: dataset.num_examples for name, dataset in splits.items()},
            int(settings.get("min_rows", 1)),
            settings.get("on_anomalies", "reject"),
            previous.span if previous is not None and before is not None else None,
            examples.get_string_custom_property("unreadable"),
        )
        _describe(anomalies, examples, list(splits), decided)


def drifted(statistics: types.Artifact, before: types.Artifact, schema_file: str) -> list[str]:
    """Lists the features whose distribution differs between two spans by more than the schema's comparators allow.

    Args:
      statistics: ExampleStatistics of the one span.
      before: those of the span that it is compared with.
      schema_file: the schema, a text proto.

    Returns:
      The features' names, sorted; none where the spans have no split in common that has rows.
    """
    from tfx.utils import io_utils

    now = _load(statistics)
    split, reference = _drift_pair(now, _load(before))
    if reference is None:
        return []
    anomalies = _validate(now[split], io_utils.SchemaReader().read(schema_file), reference)
    return sorted({reason.feature for reason in _reasons(anomalies, split) if reason.reason.startswith(_DRIFT)})


def _load(statistics: types.Artifact) -> dict[str, Any]:
    """Reads the statistics of each split: DatasetFeatureStatistics."""
    from tfx.components.statistics_gen import stats_artifact_utils

    return {
        split: stats_artifact_utils.load_statistics(statistics, split).proto().datasets[0]
        for split in artifact_utils.decode_split_names(statistics.split_names)
    }


def _load_schema(schemas: list[types.Artifact]) -> Any:
    from tfx.utils import io_utils

    return io_utils.SchemaReader().read(io_utils.get_only_uri_in_dir(artifact_utils.get_single_uri(schemas)))


def _drift_pair(now: dict[str, Any], before: dict[str, Any]) -> tuple[str, Any | None]:
    """The split to measure drift on, and what it was in the earlier span (None where there is nothing to compare)."""
    for split in _DRIFT_SPLITS:
        if split in now and split in before and now[split].num_examples and before[split].num_examples:
            return split, before[split]
    return "", None


def _validate_splits(
    splits: dict[str, Any], schema: Any, drift_split: str, before: Any | None, anomalies: types.Artifact
) -> dict[str, list[Reason]]:
    """Validates each split by itself and writes its SchemaDiff.pb, an empty one for a split without rows."""
    from tensorflow_metadata.proto.v0 import anomalies_pb2
    from tfx.dsl.io import fileio
    from tfx.utils import writer_utils

    found = {}
    for split, dataset in splits.items():
        if dataset.num_examples:
            diff = _validate(dataset, schema, before if split == drift_split else None)
        else:
            diff = anomalies_pb2.Anomalies(data_missing=True)
        folder = os.path.join(anomalies.uri, f"Split-{split}")
        fileio.makedirs(folder)
        writer_utils.write_anomalies(os.path.join(folder, _DIFF_FILE), diff)
        found[split] = _reasons(diff, split)
    return found


def _validate(dataset: Any, schema: Any, before: Any | None = None) -> Any:
    """Returns TFDV's Anomalies of a DatasetFeatureStatistics."""
    import tensorflow_data_validation as tfdv
    from tensorflow_metadata.proto.v0 import statistics_pb2

    def as_list(one: Any) -> Any:
        return statistics_pb2.DatasetFeatureStatisticsList(datasets=[one])

    return tfdv.validate_statistics(
        as_list(dataset),
        schema,
        environment=_ENVIRONMENT if _ENVIRONMENT in schema.default_environment else None,
        previous_statistics=None if before is None else as_list(before),
    )


def _reasons(anomalies: Any, split: str) -> list[Reason]:
    """Reads TFDV's Anomalies."""
    from tensorflow_metadata.proto.v0 import anomalies_pb2

    infos = [(key, info) for key, info in anomalies.anomaly_info.items()]
    if anomalies.HasField("dataset_anomaly_info"):
        infos.append(("", anomalies.dataset_anomaly_info))
    found = []
    for key, info in infos:
        feature = ".".join(info.path.step) or key
        error = info.severity != anomalies_pb2.AnomalyInfo.WARNING
        for reason in info.reason:
            name = anomalies_pb2.AnomalyInfo.Type.Name(reason.type)
            found.append(Reason(feature, name, reason.description or reason.short_description, split, error))
    return found


def _describe(anomalies: types.Artifact, examples: types.Artifact, splits: list[str], decided: verdict.Verdict) -> None:
    """Writes verdict.json and the artifact's properties."""
    from tfx.dsl.io import fileio

    anomalies.split_names = artifact_utils.encode_split_names(splits)
    anomalies.span = examples.span
    with fileio.open(os.path.join(anomalies.uri, VERDICT_FILE), "w") as file:
        file.write(decided.to_json(examples.span, examples.version))
    anomalies.set_int_custom_property("span", examples.span)
    anomalies.set_int_custom_property("version", examples.version)
    anomalies.set_int_custom_property("rows", decided.rows)
    anomalies.set_int_custom_property("accepted", int(decided.accepted))
    anomalies.set_string_custom_property("verdict", decided.word)
    anomalies.set_string_custom_property("reasons", decided.listed_reasons())
