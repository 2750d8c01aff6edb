"""Lineage of a store with known runs: what stands behind a version, what rests on a span, what changed."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from web_world import make

from evergreen.components.errors import ConfigError
from evergreen.pipeline import cli, config
from evergreen.pipeline.lineage import Lineage, diff, tree
from evergreen.pipeline.lineage.dot import HISTORY, to_dot

STORE = Path(__file__).parents[2] / "benchmarks" / "lineage_store.py"
RUNS = 25


def lineage_store():
    if "lineage_store" not in sys.modules:
        spec = importlib.util.spec_from_file_location("lineage_store", STORE)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["lineage_store"] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
    return sys.modules["lineage_store"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A project of 25 runs: each on a window of three spans, runs 9 and 19 refused, from scratch at 0, 11 and 22."""
    root = tmp_path_factory.mktemp("lineage")
    (root / ".evergreen").mkdir()
    writer = lineage_store().Writer(root / ".evergreen" / "metadata.db")
    writer.write(RUNS)
    lineage_store().write_versions(root / "serving" / "many", writer, keep=3)
    (root / "schema.pbtxt").write_text('feature { name: "x" type: FLOAT }')
    (root / "evergreen.yaml").write_text(
        "name: many\n"
        "data: {path: data, pattern: '{SPAN}/*.csv', format: csv}\n"
        "schema: schema.pbtxt\n"
        "features: features:preprocessing_fn\n"
        "trainer: {model: model:build_model}\n"
        "evaluate: {label: y, metrics: [auc]}\n"
        "publish: {base_path: serving/many}\n"
    )
    return root, writer


def version_of(number: int) -> int:
    return lineage_store().FIRST_VERSION + number * 3600


@pytest.fixture
def lineage(world):
    return Lineage(config.load(world[0] / "evergreen.yaml"))


def ask(world, capsys, *arguments: str) -> tuple[int, str, str]:
    status = cli.main(["-c", str(world[0] / "evergreen.yaml"), *arguments])
    out, err = capsys.readouterr()
    return status, out, err


def test_the_live_version_names_its_run_window_and_gates(lineage):
    found = lineage.version()
    assert (found.version, found.live, found.run) == (version_of(24), True, "20200101T000024-1")
    assert [(use.span, use.rows, use.verdict) for use in found.window] == [
        (22, 1000, "accepted"),
        (23, 1000, "accepted"),
        (24, 1000, "accepted"),
    ]
    assert [(gate.gate, gate.open) for gate in found.gates] == [(1, True), (2, True), (3, True)]
    assert found.quantization["chosen"] == "float16"
    assert found.training is not None and found.training.run == "20200101T000024-1"
    assert found.training.settings == {"steps": 600}
    assert found.run_properties["trigger"] == "every"


def test_the_chain_of_warm_starts_ends_at_the_model_from_scratch(lineage):
    found = lineage.version(version_of(24))
    # Run 22 began from scratch: runs 0 and 11 did too, since every tenth model does and the refused ones do not count.
    chain = [(one.span, one.version, one.warm) for one in found.ancestors]
    assert chain[-1][2] is False and all(warm for _, _, warm in chain[:-1])
    assert [span for span, _, _ in chain] == list(range(23, chain[-1][0] - 1, -1))
    assert [version for _, version, _ in chain] == [version_of(span) for span, _, _ in chain]
    assert found.more_ancestors == 0


def test_a_refused_model_is_nobody_s_ancestor(lineage):
    after = lineage.version(version_of(20))
    assert after.ancestors[0].span == 18


def test_a_version_that_retention_deleted_is_found_in_the_store(lineage):
    found = lineage.version(version_of(3))
    assert (found.on_disk, found.live, found.run) == (False, False, "20200101T000003-1")
    assert [use.span for use in found.window] == [1, 2, 3]
    assert found.metrics["auc"] == pytest.approx(0.73)


def test_a_refused_run_shows_what_it_made_and_why_it_was_refused(lineage):
    found = lineage.run("20200101T000009")
    assert found.version is None
    assert [(gate.gate, gate.open) for gate in found.gates] == [(1, True), (2, False)]
    assert [use.span for use in found.window] == [7, 8, 9]


def test_what_rests_on_a_span_follows_every_warm_start(lineage):
    found = lineage.span(2)
    direct = {model.span for model in found.models if model.direct}
    assert direct == {2, 3, 4}
    reached = {model.span: model for model in found.models}
    # The chain goes on to the last model before one from scratch, the refused run's model among them; not beyond.
    cold = min(span for span in range(5, RUNS) if not lineage.run(f"20200101T{span:06d}").training.warm)
    assert set(reached) == set(range(2, cold))
    assert reached[5].through and not reached[5].direct
    assert reached[9].versions == () and reached[8].versions == (version_of(8),)
    assert found.live_versions == ()


def test_a_span_of_the_live_version_says_so(lineage):
    assert lineage.span(23).live_versions == (version_of(24),)
    assert lineage.span(24).models[0].live


def test_an_artifact_knows_its_maker_and_its_users(lineage):
    model_id = lineage.version().training.model_id
    node = lineage.artifact(model_id)
    assert (node.type, node.made_by["type"], node.made_by["run"]) == ("Model", "Trainer", "20200101T000024-1")
    assert sorted(one["type"] for one in node.used_by) == ["Evaluator", "Pusher", "Quantizer"]
    assert node.state == "gone"  # its files were never there


