"""Lineage as a graph in Graphviz's DOT language."""

from __future__ import annotations

from collections.abc import Collection

from evergreen.pipeline.lineage.graph import Graph

# What is history to a run and not an ingredient of what it made.
HISTORY = ("champion", "base_model", "champion_evaluation", "previous_statistics", "analyzer_cache")


def to_dot(graph: Graph, executions: Collection[int], title: str) -> str:
    """Writes executions and their artifacts.

    Args:
      graph: the store's graph.
      executions: ids.
      title: the picture's title.

    Returns:
      DOT text: boxes are executions, ellipses artifacts, edges are labelled with the channels' names.
    """
    inputs, outputs = graph.inputs(executions), graph.outputs(executions)
    lines = [f"digraph {_quoted(title)} {{", "  rankdir=LR;", '  node [fontname="sans-serif"];']
    for execution in graph.executions(executions):
        lines.append(f"  e{execution.id} [shape=box label={_quoted(f'{graph.kind(execution)} {execution.id}')}];")
    for artifact in graph.artifacts(edge.artifact_id for edge in (*inputs, *outputs)):
        lines.append(f"  a{artifact.id} [label={_quoted(f'{graph.artifact_type(artifact)} {artifact.id}')}];")
    lines += [f"  a{edge.artifact_id} -> e{edge.execution_id} [label={_quoted(edge.key)}];" for edge in inputs]
    lines += [f"  e{edge.execution_id} -> a{edge.artifact_id} [label={_quoted(edge.key)}];" for edge in outputs]
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
