"""Lineage as a tree of lines that a person reads in one screen."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from rich.text import Text
from rich.tree import Tree

from evergreen.pipeline.console import clock, duration, number, size
from evergreen.pipeline.lineage.records import Ancestor, Node, Provenance, SpanLineage, SpanUse, Training, Verdict

_NAME_WIDTH = 10
# What stands behind a name in one line; the rest by `--verbose`.
_CHAIN_SHOWN = 3

Label = Callable[[int], str]


@dataclass(frozen=True)
class Branch:
    """A line with lines under it.

    Attributes:
      name: what it is about, in a word or two.
      text: what there is to say.
      below: the lines under it.
    """

    name: str
    text: str
    below: tuple[Branch, ...] = ()


def render(root: Branch) -> Tree:
    """Makes rich's tree of it, which draws in ASCII where nothing else can be shown."""
    tree = Tree(_line(root, bold=True))
    _fill(tree, root.below)
    return tree


def _fill(tree: Tree, branches: Iterable[Branch]) -> None:
    for branch in branches:
        _fill(tree.add(_line(branch)), branch.below)


def _line(branch: Branch, bold: bool = False) -> Text:
    name = branch.name if bold or not branch.text else f"{branch.name:<{_NAME_WIDTH}}"
    return Text.assemble((name, "bold"), "  " if branch.text else "", branch.text)


def provenance(found: Provenance, label: Label, verbose: bool = False) -> Branch:
    """Describes everything behind a version or a run.

    Args:
      found: what lineage found.
      label: writes a span's number as the user does.
      verbose: with ids, fingerprints, hyperparameters and everything that was measured.

    Returns:
      The tree.
    """
    below = [Branch("problem", found.problem)] if found.problem else []
    below.append(_push(found, verbose))
    below += [_gate(gate, found, verbose) for gate in found.gates]
    if found.training is not None:
        below.append(_training(found.training, verbose))
        below.append(_warm_start(found, label, verbose))
        below.append(_window(found, label, verbose))
        below.append(_transform(found, verbose))
        below.append(_schema(found, verbose))
    below += _code(found, verbose)
    return Branch(*_headline(found), tuple(below))


def span(found: SpanLineage, label: Label, verbose: bool = False) -> Branch:
    """Describes everything made from a span.

    Args:
      found: what lineage found.
      label: writes a span's number as the user does.
      verbose: with the models' and examples' ids.

    Returns:
      The tree.
    """
    live = (
        f"the live version {', '.join(map(str, found.live_versions))} rests on it"
        if found.live_versions
        else "no live version rests on it"
    )
    deliveries = tuple(
        Branch(
            f"delivery {use.version}",
            f"{use.verdict or 'undecided'}, {use.rows:,} rows, digest {use.digest[:12]}"
            + (f", examples {use.examples_id}" if verbose else "")
            + (", files gone" if use.gone else ""),
        )
        for use in found.deliveries
    )
    models = tuple(
        Branch(
            "version " + ", ".join(map(str, model.versions)) if model.versions else "model",
            ("live, " if model.live else "")
            + ("" if model.versions else "never published, ")
            + f"of span {label(model.span)}, "
            + ("trained on it" if model.direct else f"warm start, {_count(len(model.through), 'model')} after it")
            + (f", run {model.run}" if model.run else "")
            + (f", model {model.model_id}" if verbose else ""),
        )
        for model in found.models
    )
    none = (Branch("models", "none was trained on it"),)
    return Branch(f"span {label(found.span)}", live, (*deliveries, *(models or none)))


def artifact(found: Node) -> Branch:
    """Describes an artifact among its neighbours.

    Args:
      found: what lineage found.

    Returns:
      The tree.
    """
    properties = tuple(Branch(name, _short(value)) for name, value in sorted(found.properties.items()))
    made = found.made_by
    inputs = tuple(
        Branch(one["key"], f"{one['type']} {one['artifact']}") for one in (made.get("inputs", []) if made else [])
    )
    maker = (
        Branch("made by", f"{made['type']} (execution {made['execution']}), run {made['run']}", inputs)
        if made
        else Branch("made by", "nothing that ML Metadata knows of")
    )
    users = tuple(
        Branch("used by", f"{one['type']} (execution {one['execution']}) as {one['key']}") for one in found.used_by
    )
    return Branch(
        f"{found.type} {found.id}",
        f"{found.state}, {clock(found.created)}, {found.name}",
        (*((Branch("properties", "", properties),) if properties else ()), maker, *users),
    )


