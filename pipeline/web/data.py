"""A run's card as plain values: everything that a page shows of one run or version, read from lineage and files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from evergreen.components.quantizer.plots import WORST, worst_weights
from evergreen.components.span_records import property_value
from evergreen.pipeline.console import size
from evergreen.pipeline.lineage import Lineage
from evergreen.pipeline.lineage.dot import HISTORY
from evergreen.pipeline.lineage.records import Provenance, Training, Verdict
from evergreen.pipeline.lineage.tree import packages_of
from evergreen.pipeline.store import NODE_TYPE, RUN_TYPE
from evergreen.pipeline.web import charts, network, statistics

Values = dict[str, Any]
Label = Callable[[int], str]
GATES = {1: "data", 2: "quality", 3: "variants", 4: "serving"}
STATES = {1: "running", 2: "running", 3: "done", 4: "failed", 5: "cached", 6: "failed"}


def card(
    lineage: Lineage, found: Provenance, label: Label, *, as_run: bool = False, link: network.Link = network.no_link
) -> Values:
    """Gathers what the card of a version or a run shows.

    Args:
      lineage: the project's.
      found: everything behind the version or the run.
      label: writes a span's number as the user does.
      as_run: it is about the run, whatever that published.
      link: gives the address of an artifact's or execution's page; None where there are no pages.

    Returns:
      The card: `head`, `gates`, `data`, `training`, `quality`, `variants`, `serving`, `stages`, `window`, `ancestors`,
      `environment` and `graph`; a part is None where the run did not come so far or its files are gone.
    """
    verdicts = {gate.gate: gate for gate in found.gates}
    training = found.training
    return {
        "head": {**head(found), "as_run": as_run or found.version is None},
        "gates": gates(found),
        "data": _data(lineage, verdicts.get(1), label),
        "training": None if training is None else training_part(training),
        "quality": quality(_comparison(lineage, verdicts.get(2))),
        "variants": variants(_variants_report(lineage, verdicts.get(3))),
        "serving": _serving(lineage, verdicts.get(4)),
        "stages": stages(lineage, found.run),
        "window": [{**vars(use), "label": label(use.span)} for use in found.window],
        "ancestors": [
            {**vars(one), "spans": [label(span) for span in one.window], "label": label(one.span)}
            for one in found.ancestors
        ],
        "more_ancestors": found.more_ancestors,
        "environment": environment(found),
        "graph": graph(lineage, found, label, link),
        "label": label,
    }


def head(found: Provenance) -> Values:
    """Says what the card is about: version, result, times, sizes, metrics."""
    properties = found.run_properties
    started, ended = properties.get("started"), properties.get("ended")
    return {
        "version": found.version,
        "run": found.run,
        "live": found.live,
        "on_disk": found.on_disk,
        "restores": found.restores,
        "published": found.published,
        "path": found.path,
        "bytes": found.bytes,
        "metrics": {name: value for name, value in found.metrics.items() if isinstance(value, (int, float))},
        "result": str(properties.get("result", "")),
        "reason": str(properties.get("reason", "")),
        "span": str(properties.get("span_label", properties.get("span", ""))),
        "trigger": str(properties.get("trigger", "")),
        "scheduled": properties.get("scheduled_time"),
        "attempt": int(properties.get("attempt", 1)),
        "started": started,
        "seconds": (ended - started) / 1000 if started and ended else None,
        "problem": found.problem,
    }


def gates(found: Provenance) -> list[Values]:
    """Lists the four gates with their verdicts; of gate 1 every span that the run decided.

    Returns:
      `number`, `name`, `state` (`open`, `closed`, `absent`) and `words` each.
    """
    rows = []
    for number, name in GATES.items():
        decided = [gate for gate in found.gates if gate.gate == number]
        rows += [
            {
                "number": number,
                "name": name,
                "state": "open" if gate.open else "closed",
                "words": _words(gate, found.quantization),
            }
            for gate in decided
        ]
        if not decided:
            words = ["did not examine this model"] if found.version else ["the run did not come so far"]
            rows.append({"number": number, "name": name, "state": "absent", "words": words})
    return rows


def _words(gate: Verdict, made: Values) -> list[str]:
    words = list(gate.words)
    if gate.gate == 3 and made:
        chosen = made.get("chosen")
        listed = ", ".join(_variant(name, row) for name, row in made.get("variants", {}).items() if _is_made(row))
        words += [listed, f"{chosen} is published beside the SavedModel" if chosen else ""]
        words = [word for word in words if word]
    if gate.gate == 1 and "rows" in gate.numbers:
        words.insert(0, f"{gate.numbers['rows']:,} rows" + ("" if words else ", no anomalies"))
    return words or ["passed" if gate.open else "refused"]


def _is_made(row: Values) -> bool:
    return bool(row.get("made_for", "publishing") == "publishing")


def _variant(name: str, row: Values) -> str:
    return f"{name} {size(row.get('bytes'))}" if row.get("passed") else f"{name} left out"


def _data(lineage: Lineage, gate: Verdict | None, label: Label) -> Values | None:
    if gate is None:
        return None
    graph_ = lineage.graph
    (anomalies,) = graph_.artifacts([gate.artifact_id])
    own = [edge.artifact_id for edge in graph_.inputs([gate.execution_id]) if edge.key == "statistics"]
    drift = statistics.read_drift(anomalies.uri)
    read = [statistics.read(artifact.uri, drift) for artifact in graph_.artifacts(own)]
    verdict = statistics.read_verdict(anomalies.uri)
    against = verdict.get("drift_against")
    return {
        "span": label(int(property_value(anomalies, "span", -1))),
        "rows": int(property_value(anomalies, "rows", 0)),
        "splits": verdict.get("splits", {}),
        "reasons": verdict.get("reasons") or _listed(anomalies),
        "drift_against": None if against is None else label(against),
        "statistics": next((one for one in read if one), None),
    }


def _listed(anomalies: Any) -> list[Values]:
    try:
        return list(json.loads(property_value(anomalies, "reasons", "[]")))
    except ValueError:
        return []


def training_part(training: Training) -> Values:
    """Gathers how the model was trained: facts, curves, the parts of a step, staleness, the warm start."""
    report = training.report
    settings = training.settings
    warm = report.get("warm_start", {})
    return {
        "facts": {
            "strategy": report.get("strategy", settings.get("strategy")),
            "replicas": report.get("replicas"),
            "devices": ", ".join(report.get("devices", [])),
            "steps": report.get("steps", settings.get("steps")),
            "best step": report.get("best_step"),
            "epochs": report.get("epochs"),
            "global batch size": report.get("global_batch_size"),
            "precision": report.get("precision"),
            "seed": report.get("seed"),
            "parameters": report.get("parameters"),
            "examples per second": report.get("examples_per_second"),
            "step, median ms": report.get("step_ms", {}).get("p50"),
            "step, 90th percentile ms": report.get("step_ms", {}).get("p90"),
            "share of time waiting for input": report.get("input_share"),
            "updates' mean staleness": _mean_staleness(report.get("staleness", {})),
            "restarts": report.get("restarts") or None,
            "workers lost": report.get("worker_losses") or None,
            "files": "gone" if training.model_gone else None,
        },
        "stopped_early": bool(report.get("stopped_early")),
        "curves": charts.curves(report.get("curve", [])),
        "step_parts": charts.shares({k: v for k, v in report.get("step_parts_ms", {}).items() if v}),
        "seconds": charts.shares({k: v for k, v in report.get("seconds", {}).items() if v}),
        "staleness": charts.bars({f"{key} behind": count for key, count in report.get("staleness", {}).items()}),
        "hyperparameters": report.get("hyperparameters", settings.get("hyperparameters", {})),
        "rows_by_span": report.get("rows_by_span", {}),
        "warm": training.warm,
        "warm_reason": warm.get("reason", ""),
        "embeddings": warm.get("embeddings", {}),
    }


def _mean_staleness(counts: Values) -> float | None:
    total = sum(counts.values())
    return sum(int(key) * count for key, count in counts.items()) / total if total else None


def quality(comparison: Values) -> Values | None:
    """Lays gate 2's comparison out by metric.

    Args:
      comparison: comparison.json; empty where it is gone.

    Returns:
      `metrics`, a list with the overall row and the slices of each; None without a comparison.
    """
    if not comparison.get("overall"):
        return None
    by_rows = sorted(comparison.get("slices", []), key=lambda one: -(one.get("rows") or 0))
    tables = []
    for metric in comparison.get("metrics", []):
        parts = [comparison["overall"], *by_rows]
        entries = [part.get("metrics", {}).get(metric, {}) for part in parts]
        plots = charts.intervals([entry.get("gain") or {} for entry in entries])
        rows = [
            {
                "slice": part.get("slice"),
                "rows": part.get("rows"),
                "gated": bool(part.get("gated")),
                "challenger": entry.get("challenger"),
                "champion": entry.get("champion"),
                **{key: (entry.get("gain") or {}).get(key) for key in ("value", "lower", "upper")},
                "plot": plot,
            }
            for part, entry, plot in zip(parts, entries, plots, strict=True)
        ]
        tables.append({"metric": metric, "rows": rows})
    champion = comparison.get("champion") or {}
    return {
        "metrics": tables,
        "checks": comparison.get("checks", []),
        "notes": comparison.get("notes", []),
        "champion_on_span": champion.get("on_span") or {},
        "has_champion": bool(champion),
        "bootstrap": comparison.get("bootstrap", {}),
        "min_slice_rows": comparison.get("min_slice_rows"),
    }


def variants(report: Values) -> Values | None:
    """Lays gate 3's report out: a row and the pictures for each TFLite variant."""
    rows = report.get("variants") or []
    if not rows:
        return None
    return {
        "chosen": report.get("chosen"),
        "reason": report.get("reason", ""),
        "rows": rows,
        "metrics": list(report.get("reference") or {}),
        "reference": report.get("reference") or {},
        "max_drop": report.get("max_drop") or {},
        "sizes": charts.sizes(rows),
        "latencies": charts.latencies(rows),
        "worst": {row["variant"]: _worst(row) for row in rows if row.get("weights") or row.get("activations")},
    }


