"""The quantization report as one HTML page with its pictures inside; needs no other file and no network."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from evergreen.components.quantizer import plots, table

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 0.6rem 0 1.4rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 0.25rem 0.7rem; border-bottom: 1px solid #ddd; vertical-align: top; }
h2 { margin-top: 2.2rem; } svg { max-width: 100%; height: auto; } .closed { color: #a02020; }
"""


def render(report: Mapping[str, Any]) -> str:
    """Writes the page.

    Args:
      report: as `evergreen.components.quantizer.report` describes it.
    """
    variants = report["variants"]
    parts = [f"<h1>TFLite variants of span {report['span']}</h1>", _verdict(report)]
    if variants:
        parts.append(_table(*table.render(report)))
        parts += [_section("Bytes by part", plots.sizes(variants)), _section("Latency", plots.latencies(variants))]
        parts.append(_table(*_costs(variants)))
        parts += [_variant(row) for row in variants]
    body = "\n".join(parts)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>TFLite variants</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _verdict(report: Mapping[str, Any]) -> str:
    gate = "open" if report["passed"] else "closed"
    sentences = [f"Gate 3 is {gate}."]
    if report["reason"]:
        sentences.append(f"{report['reason']}.")
    if report["chosen"]:
        sentences.append(f"Chosen: {report['chosen']}.")
    if report.get("inputs") == "raw":
        sentences.append("The files take raw features, as predict_raw does.")
    elif report.get("inputs_reason"):
        sentences.append(f"The files take transformed features: {report['inputs_reason']}.")
    return f'<p class="{gate}">{_escape(" ".join(sentences))}</p>'


def _costs(variants: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    timed = ("1x1", "64x1", "1x2", "64x2")
    header = ["variant", *(f"{key.replace('x', ' row(s), ')} thread(s): p50 / p99 ms" for key in timed)]
    header += ["of float32", "of SavedModel", "first answer ms", "arena", "multiply-adds"]
    rows = []
    for row in variants:
        times = row.get("latency_ms") or {}
        cells = [
            f"{times[key]['p50']:.3f} / {times[key]['p99']:.3f}" if key in times else table.ABSENT for key in timed
        ]
        cells += [_cell(row.get("latency_ratio"), ".2f"), _cell(row.get("saved_model_ratio"), ".2f")]
        cells += [_cell(row.get("first_answer_ms"), ".1f"), _cell(row.get("arena_bytes"), ",")]
        rows.append([row["variant"], *cells, _cell(row.get("multiply_adds"), ",")])
    return header, rows


def _variant(row: Mapping[str, Any]) -> str:
    parts = [f"<h2>{_escape(row['variant'])}</h2>"]
    if row["reasons"]:
        parts.append(f'<p class="closed">{_escape("; ".join(row["reasons"]))}</p>')
    if row.get("selective_result"):
        parts.append(f"<p>{_escape(row['selective_result'])}.</p>")
        steps = [
            [", ".join(one["layers"]) or "none", _cell(one["excess"], ".2f"), f"{one['bytes']:,}"]
            for one in row["selective"]
        ]
        parts.append(_table(["layers in float", "of the tightest bound", "bytes"], steps))
    if row.get("operators"):
        counted = ", ".join(f"{count} {name}" for name, count in row["operators"].items())
        floats = ", ".join(row["float_operators"]) or "none"
        parts.append(f"<p>Operators: {_escape(counted)}. Computing with floats in the model: {_escape(floats)}.</p>")
    worst = plots.worst_weights(row.get("weights") or [])
    if worst:
        header = ["weights of", "operator", "shape", "type", "scale", "largest error", "SNR dB"]
        cells = [
            [
                *(w["layer"], w["op"], str(w["shape"]), w["type"], _cell(w["scale"], ".3g")),
                *(f"{w['largest_error']:.2g}", f"{w['snr_db']:.1f}"),
            ]
            for w in worst
        ]
        parts.append(_section("Worst weights", plots.weight_errors(row["weights"]) + _table(header, cells)))
    if row.get("activations"):
        header = ["layer", "operator", "scale", "rounding error (rms)", "of its signal"]
        cells = [
            [a["layer"], a["op"], f"{a['scale']:.3g}", f"{a['rmse']:.2g}", f"{a['error']:.2%}"]
            for a in row["activations"]
        ]
        picture = plots.activation_errors(row["activations"])
        parts.append(_section("Worst activations, fully quantized", picture + _table(header, cells)))
    return "\n".join(parts)


def _section(title: str, content: str) -> str:
    return f"<h3>{_escape(title)}</h3>\n{content}" if content else ""


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{_escape(cell)}</th>" for cell in header)
    body = "\n".join("<tr>" + "".join(f"<td>{_escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"


def _percentiles(times: Mapping[str, float] | None) -> str:
    return table.ABSENT if times is None else f"{times['p50']:.3f} / {times['p99']:.3f}"


def _cell(value: float | None, form: str) -> str:
    return table.ABSENT if value is None else format(value, form)


def _escape(text: str) -> str:
    return html.escape(text)