def _headline(found: Provenance) -> tuple[str, str]:
    name = f"version {found.version}" if found.version else f"run {found.run}"
    words = []
    if found.version:
        words.append("live" if found.live else "not live" if found.on_disk else "no longer on disk")
        if found.restores:
            words.append(f"restores {found.restores}")
        if found.published:
            words.append(f"published {clock(found.published)}")
    else:
        words.append(str(found.run_properties.get("result", "")))
    metrics = ", ".join(f"{key} {number(value)}" for key, value in found.metrics.items() if is_number(value))
    return name, ", ".join(word for word in [*words, metrics] if word)


def _push(found: Provenance, verbose: bool) -> Branch:
    properties = found.run_properties
    words = [found.run or "of unknown origin"]
    trigger = properties.get("trigger")
    if trigger:
        words.append(f"{trigger}" + (f" for {clock(properties['scheduled_time'])}" if _scheduled(properties) else ""))
    if properties.get("ended") and properties.get("started"):
        words.append(f"took {duration((properties['ended'] - properties['started']) / 1000)}")
    if not found.version and properties.get("reason"):
        words.append(str(properties["reason"]).splitlines()[0])
    below = []
    if verbose and found.version:
        below.append(Branch("in", f"{found.path}, {size(found.bytes)}"))
    if verbose and found.push_execution_id is not None:
        below.append(Branch("push", f"execution {found.push_execution_id}"))
    return Branch("run", ", ".join(words), tuple(below))


def _scheduled(properties: dict[str, Any]) -> bool:
    return bool(properties.get("scheduled_time"))


def _gate(gate: Verdict, found: Provenance, verbose: bool) -> Branch:
    state = "passed" if gate.open else "refused"
    first = gate.words[0] if gate.words else ""
    text = first if first.startswith(state) else ": ".join(word for word in (state, first) if word)
    if gate.gate == 1 and not gate.words and "rows" in gate.numbers:
        text = f"{state}: {gate.numbers['rows']:,} rows, no anomalies"
    if gate.gate == 3 and found.quantization.get("variants"):
        text = f"{state}: " + ", ".join(_variant(name, row, found) for name, row in _made(found).items())
    below = [Branch("", word) for word in gate.words[1:]] if verbose else []
    if verbose:
        for name, values in gate.numbers.items():
            if isinstance(values, dict) and values and name != "slices":
                below.append(Branch(name, _numbers(values)))
        for name, values in gate.numbers.get("slices", {}).items():
            below.append(Branch(name, _numbers(values)))
        below.append(Branch("ids", f"execution {gate.execution_id}, verdict {gate.artifact_id}"))
    return Branch(f"gate {gate.gate}", f"{gate.name} {text}", tuple(below))


def _made(found: Provenance) -> dict[str, dict[str, Any]]:
    return {
        name: row
        for name, row in found.quantization["variants"].items()
        if row.get("made_for", "publishing") == "publishing"
    }


def _variant(name: str, row: dict[str, Any], found: Provenance) -> str:
    chosen = " (chosen)" if name == found.quantization.get("chosen") else ""
    return f"{name} {size(row.get('bytes'))}{chosen}" if row.get("passed") else f"{name} left out"


def _training(training: Training, verbose: bool) -> Branch:
    report, settings = training.report, training.settings
    steps = report.get("steps")
    words = [
        f"{report.get('strategy', settings.get('strategy', '?'))}",
        f"{steps:,} steps of {report.get('global_batch_size', settings.get('global_batch_size'))}" if steps else "",
        f"{report.get('precision', 'float32')}",
        f"seed {report.get('seed', settings.get('seed'))}",
        f"{report['parameters']:,} parameters" if report.get("parameters") else "",
        duration((training.ended - training.started) / 1000),
        "files gone" if training.model_gone else "",
    ]
    below = []
    if verbose:
        hyperparameters = report.get("hyperparameters", settings.get("hyperparameters", {}))
        below = [
            *(Branch(name, _short(value)) for name, value in sorted(hyperparameters.items())),
            Branch("last point", _numbers(report.get("final", {}))),
            Branch("ids", f"model {training.model_id}, execution {training.execution_id}, run {training.run}"),
            Branch("in", training.model_uri),
        ]
    return Branch("training", ", ".join(word for word in words if word), tuple(below))


