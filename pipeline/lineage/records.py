"""What lineage answers with: plain values, which `dataclasses.asdict` turns into JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class SpanUse:
    """A span version as one training used it.

    Attributes:
      span: the span's number.
      version: the span version's number.
      rows: rows in all splits together.
      rows_by_split: rows of each split.
      trained: rows of each split that the training used; empty where the report does not say.
      digest: fingerprint of the files that were read.
      examples_id: id of the Examples artifact.
      verdict: `accepted` or `rejected` by gate 1; empty where no verdict was found.
      gone: whether the examples' files are no longer there.
    """

    span: int
    version: int
    rows: int
    rows_by_split: dict[str, int]
    trained: dict[str, int]
    digest: str
    examples_id: int
    verdict: str
    gone: bool


@dataclass(frozen=True)
class Verdict:
    """What a gate decided.

    Attributes:
      gate: its number, 1 to 4.
      name: what it is about: `data`, `quality`, `variants`, `serving`.
      open: whether it let the model pass.
      words: its answer in words, one sentence each.
      numbers: what it measured.
      execution_id: the execution that decided.
      artifact_id: the verdict.
    """

    gate: int
    name: str
    open: bool
    words: tuple[str, ...]
    numbers: dict[str, Any]
    execution_id: int
    artifact_id: int


@dataclass(frozen=True)
class Ancestor:
    """A model from which a training started warm.

    Attributes:
      model_id: id of the Model artifact.
      span: newest span of its window.
      window: spans that it was trained on.
      version: as what it was published; None where it never was.
      run: the run that trained it.
      steps: steps of its training.
      warm: whether it started warm itself.
    """

    model_id: int
    span: int
    window: tuple[int, ...]
    version: int | None
    run: str | None
    steps: int
    warm: bool


@dataclass(frozen=True)
class Training:
    """How a model came to be.

    Attributes:
      execution_id: the Trainer's execution.
      model_id: the Model artifact.
      model_uri: its URI.
      model_gone: whether its files are no longer there.
      run: the run in which it was trained, not in which the cache answered.
      settings: the configuration's `trainer` section as it was.
      report: the Trainer's short report; see docs/architecture.md.
      warm: whether it started from an earlier model.
      fingerprint: of our code, the user's functions and the packages.
      started: milliseconds since 1970.
      ended: milliseconds since 1970.
    """

    execution_id: int
    model_id: int
    model_uri: str
    model_gone: bool
    run: str | None
    settings: dict[str, Any]
    report: dict[str, Any]
    warm: bool
    fingerprint: str
    started: int
    ended: int


@dataclass(frozen=True)
class Provenance:
    """Everything behind one published version, or behind what a run made without publishing it.

    Attributes:
      version: the version; None where the run published none.
      live: whether it answers requests now.
      on_disk: whether it is still in the base path.
      published: ISO-8601 time of the push, UTC; empty where there was none or it is unknown.
      restores: the version whose model a rollback published again here; None otherwise.
      path: where it is, or was.
      bytes: size of the SavedModel; 0 where unknown.
      metrics: on the exam.
      run: id of the run.
      run_properties: everything that the run's context holds (trigger, result, code_version, host, packages, ...).
      push_execution_id: the Pusher's execution; None where there is none in ML Metadata.
      gates: their verdicts in order, as far as the run came.
      quantization: `artifact_id` of the report, `chosen`, and `variants` with what was measured of each by name; empty
        where the run did not come so far.
      training: how the model was trained; None where ML Metadata knows of no model.
      ancestors: the chain of warm starts, the nearest first.
      more_ancestors: how many more there are in the chain.
      transform: `execution_id`, `preprocessing_fn`, `fingerprint`.
      schema: `artifact_id`, `uri`, `file`, `digest`.
      window: the spans that it was trained on, the oldest first.
      problem: what could not be found out, in words; empty if nothing.
    """

    version: int | None
    live: bool
    on_disk: bool
    published: str
    restores: int | None
    path: str
    bytes: int
    metrics: dict[str, Any]
    run: str
    run_properties: dict[str, Any] = field(default_factory=dict)
    push_execution_id: int | None = None
    gates: tuple[Verdict, ...] = ()
    quantization: dict[str, Any] = field(default_factory=dict)
    training: Training | None = None
    ancestors: tuple[Ancestor, ...] = ()
    more_ancestors: int = 0
    transform: dict[str, Any] = field(default_factory=dict)
    schema: dict[str, Any] = field(default_factory=dict)
    window: tuple[SpanUse, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Descendant:
    """A model that rests on a span.

    Attributes:
      model_id: id of the Model artifact.
      run: the run that trained it.
      span: newest span of its window.
      direct: whether the span was in its window; if not, a model that it started warm from rests on the span.
      through: models between the span and this one, the first of them trained on the span; empty where direct.
      versions: as what it was published, rollbacks included.
      live: whether one of them is live now.
    """

    model_id: int
    run: str | None
    span: int
    direct: bool
    through: tuple[int, ...]
    versions: tuple[int, ...]
    live: bool


@dataclass(frozen=True)
class SpanLineage:
    """Everything made from one span.

    Attributes:
      span: the span.
      deliveries: the versions of it that were decided, the oldest first.
      models: every model that rests on it, the oldest first.
      live_versions: the live versions among theirs.
    """

    span: int
    deliveries: tuple[SpanUse, ...]
    models: tuple[Descendant, ...]
    live_versions: tuple[int, ...]


@dataclass(frozen=True)
class Node:
    """An artifact or an execution among its neighbours.

    Attributes:
      id: its id in ML Metadata.
      type: its type.
      name: its URI or, for an execution, its run.
      state: `live`, `deleted`, `done`, `cached`, `failed`, ...
      created: milliseconds since 1970.
      properties: what it carries.
      made_by: for an artifact, the execution that made it, with what went in: `{"execution", "type", "run", "inputs"}`.
      used_by: for an artifact, the executions that took it: `{"execution", "type", "key"}`.
    """

    id: int
    type: str
    name: str
    state: str
    created: int
    properties: dict[str, Any]
    made_by: dict[str, Any]
    used_by: tuple[dict[str, Any], ...]
