"""A new version on a real server: kept where it answers as the Trainer did, withdrawn where it does not."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from serving_world import environment, serve, tf2_model
from watch_world import World, push

from evergreen.components.errors import ConfigError, LockHeld
from evergreen.components.model_server.process import free_port
from evergreen.components.pusher import publish, versions, watch, watch_plan, withdrawal

pytestmark = pytest.mark.tensorflow

METRICS = "/monitoring/prometheus/metrics"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """SavedModels whose bias is their number."""
    folder = tmp_path_factory.mktemp("models")
    return {bias: tf2_model(folder / str(bias), float(bias)) for bias in (1, 2)}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server that every test gives its own model."""
    folder = tmp_path_factory.mktemp("server")
    nothing = folder / "base"
    nothing.mkdir()
    config = folder / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "other" base_path: "{nothing}" model_platform: "tensorflow" }} }}'
    )
    monitoring = folder / "monitoring.config"
    monitoring.write_text(f'prometheus_config {{ enable: true path: "{METRICS}" }}')
    flags = [
        f"--model_config_file={config}",
        f"--monitoring_config_file={monitoring}",
        "--max_num_load_retries=0",
        "--file_system_poll_wait_seconds=0.2",
    ]
    with serve(folder, *flags) as running:
        yield running


@pytest.fixture
def world(tmp_path, server):
    return World(tmp_path, server)


def pushed(world: World, models: dict, number: int, **more) -> watch_plan.Watched:
    return push(world.base, more.pop("settings", world.settings()), world.candidate(models[number], number), **more)


def watched_nothing(world: World) -> bool:
    return watch_plan.read_pending(world.base) is None


def test_a_version_that_answers_as_the_trainer_did_is_kept(world, models):
    said = []
    ended = pushed(world, models, 1, uris=world.rows(1.0), say=lambda fraction, text: said.append(text))
    live = versions.live_version(world.base)
    assert not ended.withdrawn
    assert ended.text == f"{world.server.grpc} answers with version {live}."
    assert world.answer() == 1.0
    assert watched_nothing(world)
    assert said[0].startswith(f"waiting for {world.server.grpc} to load version {live}")
    assert said[-1] == "comparing 4 answers with the Trainer's own"


def test_a_version_that_answers_otherwise_goes_and_the_earlier_one_answers(world, models):
    pushed(world, models, 1)
    first = versions.live_version(world.base)
    ended = pushed(world, models, 2, uris=world.rows(5.0))
    assert ended.withdrawn and ended.version > first
    assert "`predictions` of row 0 is 2, expected 5" in ended.reason
    assert versions.live_version(world.base) == first
    assert world.answer() == 1.0
    assert f"Version {first} answers again." in ended.text
    assert watched_nothing(world)
    assert withdrawal.list_withdrawn(world.base)[ended.version].reason == ended.reason


def test_a_version_that_no_server_can_load_goes(world, models, tmp_path):
    pushed(world, models, 1)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "saved_model.pb").write_bytes(b"no graph")
    ended = push(world.base, world.settings(), world.candidate(broken, 9))
    assert f"{world.server.grpc} does not serve version {ended.version}: " in ended.reason
    assert world.answer() == 1.0


def test_rows_that_cannot_be_compared_are_no_fault_of_the_version(world, models):
    examples, _ = world.rows(1.0)
    ended = pushed(world, models, 1, uris=(examples, world.answers("fewer", [1.0])))
    assert not ended.withdrawn
    (warning,) = ended.warnings
    assert warning.startswith(f"No answers of version {ended.version} were compared: The exam rows are not those")


def test_where_no_server_answers_nothing_is_published(world, models):
    nobody = f"127.0.0.1:{free_port()}"
    with pytest.raises(watch.ServerAway, match=f"nothing was published: the server {nobody} does not answer"):
        pushed(world, models, 1, settings=world.settings(server=[world.server.grpc, nobody]))
    assert versions.list_entries(world.base) == {} and watched_nothing(world)
    publish.publish(world.base, world.candidate(models[1], 1), keep=3)
    with pytest.raises(ConfigError, match="the server knows no such version of the model `another`"):
        watch.Watch(watch_plan.parse_settings(world.settings()), world.base, "another", print).check()