def _worst(row: Values) -> Values:
    """The tensors of a variant that lost most: weights by signal over rounding error, activations by their error."""
    weights = {worst["layer"]: worst["snr_db"] for worst in worst_weights(row.get("weights") or [])}
    activations = {one["layer"]: 100 * one["error"] for one in (row.get("activations") or [])[:WORST]}
    return {"weights": charts.bars(weights), "activations": charts.bars(activations)}


def _comparison(lineage: Lineage, gate: Verdict | None) -> Values:
    if gate is None:
        return {}
    ids = [edge.artifact_id for edge in lineage.graph.outputs([gate.execution_id]) if edge.key == "evaluation"]
    found = [_json_file(artifact.uri, "comparison.json") for artifact in lineage.graph.artifacts(ids)]
    return next((one for one in found if one), {})


def _variants_report(lineage: Lineage, gate: Verdict | None) -> Values:
    if gate is None:
        return {}
    (artifact,) = lineage.graph.artifacts([gate.artifact_id])
    return _json_file(artifact.uri, "report.json") or _json(property_value(artifact, "table"))


def _serving(lineage: Lineage, gate: Verdict | None) -> Values | None:
    if gate is None:
        return None
    (artifact,) = lineage.graph.artifacts([gate.artifact_id])
    report = _json_file(artifact.uri, "report.json") or _json(property_value(artifact, "report"))
    return report or None