@pytest.mark.parametrize(
    ("ask_for", "headline"),
    [
        (lambda lineage: lineage.version(5), "there is no version 5"),
        (lambda lineage: lineage.span(99), "nothing was ever made from span 99"),
        (lambda lineage: lineage.artifact(10**6), "there is no artifact 1000000"),
        (lambda lineage: lineage.run("1999"), "there is no run 1999"),
        (lambda lineage: lineage.run("2020"), "several runs begin with 2020"),
    ],
)
def test_what_is_not_there_is_one_clear_error(lineage, ask_for, headline):
    with pytest.raises(ConfigError) as raised:
        ask_for(lineage)
    assert raised.value.headline == headline
    assert raised.value.next_step


def test_diff_shows_only_what_differs(lineage):
    changes = diff.compare(lineage.version(version_of(22)), lineage.version(version_of(23)))
    named = {(change.section, change.name): change for change in changes}
    assert {name for section, name in named if section == "spans"} == {"span 20", "span 23"}
    assert named["spans", "span 20"].after is None and named["spans", "span 23"].before is None
    assert named["metrics", "auc"].difference == pytest.approx(0.01)
    assert ("metrics", "log_loss") not in named
    assert ("hyperparameters", "n") not in named
    assert diff.compare(lineage.version(version_of(22)), lineage.version(version_of(22))) == []


def test_diff_compares_schemas_field_by_field(tmp_path):
    old, new = tmp_path / "old.pbtxt", tmp_path / "new.pbtxt"
    old.write_text('feature { name: "x" type: FLOAT } feature { name: "y" type: INT }')
    new.write_text('feature { name: "x" type: BYTES } feature { name: "z" type: INT }')
    changes = diff.differences("schema", diff.schema_fields(old), diff.schema_fields(new))
    assert [(change.name, change.before, change.after) for change in changes] == [
        ("x", "type: FLOAT", "type: BYTES"),
        ("y", "type: INT", None),
        ("z", None, "type: INT"),
    ]


def test_the_tree_fits_a_screen_and_says_who_trained_what(world, capsys):
    status, out, _ = ask(world, capsys, "lineage")
    assert status == 0
    lines = out.splitlines()
    assert lines[0].startswith(f"version {version_of(24)}  live")
    assert len(lines) < 40
    assert "span 23" in out and "20200101T000024-1" in out and "gate 2" in out


def test_json_is_the_whole_answer(world, capsys):
    status, out, _ = ask(world, capsys, "lineage", "--span", "2", "--json")
    assert status == 0
    answer = json.loads(out)
    assert answer["span"] == 2 and len(answer["models"]) > 3
    status, out, _ = ask(world, capsys, "diff", str(version_of(22)), str(version_of(23)), "--json")
    assert status == 0
    assert {"section", "name", "before", "after", "difference"} == set(json.loads(out)[0])


def test_dot_holds_every_edge_between_its_nodes(lineage):
    executions = lineage.graph.behind([lineage.version().push_execution_id], HISTORY)
    text = to_dot(lineage.graph, executions, 'a "title"')
    assert text.startswith('digraph "a \\"title\\"" {')
    assert text.count("SpanExampleGen") == 3 and text.count("[shape=box") == len(executions)
    assert "base_model" in text  # the model that it started from is shown, what stands behind that one is not
    assert text.count('"Trainer') == 1


def test_a_chain_of_warm_starts_that_goes_round_ends_and_is_called_a_circle(tmp_path, capsys):
    from ml_metadata.proto import metadata_store_pb2 as pb

    made = make(tmp_path, runs=8)
    lineage = Lineage(config.load(made))
    found = lineage.version()
    oldest = found.ancestors[-1].model_id
    store = lineage.store.mlmd
    (model,) = store.get_artifacts_by_id([oldest])
    model.custom_properties["warm_start"].int_value = 1
    store.put_artifacts([model])
    trainer = next(e for e in store.get_events_by_artifact_ids([oldest]) if e.type == pb.Event.OUTPUT).execution_id
    event = pb.Event(type=pb.Event.INPUT, execution_id=trainer, artifact_id=found.training.model_id)
    event.path.steps.add().key = "base_model"
    store.put_events([event])
    again = Lineage(config.load(made))
    assert again.version().ancestors[-1].model_id == oldest
    assert {model.model_id for model in again.span(found.window[-1].span).models} >= {oldest}
    assert cli.main(["lineage", "-c", str(made)]) == 0
    assert f"goes round in a circle: it leads back to model {found.training.model_id}" in capsys.readouterr().out


def test_two_questions_at_once_are_refused(world, capsys):
    status, _, err = ask(world, capsys, "lineage", "5", "--span", "2")
    assert status == 2 and "Ask for one thing" in err


def test_many_artifacts_are_read_by_few_queries(lineage, monkeypatch):
    push = lineage.version().push_execution_id
    calls = []
    store = lineage.store.mlmd
    events, others = ("get_events_by_artifact_ids", "get_events_by_execution_ids"), ("get_contexts_by_execution",)
    for name in (*events, "get_artifacts_by_id", *others):
        real = getattr(store, name)
        monkeypatch.setattr(store, name, lambda ids, real=real: calls.append(ids) or real(ids))
    made = lineage.span(2)
    assert len(made.models) > 8 and len(calls) < 12
    calls.clear()
    assert len(lineage.graph.behind([push], HISTORY)) == 9 and len(calls) < 12


def test_a_line_s_name_and_text_are_told_apart():
    root = tree.Branch("version 1", "live", (tree.Branch("run", "by hand"),))
    assert tree.render(root).children[0].label.plain == "run         by hand"