def test_a_server_that_falls_silent_has_until_the_time_is_over(world, models, tmp_path):
    with serve(tmp_path / "second", f"--model_name={world.model}", f"--model_base_path={world.base}") as second:
        settings = world.settings(server=[world.server.grpc, second.grpc], watch={"timeout": 3, "rows": 0})
        with world.watch(settings) as watching:
            watching.check()
            second.stop(signal.SIGKILL)
            publish.publish(world.base, world.candidate(models[1], 1), keep=3, announce=watching.announce)
            ended = watching.run()
    assert f"{second.grpc} did not answer with version {ended.version} within 3 s: no answer" in ended.reason
    assert versions.live_version(world.base) is None


def test_two_processes_do_not_watch_at_once(world):
    one, other = world.watch(world.settings()), world.watch(world.settings())
    with one.held(), pytest.raises(LockHeld, match="another process is watching"), other.held():
        pass


class TestCanary:
    def test_stable_stays_during_the_trial_and_moves_behind_it(self, world, models):
        url = f"http://{world.server.rest}{METRICS}"
        settings = world.canary(metrics=[url])
        first = pushed(world, models, 1, settings=settings).version
        assert world.labels == {"canary": first, "stable": first}, "a first version has nothing to be tried against"
        seen = []

        def look(fraction, text):
            if "on trial" in text and not seen:
                seen.append((world.answer(label="stable"), world.answer(label="canary"), world.labels))

        ended = pushed(world, models, 2, settings=settings, uris=world.rows(2.0), say=look)
        assert not ended.withdrawn, ended.reason
        assert seen == [(1.0, 2.0, {"canary": ended.version, "stable": first})]
        assert world.labels == {"canary": ended.version, "stable": ended.version}
        assert world.answer(label="stable") == world.answer(label="canary") == 2.0
        assert world.models_config.read_text().startswith("# kept\n")
        probes = ended.measured["probes"]
        assert probes["stable"]["count"] > 5 and probes["stable"]["errors"] == probes["canary"]["errors"] == 0
        assert ended.measured["requests"]["during"] > 5 and ended.measured["errors"]["during"] == 0

    def test_a_trial_beyond_its_limits_gives_the_labels_back(self, world, models):
        first = pushed(world, models, 1, settings=world.canary()).version
        ended = pushed(world, models, 2, settings=world.canary(max_latency_ratio=0.001), uris=world.rows(2.0))
        assert ended.withdrawn and "times the" in ended.reason
        assert world.labels == {"canary": first, "stable": first}
        assert world.answer(label="canary") == world.answer(label="stable") == world.answer() == 1.0
        assert versions.live_version(world.base) == first

    def test_a_policy_that_unloads_the_stable_version_is_refused_before_the_push(self, world, models):
        world.models_config.write_text(world.models_config.read_text().replace("num_versions: 2", "num_versions: 1"))
        settings = world.canary()
        pushed(world, models, 1, settings=settings)
        with pytest.raises(ConfigError, match="could not keep the labels"):
            pushed(world, models, 2, settings=settings)
        assert len(versions.list_entries(world.base)) == 1

    def test_labels_follow_a_version_that_is_live_by_another_way(self, world, models):
        settings = world.settings(models_config=str(world.models_config))
        first = pushed(world, models, 1, settings=settings).version
        assert world.labels == {"stable": first}
        restored = publish.publish(world.base, world.candidate(models[2], 2), keep=3).version
        parsed = watch_plan.parse_settings(settings)
        assert watch.relabel(parsed, world.base, world.model, restored, lambda f, t: None) == ""
        assert world.labels == {"stable": restored} and world.answer(label="stable") == 2.0
        assert watch.protected(parsed, world.model) == {restored}


