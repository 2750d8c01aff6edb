"""The Pusher as a TFX component, with TFX's own artifacts, and in a pipeline that the stock runner runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evergreen.components.errors import ModelRejected
from evergreen.components.pusher import catalog, versions

pytestmark = pytest.mark.tensorflow

METRICS = {"auc": 0.66}
ON_SPAN = {"auc": 0.64}


def make_model(path: Path) -> Path:
    serving = path / "Format-Serving"
    (serving / "variables").mkdir(parents=True)
    (serving / "saved_model.pb").write_text(f"graph of {path}")
    (serving / "variables" / "variables.index").write_text("index")
    return path


def make_tflite(path: Path, content: str) -> Path:
    (path / "Format-Serving").mkdir(parents=True)
    (path / "Format-Serving" / "model.tflite").write_text(content)
    return path


def artifact(kind, uri: Path, number: int, **properties):
    found = kind()
    found.uri, found.id = str(uri), number
    for name, value in properties.items():
        (found.set_int_custom_property if isinstance(value, int) else found.set_string_custom_property)(name, value)
    return found


@pytest.fixture
def world(tmp_path):
    """Runs the executor on artifacts; returns the PushedModel."""
    from tfx.dsl.components.base import base_executor
    from tfx.types import standard_artifacts

    from evergreen.components.artifacts import QuantizationReport
    from evergreen.components.pusher import executor

    class World:
        base = tmp_path / "serving" / "flights"

        def __init__(self):
            self.model = artifact(standard_artifacts.Model, make_model(tmp_path / "model"), 12)
            self.model.mlmd_artifact.create_time_since_epoch = 5000  # milliseconds
            self.inputs = {
                "model": [self.model],
                "quantized_models": [
                    artifact(standard_artifacts.Model, make_tflite(tmp_path / q, q), 20, quantization=q, chosen=chosen)
                    for q, chosen in (("float16", 0), ("dynamic_int8", 1))
                ],
                "blessing": [
                    artifact(
                        standard_artifacts.ModelBlessing,
                        tmp_path,
                        30,
                        blessed=1,
                        metrics=json.dumps(METRICS),
                        champion_on_span=json.dumps(ON_SPAN),
                    )
                ],
                "quantization_report": [artifact(QuantizationReport, tmp_path, 31, passed=1)],
                "infra_blessing": [artifact(standard_artifacts.InfraBlessing, tmp_path, 32, blessed=1)],
            }

        def push(self, **inputs):
            pushed = artifact(standard_artifacts.PushedModel, tmp_path / "pushed", 40)
            context = base_executor.BaseExecutor.Context(unique_id="77", pipeline_run_id="run-7")
            executor.Executor(context).Do(
                {**self.inputs, **inputs},
                {"pushed_model": [pushed]},
                {
                    "settings": json.dumps({"base_path": str(self.base), "keep": 2, "server": None}),
                    "span": 4,
                    "span_version": 1,
                    "name": "flights",
                    "fingerprint": "x",
                },
            )
            return pushed

    return World()


def test_the_executor_publishes_and_says_where(world):
    pushed = world.push()
    version = versions.live_version(world.base)
    assert pushed.get_string_custom_property("pushed_version") == str(version)
    assert pushed.get_string_custom_property("pushed_destination") == str(world.base / str(version))
    assert pushed.get_int_custom_property("pushed") == pushed.get_int_custom_property("published") == 1
    assert pushed.get_int_custom_property("span") == 4
    lite = versions.lite_path(world.base) / str(version)
    assert (lite / "model.tflite").read_text() == "dynamic_int8"
    manifest = catalog.live_manifest(world.base)
    assert (manifest.run, manifest.pushed_by, manifest.name) == ("run-7", "77", "flights")
    assert (manifest.span, manifest.span_version) == (4, 1)
    assert (manifest.metrics, manifest.champion_on_span) == (METRICS, ON_SPAN)
    assert manifest.carries(12, world.model.uri, 5000)
    assert manifest.tflite["variant"] == "dynamic_int8"
    assert json.loads((Path(pushed.uri) / "evergreen.json").read_text())["version"] == version


def test_the_same_model_again_points_at_the_version_that_is_there(world):
    first = world.push()
    again = world.push()
    assert again.get_int_custom_property("published") == 0
    assert again.get_int_custom_property("pushed") == 1
    for name in ("pushed_version", "pushed_destination"):
        assert again.get_string_custom_property(name) == first.get_string_custom_property(name)
    assert "published already" in again.get_string_custom_property("message")
    assert len(versions.list_entries(world.base)) == 1


def test_only_what_is_given_is_needed(world):
    pushed = world.push(quantized_models=[], blessing=[], quantization_report=[], infra_blessing=[])
    assert pushed.get_int_custom_property("published") == 1
    manifest = catalog.live_manifest(world.base)
    assert (manifest.metrics, manifest.champion_on_span, manifest.tflite) == ({}, None, None)


@pytest.mark.parametrize(
    ("key", "verdict"), [("blessing", "blessed"), ("quantization_report", "passed"), ("infra_blessing", "blessed")]
)
def test_a_closed_gate_publishes_nothing(world, key, verdict):
    world.inputs[key][0].set_int_custom_property(verdict, 0)
    pushed = world.push()
    assert pushed.get_int_custom_property("pushed") == pushed.get_int_custom_property("published") == 0
    assert pushed.get_string_custom_property("message").startswith("Not published")
    assert not world.base.exists()


def test_a_challenger_that_met_another_champion_is_refused(world, tmp_path):
    from tfx.types import standard_artifacts

    world.inputs["blessing"][0].mlmd_artifact.create_time_since_epoch = 6000
    world.push(champion=[])
    other = artifact(standard_artifacts.Model, make_model(tmp_path / "other"), 13)
    for champion in ([], [other]):
        with pytest.raises(ModelRejected):
            world.push(model=[other], champion=champion)
    assert len(versions.list_entries(world.base)) == 1
    world.push(model=[other], champion=[world.model])
    assert len(versions.list_entries(world.base)) == 2


def test_the_stock_runner_runs_it_and_an_empty_champion_is_no_champion(tmp_path):
    """The champion's resolver finds nothing, then the published model; a comparison with another one is refused."""
    from tfx.dsl.components.common import importer, resolver
    from tfx.orchestration import metadata, pipeline
    from tfx.orchestration.local import local_dag_runner
    from tfx.types import channel, standard_artifacts

    from evergreen.components import resolvers
    from evergreen.components.pusher.component import Pusher

    base = tmp_path / "serving" / "flights"
    store = metadata.sqlite_metadata_connection_config(str(tmp_path / "metadata.db"))

    def run(model_path: Path, champion_base: Path):
        model = importer.Importer(source_uri=str(model_path), artifact_type=standard_artifacts.Model).with_id("Model")
        blessing = importer.Importer(
            source_uri=str(tmp_path),
            artifact_type=standard_artifacts.ModelBlessing,
            custom_properties={"blessed": 1, "metrics": json.dumps(METRICS)},
        ).with_id("Blessing")
        champion = resolver.Resolver(
            strategy_class=resolvers.Champion,
            config={"base_path": str(champion_base), "pipeline": "flights"},
            model=channel.Channel(type=standard_artifacts.Model),
        ).with_id("Champion")
        pusher = Pusher(
            model=model.outputs["result"],
            blessing=blessing.outputs["result"],
            champion=champion.outputs["model"],
            settings=json.dumps({"base_path": str(base)}),
            span=4,
            name="flights",
        )
        local_dag_runner.LocalDagRunner().run(
            pipeline.Pipeline(
                pipeline_name="flights",
                pipeline_root=str(tmp_path / "root"),
                components=[model, blessing, champion, pusher],
                metadata_connection_config=store,
            )
        )

    run(make_model(tmp_path / "a"), base)
    first = catalog.live_manifest(base)
    assert first.model_uri == str(tmp_path / "a") and first.run and int(first.pushed_by) > 0
    assert first.model_created > 0 and first.metrics == METRICS
    run(make_model(tmp_path / "b"), base)
    assert catalog.live_manifest(base).model_uri == str(tmp_path / "b")
    # That base path has no champion, and the blessing is older than the two pushes.
    with pytest.raises(ModelRejected):
        run(make_model(tmp_path / "c"), tmp_path / "nothing")
    assert len(versions.list_entries(base)) == 2
    with metadata.Metadata(store) as handle:
        pushed = handle.store.get_artifacts_by_type("PushedModel")
    live = [a for a in pushed if a.custom_properties["published"].int_value == 1]
    assert [int(a.custom_properties["pushed_version"].string_value) for a in live] == list(versions.list_entries(base))


