"""Lineage as nodes and edges for the page, which lays them out and lets people walk them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from evergreen.components.span_records import properties, property_value
from evergreen.pipeline.console import clock
from evergreen.pipeline.lineage.graph import Edge, Graph
from evergreen.pipeline.lineage.model import is_gone

Link = Callable[[str, int], str | None]
Label = Callable[[int], str]
_LONGEST_VALUE = 300
_NEIGHBOURS = 40


def no_link(kind: str, number: int) -> str | None:
    """A page's address where there are no pages: in a report."""
    return None


def behind(graph: Graph, start: Iterable[int], skip: Collection[str], label: Label, link: Link) -> dict[str, Any]:
    """Draws everything behind executions.

    Args:
      graph: the store's graph.
      start: the executions.
      skip: input keys that are not followed, as `Graph.behind` takes them.
      label: writes a span's number as the user does.
      link: gives the address of a node's page.

    Returns:
      `nodes`, `edges` and `hidden`, plain values.
    """
    executions = graph.behind(start, skip)
    return _draw(graph, executions, [*graph.inputs(executions), *graph.outputs(executions)], label, link)


def around_artifact(graph: Graph, artifact_id: int, label: Label, link: Link) -> dict[str, Any]:
    """Draws an artifact between the execution that made it, with its inputs, and those that took it.

    Args:
      graph: the store's graph.
      artifact_id: the artifact.
      label: writes a span's number as the user does.
      link: gives the address of a node's page.

    Returns:
      `nodes`, `edges`, and `hidden`: how many users of the artifact are left out.
    """
    makers = list(graph.producers([artifact_id]).values())
    made = [edge for edge in graph.outputs(makers) if edge.artifact_id == artifact_id]
    used = graph.consumers([artifact_id])
    shown = used[-_NEIGHBOURS:]
    executions = sorted({*makers, *(edge.execution_id for edge in shown)})
    drawn = _draw(graph, executions, [*graph.inputs(makers), *made[:1], *shown], label, link, f"a{artifact_id}")
    return {**drawn, "hidden": len(used) - len(shown)}


def around_execution(graph: Graph, execution_id: int, label: Label, link: Link) -> dict[str, Any]:
    """Draws an execution between what went in and what came out."""
    edges = [*graph.inputs([execution_id]), *graph.outputs([execution_id])]
    return _draw(graph, [execution_id], edges, label, link, f"e{execution_id}")


def details(node: Any) -> list[tuple[str, str]]:
    """Lists what an artifact or execution carries, shortened."""
    values = {name: str(value) for name, value in properties(node).items()}
    return [
        (n, v if len(v) <= _LONGEST_VALUE else v[: _LONGEST_VALUE - 1] + "…") for n, v in sorted(values.items()) if v
    ]


def _draw(
    graph: Graph, executions: Collection[int], edges: list[Edge], label: Label, link: Link, chosen: str = ""
) -> dict[str, Any]:
    nodes = []
    own = set(executions)
    made = {edge.artifact_id for edge in graph.outputs(executions)}
    for execution in graph.executions(executions):
        nodes.append(
            {
                "id": f"e{execution.id}",
                "kind": "execution",
                "title": graph.kind(execution),
                "text": clock(execution.create_time_since_epoch),
                "href": link("execution", execution.id),
                "details": [("execution", str(execution.id)), *details(execution)],
                "chosen": chosen == f"e{execution.id}",
            }
        )
    for artifact in graph.artifacts(edge.artifact_id for edge in edges):
        gone = is_gone(artifact)
        nodes.append(
            {
                "id": f"a{artifact.id}",
                "kind": "gone" if gone else "artifact",
                "title": graph.artifact_type(artifact),
                "text": _text(artifact, label) or f"artifact {artifact.id}",
                "href": link("artifact", artifact.id),
                "details": [("artifact", str(artifact.id)), ("uri", artifact.uri), *details(artifact)],
                "chosen": chosen == f"a{artifact.id}",
            }
        )
    drawn = {node["id"] for node in nodes}
    arrows = []
    for edge in edges:
        if edge.execution_id not in own:
            continue
        artifact_node, execution_node = f"a{edge.artifact_id}", f"e{edge.execution_id}"
        out = edge.artifact_id in made and edge in graph.outputs([edge.execution_id])
        ends = (execution_node, artifact_node) if out else (artifact_node, execution_node)
        if {*ends} <= drawn:
            arrows.append({"from": ends[0], "to": ends[1], "label": edge.key})
    unique = {(arrow["from"], arrow["to"]): arrow for arrow in arrows}
    return {"nodes": nodes, "edges": list(unique.values()), "hidden": 0}


def _text(artifact: Any, label: Label) -> str:
    """The one thing that tells this artifact from others of its type."""
    span = property_value(artifact, "span")
    words = [
        f"version {property_value(artifact, 'pushed_version')}" if property_value(artifact, "pushed_version") else "",
        str(property_value(artifact, "quantization", "")),
        str(property_value(artifact, "verdict", "")),
        {0: "not blessed", 1: "blessed"}.get(property_value(artifact, "blessed", -1), ""),
        f"span {label(int(span))}" if span is not None and not property_value(artifact, "pushed_version") else "",
    ]
    return ", ".join(word for word in words if word)
