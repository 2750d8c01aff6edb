"""What ML Metadata knows about spans: which span versions were decided, how, and by which artifacts.

Read by the resolvers inside a pipeline and by `plan`, `status` and the rest outside of one, so that both see the same
verdicts. Imports no TensorFlow and no tfx: the store is passed in.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

EXAMPLES_TYPE = "Examples"
ANOMALIES_TYPE = "ExampleAnomalies"
STATISTICS_TYPE = "ExampleStatistics"
LIVE, DELETED = 2, 4  # metadata_store_pb2.Artifact.State
# metadata_store_pb2.Event.Type. INTERNAL_INPUT and INTERNAL_OUTPUT (5, 6) are a resolver's, which makes nothing.
INPUT_EVENTS = (2, 3)  # DECLARED_INPUT, INPUT
OUTPUT_EVENTS = (1, 4)  # DECLARED_OUTPUT, OUTPUT
# What TFX itself puts onto every artifact.
_OF_TFX = ("is_external", "tfx_version")


@dataclass(frozen=True)
class SpanRecord:
    """Gate 1's decision on one span version.

    Attributes:
      span: the span's number.
      version: the span version's number.
      accepted: whether windows may use it.
      rows: labelled rows in all splits together.
      reasons: one dict for each anomaly (`feature`, `reason`, `description`, `split`).
      digest: fingerprint of the files that were read.
      examples_id: id of the Examples artifact.
      statistics_id: id of the ExampleStatistics artifact.
      anomalies_id: id of the ExampleAnomalies artifact that holds the verdict.
      decided: milliseconds since 1970, UTC.
    """

    span: int
    version: int
    accepted: bool
    rows: int
    reasons: tuple[dict[str, Any], ...]
    digest: str
    examples_id: int
    statistics_id: int
    anomalies_id: int
    decided: int

    @property
    def key(self) -> tuple[int, int]:
        return self.span, self.version


def property_value(artifact: Any, name: str, default: Any = None) -> Any:
    """Returns a property or custom property of an ML Metadata artifact, execution or context proto.

    Args:
      artifact: the proto.
      name: the property's name; custom properties win, since ours are custom.
      default: what to return where the property is absent.
    """
    for properties in (artifact.custom_properties, artifact.properties):
        if name in properties:
            value = properties[name]
            kind = value.WhichOneof("value")
            return getattr(value, kind) if kind else default
    return default


def properties(proto: Any) -> dict[str, Any]:
    """Returns all properties of an ML Metadata artifact, execution or context proto, custom ones too, by name.

    Args:
      proto: the proto; what TFX itself writes onto every artifact is left out.
    """
    return {
        name: getattr(value, value.WhichOneof("value"))
        for own in (proto.properties, proto.custom_properties)
        for name, value in own.items()
        if value.WhichOneof("value") and name not in _OF_TFX
    }


def live_artifacts(store: Any, type_name: str) -> list[Any]:
    """Lists a type's artifacts that still exist.

    Args:
      store: an `ml_metadata.MetadataStore`.
      type_name: the artifact type.

    Returns:
      The protos in the order of their ids; none where the type was never used.
    """
    found = [artifact for artifact in store.get_artifacts_by_type(type_name) if artifact.state == LIVE]
    return sorted(found, key=lambda artifact: artifact.id)


def producers_and_inputs(store: Any, artifact_ids: Iterable[int]) -> dict[int, tuple[int, list[int]]]:
    """Maps artifacts to the execution that made them and that execution's inputs.

    A resolver, or a cached execution, lists an artifact among its outputs too; the producer is the earliest one.

    Args:
      store: an `ml_metadata.MetadataStore`.
      artifact_ids: the artifacts asked for.

    Returns:
      `{artifact id: (execution id, [input artifact ids])}`.
    """
    ids = list(artifact_ids)
    if not ids:
        return {}
    producer: dict[int, int] = {}
    for event in store.get_events_by_artifact_ids(ids):
        if event.type in OUTPUT_EVENTS:
            known = producer.get(event.artifact_id)
            producer[event.artifact_id] = event.execution_id if known is None else min(known, event.execution_id)
    inputs: dict[int, list[int]] = defaultdict(list)
    executions = sorted(set(producer.values()))
    if executions:
        for event in store.get_events_by_execution_ids(executions):
            if event.type in INPUT_EVENTS:
                inputs[event.execution_id].append(event.artifact_id)
    return {artifact: (execution, inputs[execution]) for artifact, execution in producer.items()}


def span_records(store: Any) -> list[SpanRecord]:
    """Reads every decision of gate 1 whose examples still exist.

    Args:
      store: an `ml_metadata.MetadataStore`.

    Returns:
      The records in the order in which they were decided; a span version that was decided twice (the code changed and
      the user asked for that span again) appears twice.
    """
    verdicts = [a for a in live_artifacts(store, ANOMALIES_TYPE) if property_value(a, "verdict")]
    examples = {a.id: a for a in live_artifacts(store, EXAMPLES_TYPE)}
    statistics = {a.id for a in live_artifacts(store, STATISTICS_TYPE)}
    made = producers_and_inputs(store, [a.id for a in verdicts])
    records = []
    for verdict in verdicts:
        span, version = property_value(verdict, "span"), property_value(verdict, "version")
        _, inputs = made.get(verdict.id, (0, []))
        own = [i for i in inputs if i in examples and property_value(examples[i], "span") == span]
        stats = [i for i in inputs if i in statistics]
        if not own or not stats:
            continue
        records.append(
            SpanRecord(
                span=int(span),
                version=int(version),
                accepted=property_value(verdict, "verdict") == "accepted",
                rows=int(property_value(verdict, "rows", 0)),
                reasons=tuple(json.loads(property_value(verdict, "reasons", "[]"))),
                digest=str(property_value(examples[own[0]], "digest", "")),
                examples_id=own[0],
                # The validator reads two statistics: the span's own and the previous span's. The own one is the newer.
                statistics_id=max(stats),
                anomalies_id=verdict.id,
                decided=int(verdict.create_time_since_epoch),
            )
        )
    return records


def newest_accepted(records: Iterable[SpanRecord]) -> dict[int, SpanRecord]:
    """Picks, for each span, the newest accepted version and of that the newest decision.

    Args:
      records: in the order in which they were decided.

    Returns:
      `{span: record}`; a span of which no version was accepted is absent.
    """
    best: dict[int, SpanRecord] = {}
    for record in records:
        known = best.get(record.span)
        if record.accepted and (
            known is None or (record.version, record.anomalies_id) > (known.version, known.anomalies_id)
        ):
            best[record.span] = record
    return best
