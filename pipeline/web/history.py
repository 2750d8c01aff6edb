"""The model's history as plain values: each run's metric, span, window, size, latency, age, and why it was refused."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from evergreen.components.pusher import catalog
from evergreen.components.span_records import property_value
from evergreen.pipeline.lineage import Lineage
from evergreen.pipeline.span_pattern import Pattern
from evergreen.pipeline.store import RUN_TYPE, Result, Run
from evergreen.pipeline.web import charts

Values = dict[str, Any]
# Runs on one page: as many as a plot can show and a store can answer for in a second or two.
SHOWN = 200
_WINDOWS_SHOWN = 30
_GATES = ("SpanValidator", "Evaluator", "Quantizer", "ServingValidator")
_REFUSED = (Result.DATA_REJECTED, Result.MODEL_REJECTED, Result.WITHDRAWN)


def history(lineage: Lineage, count: int = SHOWN) -> Values:
    """Gathers the newest runs and what became of them.

    Args:
      lineage: the project's.
      count: how many runs at most.

    Returns:
      `rows` (oldest first), `plots`, `windows` (a grid of versions by spans), `refused`, `metric`, and `more`: whether
      there are older runs.
    """
    newest = lineage.store.newest_runs(count + 1)
    runs = newest[:count][::-1]
    records = {record.version: record for record in catalog.list_versions(str(lineage.config.publish.base_path))}
    measured = _measured(lineage, runs)
    label = Pattern(lineage.config.data.pattern).label
    rows = [row(run, records.get(run.pushed_version), measured.get(run.id, {})) for run in runs]
    _ages(rows)
    metrics = list(lineage.config.evaluate.metrics)
    refused = [one for one in rows if one["refused"]]
    return {
        "rows": rows,
        "metrics": metrics,
        "plots": plots(rows, metrics),
        "windows": windows(rows, label),
        "refused": refused,
        "more": len(newest) > count,
    }


def row(run: Run, record: catalog.VersionRecord | None, measured: Mapping[str, Any]) -> Values:
    """Describes a run by its context, the version on disk, and what its gates measured.

    Args:
      run: the run.
      record: the version that it published, where that is still there.
      measured: `chosen`, `tflite_bytes`, `latency_ms`, `server_ms` and `why` as far as they are known.
    """
    numbers = _json(run.properties.get("metrics"))
    return {
        "run": run.id,
        "span": run.span,
        "label": run.label,
        "result": run.result.value,
        "reason": run.reason,
        "refused": run.result in _REFUSED,
        "why": measured.get("why", []),
        "trigger": run.trigger,
        "started": run.started,
        "ended": run.ended or None,
        "seconds": run.seconds if run.ended else None,
        "version": run.pushed_version or None,
        "live": bool(record and record.live),
        "on_disk": record is not None,
        "exam": numbers.get("exam") or (record.metrics if record else {}),
        "before": numbers.get("champion_on_span") or {},
        "window": [int(span) for span in _list(run.properties.get("window"))],
        "bytes": record.bytes if record else None,
        **{key: measured.get(key) for key in ("chosen", "tflite_bytes", "latency_ms", "server_ms")},
        "answered": None,
    }


def plots(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> list[Values]:
    """Makes the plots over the runs: each metric, sizes, latencies, ages.

    Args:
      rows: of `row`, the oldest first.
      metrics: names of the metrics.
    """
    x, names = list(range(len(rows))), [f"span {one['label'] or '?'}" for one in rows]
    found = [
        charts.plot(
            metric,
            x,
            {
                "published, on its exam": [
                    one["exam"].get(metric) if one["version"] and not one["refused"] else None for one in rows
                ],
                "refused, on its exam": [one["exam"].get(metric) if one["refused"] else None for one in rows],
                "the version before, on the new span": [one["before"].get(metric) for one in rows],
            },
            "span",
            names,
        )
        for metric in metrics
    ]
    found += [
        charts.plot("size, MB", x, {
            "SavedModel": [_scaled(one["bytes"], 1e-6) for one in rows],
            "chosen TFLite variant": [_scaled(one["tflite_bytes"], 1e-6) for one in rows],
        }, "span", names),
        charts.plot("latency of one row, ms", x, {
            "TFLite": [one["latency_ms"] for one in rows],
            "server": [one["server_ms"] for one in rows],
        }, "span", names),
        charts.plot("minutes of training and examining", x, {
            "a run": [_scaled(one["seconds"], 1 / 60) for one in rows]
        }, "span", names),
        charts.plot("hours that a version answered", x, {
            "version": [_scaled(one["answered"], 1 / 3600) for one in rows]
        }, "span", names),
    ]  # fmt: skip
    return [one for one in found if one]


def windows(rows: Sequence[Mapping[str, Any]], label: Any) -> Values | None:
    """Draws which spans each published version was trained on.

    Args:
      rows: of `row`, the oldest first.
      label: writes a span's number as the user does.

    Returns:
      `spans` (their labels) and `rows` (`version`, `live`, `cells`, one of each span); None where nothing is known.
    """
    known = [one for one in rows if one["version"] and one["window"]][-_WINDOWS_SHOWN:]
    if not known:
        return None
    spans = sorted({span for one in known for span in one["window"]})
    return {
        "spans": [label(span) for span in spans],
        "rows": [
            {"version": one["version"], "live": one["live"], "cells": [span in one["window"] for span in spans]}
            for one in reversed(known)
        ],
    }


def _ages(rows: list[Values]) -> None:
    """Notes for how long each version answered, in seconds, until the next one was published."""
    published = [one for one in rows if one["version"] and one["ended"]]
    for one, following in itertools.pairwise(published):
        one["answered"] = (following["ended"] - one["ended"]) / 1000


def _measured(lineage: Lineage, runs: Sequence[Run]) -> dict[str, Values]:
    """Reads sizes, latencies and refusals from the gates' verdicts: two queries a run, the rest for all together."""
    store, graph = lineage.store, lineage.graph
    if not store.exists:
        return {}
    of_run: dict[int, str] = {}
    refusing = []
    for run in runs:
        context = store.mlmd.get_context_by_type_and_name(RUN_TYPE, run.id)
        if context is None or not (run.pushed_version or run.result in _REFUSED):
            continue
        executions = store.mlmd.get_executions_by_context(context.id)
        of_run.update({e.id: run.id for e in executions if graph.kind(e) in _GATES})
        if run.result in _REFUSED:
            refusing += executions
    edges = graph.outputs(of_run)
    artifacts = {artifact.id: artifact for artifact in graph.artifacts(edge.artifact_id for edge in edges)}
    found: dict[str, Values] = {}
    for edge in edges:
        artifact = artifacts.get(edge.artifact_id)
        if artifact is None:
            continue
        values = found.setdefault(of_run[edge.execution_id], {})
        if edge.key == "report":
            values.update(_chosen(_json(property_value(artifact, "table"))))
        elif edge.key == "blessing" and property_value(artifact, "report"):
            values["server_ms"] = server_ms(_json(property_value(artifact, "report")))
    for gate in lineage.verdicts(refusing):
        if not gate.open:
            found.setdefault(of_run[gate.execution_id], {}).setdefault("why", []).extend(gate.words)
    return found


def _chosen(table: Values) -> Values:
    chosen: Values = next((one for one in table.get("variants", []) if one.get("variant") == table.get("chosen")), {})
    timed = (chosen.get("latency_ms") or {}).get("1x1") or {}
    return {"chosen": table.get("chosen"), "tflite_bytes": chosen.get("bytes"), "latency_ms": timed.get("p50")}


def server_ms(report: Mapping[str, Any]) -> float | None:
    """Returns the first median time of single rows in gate 4's report, milliseconds; None where none was taken."""
    for model in report.get("models", []):
        for one in model.get("signatures", []):
            if one.get("p50_ms") is not None:
                return float(one["p50_ms"])
    return None


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _json(text: Any) -> Values:
    try:
        found = json.loads(text) if isinstance(text, str) and text else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _list(text: Any) -> list[Any]:
    try:
        found = json.loads(text) if isinstance(text, str) and text else []
    except ValueError:
        return []
    return found if isinstance(found, list) else []