def _warm_start(found: Provenance, label: Label, verbose: bool) -> Branch:
    training = found.training
    if training is None or not training.warm:
        why = training.report.get("warm_start", {}).get("reason", "") if training else ""
        return Branch("start", "from scratch" + (f": {why}" if why else ""))
    shown = found.ancestors if verbose else found.ancestors[:_CHAIN_SHOWN]
    hidden = len(found.ancestors) - len(shown) + found.more_ancestors
    below = [Branch(*_ancestor(one, label)) for one in shown]
    if hidden:
        below.append(Branch("...", f"{_count(hidden, 'model')} before" + ("" if verbose else ", by --verbose")))
    rows = training.report.get("warm_start", {}).get("embeddings", {})
    matched = ", ".join(f"{name} {row.get('matched'):,} of {row.get('tokens'):,}" for name, row in rows.items())
    return Branch(
        "start",
        f"warm, {_count(len(found.ancestors) + found.more_ancestors, 'model')} back to one from scratch"
        + (f"; rows of embeddings kept: {matched}" if matched and verbose else ""),
        tuple(below),
    )


def _ancestor(one: Ancestor, label: Label) -> tuple[str, str]:
    name = f"version {one.version}" if one.version else f"model {one.model_id}"
    spans = ", ".join(label(span) for span in one.window)
    return name, f"spans {spans}; {one.steps:,} steps, {'warm' if one.warm else 'from scratch'}"


def _window(found: Provenance, label: Label, verbose: bool) -> Branch:
    return Branch(
        "window",
        f"{_count(len(found.window), 'span')}, {sum(use.rows for use in found.window):,} rows",
        tuple(Branch(f"span {label(use.span)}", _use(use, verbose)) for use in found.window),
    )


def _use(use: SpanUse, verbose: bool) -> str:
    trained = {name: count for name, count in use.trained.items() if count}
    words = [
        f"{use.rows:,} rows",
        f"used {', '.join(f'{count:,} {name}' for name, count in trained.items())}" if trained else "",
        f"delivery {use.version}" if use.version else "",
        f"digest {use.digest if verbose else use.digest[:12]}",
        use.verdict if use.verdict != "accepted" else "",
        f"examples {use.examples_id}" if verbose else "",
        "files gone" if use.gone else "",
    ]
    return ", ".join(word for word in words if word)


def _transform(found: Provenance, verbose: bool) -> Branch:
    made = found.transform
    below = (
        (Branch("ids", f"execution {made.get('execution_id')}, fingerprint {made.get('fingerprint')}"),)
        if verbose and made
        else ()
    )
    return Branch("transform", str(made.get("preprocessing_fn") or "unknown"), below)


def _schema(found: Provenance, verbose: bool) -> Branch:
    text = f"{found.schema.get('file') or 'unknown'}, digest {found.schema.get('digest') or 'unknown'}"
    below = (
        (Branch("ids", f"artifact {found.schema['artifact_id']}, {found.schema['uri']}"),)
        if verbose and found.schema
        else ()
    )
    return Branch("schema", text, below)


def _code(found: Provenance, verbose: bool) -> list[Branch]:
    properties = found.run_properties
    commit = str(properties.get("code_version", ""))
    words = f"git {commit.rstrip('+')}{', with uncommitted changes' if commit.endswith('+') else ''}" if commit else ""
    functions = f"functions {found.training.fingerprint}" if found.training and found.training.fingerprint else ""
    branches = [Branch("code", ", ".join(word for word in (words, functions) if word) or "unknown")]
    packages = packages_of(found)
    if packages:
        chief = ("python", "tensorflow", "tf_keras", "tf-keras", "tfx")
        shown = packages if verbose else {name: packages[name] for name in chief if name in packages}
        branches.append(Branch("packages", ", ".join(f"{name} {version}" for name, version in shown.items())))
    if properties.get("host"):
        branches.append(Branch("host", str(properties["host"])))
    return branches


def packages_of(found: Provenance) -> dict[str, str]:
    """Returns the versions of the packages that a run used: from its context, else from the training's report."""
    try:
        recorded = json.loads(found.run_properties.get("packages", "{}"))
    except ValueError:
        recorded = {}
    return recorded or (found.training.report.get("versions", {}) if found.training else {})


def _numbers(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {number(value) if is_number(value) else value}" for name, value in values.items())


def is_number(value: Any) -> bool:
    """Says whether a value of a report is a number; a flag is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 160 else text[:157] + "..."


def _count(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"