def stages(lineage: Lineage, run: str) -> list[Values]:
    """Lists a run's stages with their durations, in the order in which they ran.

    Args:
      lineage: the project's.
      run: its id.

    Returns:
      `node`, `state`, `seconds` and `share` (of the longest, 0 to 1) each.
    """
    store = lineage.store
    context = store.mlmd.get_context_by_type_and_name(RUN_TYPE, run) if store.exists and run else None
    if context is None:
        return []
    rows = []
    for execution in sorted(store.mlmd.get_executions_by_context(context.id), key=lambda one: one.id):
        kind = lineage.graph.kind(execution)
        if kind == "Resolver":
            continue
        nodes = [c.name for c in store.mlmd.get_contexts_by_execution(execution.id) if c.type == NODE_TYPE]
        seconds = (execution.last_update_time_since_epoch - execution.create_time_since_epoch) / 1000
        rows.append(
            {
                "node": nodes[0].partition(".")[2] if nodes else kind,
                "state": STATES.get(execution.last_known_state, "?"),
                "seconds": seconds,
                "execution": execution.id,
            }
        )
    longest = max((row["seconds"] for row in rows), default=0) or 1
    return [{**row, "share": row["seconds"] / longest} for row in rows]


def environment(found: Provenance) -> Values:
    """Says under what the model came to be: code, functions, schema, packages, host."""
    commit = str(found.run_properties.get("code_version", ""))
    facts = {
        "git commit": commit.rstrip("+") + (" with uncommitted changes" if commit.endswith("+") else ""),
        "preprocessing_fn": str(found.transform.get("preprocessing_fn", "")),
        "functions' fingerprint": found.training.fingerprint if found.training else "",
        "schema": str(found.schema.get("file", "")),
        "schema's digest": str(found.schema.get("digest", "")),
        "host": str(found.run_properties.get("host", "")),
    }
    return {"facts": {name: value for name, value in facts.items() if value}, "packages": packages_of(found)}


def graph(lineage: Lineage, found: Provenance, label: Label, link: network.Link) -> Values | None:
    """Draws what stands behind a version or a run's model."""
    start: Sequence[int] = ()
    if found.push_execution_id is not None:
        start = [found.push_execution_id]
    elif found.gates:
        start = sorted({gate.execution_id for gate in found.gates})
    elif found.training is not None:
        start = [found.training.execution_id]
    if not start:
        return None
    return network.behind(lineage.graph, start, HISTORY, label, link)


def _json(text: Any) -> Values:
    try:
        found = json.loads(text) if isinstance(text, str) and text else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _json_file(folder: str, name: str) -> Values:
    try:
        return _json(Path(folder, name).read_text(encoding="utf-8"))
    except OSError:
        return {}
