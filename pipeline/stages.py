"""What a stage is called, what its outputs say in one line, and which gate refused.

Pure: reads artifact protos that it is given.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from evergreen.components.errors import DataRejected, EvergreenError, ModelRejected
from evergreen.components.quantizer.report import left_out
from evergreen.components.serving_validator.report import line as serving_line
from evergreen.components.span_records import property_value
from evergreen.pipeline.plan import Plan

Outputs = Mapping[str, Mapping[str, list[Any]]]

_DESCRIPTIONS = {
    "SpanExampleGen": "reading the span",
    "StatisticsGen": "computing statistics",
    "SpanValidator": "gate 1: data against schema, drift and row count",
    "ChampionExam": "the live model on the new span",
    "Transform": "analysing the window",
    "Trainer": "training",
    "Evaluator": "gate 2: challenger against champion",
    "Quantizer": "gate 3: TFLite variants",
    "ServingValidator": "gate 4: a real server answers",
    "Pusher": "publishing",
}
# Each gate with the stage, the output and the property of its verdict; and how many of them stand before a stage.
_GATES = (
    ("gate 1", "SpanValidator", "anomalies", "accepted"),
    ("gate 2", "Evaluator", "blessing", "blessed"),
    ("gate 3", "Quantizer", "report", "passed"),
    ("gate 4", "ServingValidator", "blessing", "blessed"),
)
_GATES_BEFORE = {
    "ChampionExam": 1,
    "Transform": 1,
    "Trainer": 1,
    "Evaluator": 1,
    "Quantizer": 2,
    "ServingValidator": 3,
    "Pusher": 4,
}
# Resolvers, gates' conditions and the schema's importer take milliseconds and say nothing.
_HIDDEN = (
    "Schema",
    "PreviousStatistics",
    "Window",
    "Champion",
    "AnalyzerCache",
    "QualityGate",
    "VariantsGate",
    "ServingGate",
)


def kind(node_id: str) -> str:
    """Returns a node's kind: its id without the span behind the dot."""
    return node_id.partition(".")[0]


def title(node_id: str | None) -> str:
    """Returns how a stage is named in a sentence."""
    return node_id or "the run"


def is_shown(node_id: str) -> bool:
    """Whether the user sees the stage go by."""
    return kind(node_id) not in _HIDDEN


def describe(node_id: str) -> str:
    """Says what a stage does, in a few words."""
    return _DESCRIPTIONS.get(kind(node_id), "")


def summary(node_id: str, outputs: Mapping[str, list[Any]]) -> str:
    """Says in one line what a stage found.

    Args:
      node_id: the stage.
      outputs: its output artifacts (protos) by key.

    Returns:
      The line; empty for a stage of the user's own.
    """
    reader = _SUMMARIES.get(kind(node_id))
    return reader(outputs) if reader else ""


def warnings(node_id: str, outputs: Mapping[str, list[Any]]) -> list[str]:
    """Says what a stage let pass although a person should know of it.

    Args:
      node_id: the stage.
      outputs: its output artifacts (protos) by key.

    Returns:
      One sentence each.
    """
    if kind(node_id) == "Quantizer" and outputs.get("report"):
        return left_out(json.loads(property_value(outputs["report"][0], "table", "{}")))
    if kind(node_id) == "SpanValidator" and property_value(outputs["anomalies"][0], "accepted", 0):
        return [_reason_line(reason) for reason in json.loads(property_value(outputs["anomalies"][0], "reasons", "[]"))]
    return []