def test_the_tflite_version_carries_its_metrics_name_and_number(world, tmp_path):
    from evergreen.components.quantizer import lite_file

    model = lite_file.schema.ModelT()
    model.version, model.buffers, model.subgraphs = 3, [lite_file.schema.BufferT()], []
    lite_file.put_metadata(model, {"variant": "int8"})
    content = lite_file.write(model)
    chosen = world.inputs["quantized_models"][1]
    Path(chosen.uri, "Format-Serving", "model.tflite").write_bytes(content)
    chosen.set_string_custom_property("metrics", json.dumps({"auc": 0.7}))
    world.push()
    record = catalog.list_versions(world.base)[0]
    published = (versions.lite_path(world.base) / str(record.version) / "model.tflite").read_bytes()
    assert lite_file.metadata(published) == {"variant": "int8", "name": "flights", "version": record.version}
    assert (record.tflite_metrics, record.tflite_bytes) == ({"auc": 0.7}, len(published))
    assert catalog.live_manifest(world.base).tflite["bytes"] == len(published)


def test_no_variant_that_passed_withdraws_the_earlier_ones(world):
    first = world.push()
    lite = versions.lite_path(world.base)
    assert list(versions.list_entries(lite)) == [int(first.get_string_custom_property("pushed_version"))]
    world.inputs["quantization_report"][0].set_int_custom_property("withdraw", 1)
    world.model.id, world.model.mlmd_artifact.create_time_since_epoch = 13, 6000
    second = world.push(quantized_models=[])
    assert second.get_int_custom_property("published") == 1
    assert list(versions.list_entries(lite)) == []