class TestKilled:
    """SIGKILL while a version is watched; another process does the rest."""

    @pytest.fixture
    def killed(self, world, models, tmp_path):
        """A second version on trial, whose watcher is dead; returns (the first version, the second)."""
        first = pushed(world, models, 1, settings=world.canary()).version
        order = {
            "model": str(models[2]),
            "number": 2,
            "name": world.model,
            "base": str(world.base),
            "settings": world.canary(minutes=60),
        }
        (tmp_path / "order.json").write_text(json.dumps(order))
        program = Path(__file__).parent.parent / "watch_world.py"
        child = subprocess.Popen(
            [sys.executable, str(program), str(tmp_path / "order.json")],
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        try:
            assert any("on trial" in line for line in child.stdout), "the watch ended before it could be killed"
        finally:
            child.send_signal(signal.SIGKILL)
            child.communicate()
        second = versions.live_version(world.base)
        assert second > first and watch_plan.read_pending(world.base).version == second
        return first, second

    def test_the_next_one_finishes_the_trial(self, world, killed):
        _, second = killed
        ended = world.finish(world.canary())
        assert ended.version == second and not ended.withdrawn
        assert world.labels == {"canary": second, "stable": second}
        assert watched_nothing(world) and world.finish(world.canary()) is None

    def test_the_next_push_withdraws_what_was_to_go(self, world, models, killed):
        first, second = killed
        pending = watch_plan.read_pending(world.base)
        watch_plan.write_pending(world.base, watch_plan.Pending(second, world.model, reason="it was slow"))
        assert pending.reason == ""
        third = push(world.base, world.canary(), world.candidate(models[1], 3)).version
        assert list(versions.list_entries(world.base)) == [first, third]
        assert withdrawal.list_withdrawn(world.base)[second].reason == "it was slow"
        assert world.labels == {"canary": third, "stable": third}

    def test_a_version_that_was_overtaken_takes_no_labels(self, world, models, killed):
        _, second = killed
        third = publish.publish(world.base, world.candidate(models[1], 3), keep=3).version
        settings = watch_plan.parse_settings(world.canary())
        assert watch.relabel(settings, world.base, world.model, third, lambda f, t: None) == ""
        ended = world.finish(world.canary())
        assert ended.version == second and not ended.withdrawn and watched_nothing(world)
        assert world.labels == {"canary": third, "stable": third}

    def test_a_server_that_is_away_now_judges_nothing(self, world, killed):
        _, second = killed
        away = {**world.canary(), "server": f"127.0.0.1:{free_port()}"}
        with pytest.raises(watch.ServerAway, match=f"version {second} is published, but its watch cannot be finished"):
            world.finish(away)
        assert versions.live_version(world.base) == second and not watched_nothing(world)
        ended = world.finish({})
        assert "watched no more" in ended.text and not ended.withdrawn and watched_nothing(world)


def test_what_was_to_be_withdrawn_goes_though_no_server_is_named_any_more(world, models):
    bad = publish.publish(world.base, world.candidate(models[2], 2), keep=3).version
    watch_plan.write_pending(world.base, watch_plan.Pending(bad, world.model, reason="it answered wrong"))
    ended = world.finish({})
    assert ended.withdrawn and ended.text == f"Withdrew version {bad}: it answered wrong."
    assert versions.live_version(world.base) is None and watched_nothing(world)


def test_a_version_that_never_came_to_be_is_forgotten(world):
    watch_plan.write_pending(world.base, watch_plan.Pending(77, world.model))
    assert world.finish(world.settings()) is None
    assert watched_nothing(world)


class TestExecutor:
    """The Pusher itself: what it leaves in its PushedModel, and what stays of its version."""

    def artifact(self, kind: str, uri: str, number: int = 0):
        from tfx.types import standard_artifacts

        made = getattr(standard_artifacts, kind)()
        made.uri, made.id = uri, number
        return made

    def push(self, world, models, number, uris, folder):
        from evergreen.components.pusher import executor

        home = folder / f"model{number}"
        home.mkdir()
        (home / "Format-Serving").symlink_to(models[number])
        pushed = self.artifact("PushedModel", str(folder / f"pushed{number}"))
        inputs = {
            "model": [self.artifact("Model", str(home), number)],
            "examples": [self.artifact("Examples", uris[0])],
            "evaluation": [self.artifact("ModelEvaluation", uris[1])],
        }
        settings = {"base_path": str(world.base), "warmup": "none", **world.settings()}
        properties = {"settings": json.dumps(settings), "span": number, "name": world.model}
        executor.Executor().Do(inputs, {"pushed_model": [pushed]}, properties)
        return pushed

    def test_a_withdrawn_version_is_marked_with_its_reason(self, world, models, tmp_path):
        right = self.push(world, models, 1, world.rows(1.0), tmp_path)
        assert right.get_int_custom_property("withdrawn") == 0
        assert right.get_int_custom_property("published") == right.get_int_custom_property("pushed") == 1
        assert f"{world.server.grpc} answers with version" in right.get_string_custom_property("message")
        wrong = self.push(world, models, 2, world.rows(7.0), tmp_path)
        assert wrong.get_int_custom_property("withdrawn") == 1
        assert wrong.get_int_custom_property("published") == wrong.get_int_custom_property("pushed") == 0
        assert "expected 7" in wrong.get_string_custom_property("reason")
        version = int(wrong.get_string_custom_property("pushed_version"))
        assert json.loads((Path(wrong.uri) / "evergreen.json").read_text())["version"] == version
        assert versions.live_version(world.base) == int(right.get_string_custom_property("pushed_version"))
        assert world.answer() == 1.0