def refusal(outputs: Outputs, plan: Plan) -> EvergreenError | None:
    """Reads the gates in the order of the flow.

    Args:
      outputs: output artifacts by node id and key.
      plan: what the run was to do.

    Returns:
      What the first closed gate says, None where all were passed.
    """
    label = plan.target.label if plan.target else "?"
    gate = closed_gate("Pusher", outputs)
    if gate == "gate 1":
        verdict = _first(outputs, "SpanValidator", "anomalies")
        reasons = json.loads(property_value(verdict, "reasons", "[]"))
        return DataRejected(
            f"span {label} was rejected: {_count(len(reasons), 'reason', 'reasons')}",
            "\n".join(_reason_line(reason) for reason in reasons),
            f"deliver the span again; or, if the data is right, change the schema and run with --span {label}",
        )
    if gate == "gate 2":
        blessing = _first(outputs, "Evaluator", "blessing")
        return ModelRejected(
            f"the model of span {label} was not published: gate 2 is closed",
            "\n".join(json.loads(property_value(blessing, "reasons", "[]"))),
            f"the live version is untouched; if you change `evaluate` in the YAML, run with --span {label}",
        )
    if gate == "gate 3":
        report = _first(outputs, "Quantizer", "report")
        return ModelRejected(
            f"the model of span {label} was not published: gate 3 is closed",
            str(property_value(report, "reason", "a required variant lost too much")),
            f"the live version is untouched; if you change `quantize` in the YAML, run with --span {label}",
        )
    if gate == "gate 4":
        blessing = _first(outputs, "ServingValidator", "blessing")
        return ModelRejected(
            f"the model of span {label} was not published: gate 4 is closed",
            "\n".join(json.loads(property_value(blessing, "reasons", "[]"))),
            f"the live version is untouched; the server's own log: {getattr(blessing, 'uri', '')}/server.log",
        )
    return None


def withdrawal(pushed: Any) -> EvergreenError | None:
    """Reads whether a version was taken back after it had been published.

    Args:
      pushed: the PushedModel's proto.

    Returns:
      What the user is told; None where it was not.
    """
    if not property_value(pushed, "withdrawn", 0):
        return None
    return ModelRejected(
        f"version {property_value(pushed, 'pushed_version')} was withdrawn after it had been published",
        str(property_value(pushed, "reason", "")),
        "the version before it answers again; `evergreen versions` shows where the files of the withdrawn one lie",
    )


def closed_gate(node_id: str, outputs: Outputs) -> str | None:
    """Says which gate keeps a stage from running.

    Args:
      node_id: a stage of ours that has not run.
      outputs: output artifacts by node id and key, of what ran so far.

    Returns:
      The first closed gate before it, such as `gate 1`; None where all of them are open.
    """
    for gate, node, key, verdict in _GATES[: _GATES_BEFORE.get(kind(node_id), 0)]:
        artifact = _first(outputs, node, key)
        if artifact is not None and not property_value(artifact, verdict, 0):
            return gate
    return None


def exam_metrics(outputs: Outputs) -> dict[str, Any]:
    """Returns what the run measured: the challenger's and the champion's metrics, as far as it came."""
    blessing = _first(outputs, "Evaluator", "blessing")
    champion = _first(outputs, "ChampionExam", "evaluation")
    found: dict[str, Any] = {}
    if champion is not None and property_value(champion, "champion", 0):
        found["champion_on_span"] = json.loads(property_value(champion, "metrics", "{}"))
    if blessing is not None:
        found["exam"] = json.loads(property_value(blessing, "metrics", "{}"))
        found["champion_exam"] = json.loads(property_value(blessing, "champion_metrics", "null"))
    return found


def end_properties(outputs: Outputs, reason: str, version: int) -> dict[str, Any]:
    """Returns what a run's context holds of its end, for `Store.end_run`.

    Args:
      outputs: output artifacts by node id and key, as far as the run came.
      reason: why it did not publish; empty where it did.
      version: what it published or found published, 0 where nothing.
    """
    metrics = exam_metrics(outputs)
    return {"reason": reason, "pushed_version": version, **({"metrics": json.dumps(metrics)} if metrics else {})}


def _first(outputs: Outputs, node_id: str, key: str) -> Any | None:
    artifacts = outputs.get(node_id, {}).get(key, [])
    return artifacts[0] if artifacts else None


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _reason_line(reason: Mapping[str, Any]) -> str:
    split = f" [{reason['split']}]" if reason.get("split") else ""
    return f"{reason.get('feature') or 'the span'}: {reason.get('description') or reason.get('reason')}{split}"


def _metrics_text(metrics: Mapping[str, float] | None) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in (metrics or {}).items())


def _examples(outputs: Mapping[str, list[Any]]) -> str:
    artifact = outputs["examples"][0]
    splits = (f"{split} {property_value(artifact, 'rows_' + split, 0):,}" for split in ("train", "validation", "exam"))
    return f"{property_value(artifact, 'rows', 0):,} rows ({', '.join(splits)})"


def _verdict(outputs: Mapping[str, list[Any]]) -> str:
    artifact = outputs["anomalies"][0]
    reasons = json.loads(property_value(artifact, "reasons", "[]"))
    found = _count(len(reasons), "anomaly", "anomalies")
    return f"{property_value(artifact, 'verdict')}, {found}"


def _champion(outputs: Mapping[str, list[Any]]) -> str:
    artifact = outputs["evaluation"][0]
    if not property_value(artifact, "champion", 0):
        return "no champion yet"
    metrics = json.loads(property_value(artifact, "metrics", "{}"))
    return f"champion on the new span before training: {_metrics_text(metrics)}"


def _training(outputs: Mapping[str, list[Any]]) -> str:
    report = json.loads(property_value(outputs["model_run"][0], "report", "{}"))
    model = outputs["model"][0]
    parts = [f"{report.get('steps', property_value(model, 'steps', 0)):,} steps"]
    if report.get("parameters"):
        parts.append(f"{report['parameters']:,} parameters")
    if property_value(model, "warm_start", 0):
        parts.append("warm start from the champion")
    return ", ".join(parts)


def _evaluation(outputs: Mapping[str, list[Any]]) -> str:
    blessing = outputs["blessing"][0]
    verdict = "passed" if property_value(blessing, "blessed", 0) else "refused"
    challenger = _metrics_text(json.loads(property_value(blessing, "metrics", "{}")))
    champion = _metrics_text(json.loads(property_value(blessing, "champion_metrics", "null")))
    return f"{verdict}: challenger {challenger}" + (f"; champion {champion}" if champion else "")


def _quantization(outputs: Mapping[str, list[Any]]) -> str:
    rows = outputs.get("models", [])
    if not rows:
        reason = property_value(outputs["report"][0], "reason", "") if outputs.get("report") else ""
        return f"no variant: {reason}" if reason else "no variant"
    return ", ".join(
        f"{property_value(m, 'quantization')} {property_value(m, 'bytes', 0) / 1e6:.2f} MB"
        + (" (chosen)" if property_value(m, "chosen", 0) else "")
        for m in rows
    )


def _serving(outputs: Mapping[str, list[Any]]) -> str:
    blessing = outputs["blessing"][0]
    found = serving_line(json.loads(property_value(blessing, "report", "{}")))
    return found if property_value(blessing, "blessed", 0) else f"refused: {found}"


def _push(outputs: Mapping[str, list[Any]]) -> str:
    pushed = outputs["pushed_model"][0]
    version = property_value(pushed, "pushed_version")
    if property_value(pushed, "withdrawn", 0):
        return f"version {version} withdrawn"
    watched = str(property_value(pushed, "message", "")).partition(". ")[2].rstrip(".")
    if watched:
        return f"version {version}; {watched}"
    return f"version {version}" if property_value(pushed, "published", 1) else f"already published as version {version}"


def _statistics(outputs: Mapping[str, list[Any]]) -> str:
    return f"of {', '.join(json.loads(property_value(outputs['statistics'][0], 'split_names', '[]')))}"


def _transform(outputs: Mapping[str, list[Any]]) -> str:
    return "transform graph and analyzer cache written"


_SUMMARIES = {
    "StatisticsGen": _statistics,
    "Transform": _transform,
    "SpanExampleGen": _examples,
    "SpanValidator": _verdict,
    "ChampionExam": _champion,
    "Trainer": _training,
    "Evaluator": _evaluation,
    "Quantizer": _quantization,
    "ServingValidator": _serving,
    "Pusher": _push,
}
