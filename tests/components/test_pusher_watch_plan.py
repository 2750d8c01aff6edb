"""A watch's verdicts and its file, without a server."""

from __future__ import annotations

import json

import pytest

from evergreen.components.errors import EvergreenError
from evergreen.components.pusher import watch_plan
from evergreen.components.pusher.watch_plan import Pending, Seen, State


def judged(*seen: Seen, waited: float = 4.0) -> watch_plan.Verdict:
    return watch_plan.judge(seen, 17, waited, 60.0)


def test_every_server_must_have_loaded_the_version():
    assert judged(Seen("a:1", "AVAILABLE"), Seen("b:1", "AVAILABLE")).state is State.LOADED
    verdict = judged(Seen("a:1", "AVAILABLE"), Seen("b:1", "LOADING"), Seen("c:1", watch_plan.UNKNOWN))
    assert verdict.state is State.WAITING
    assert verdict.text == "waiting for b:1 and 1 more to load version 17, 4 s"


def test_what_a_server_says_of_a_version_it_gave_up_is_the_reason():
    verdict = judged(Seen("a:1", "AVAILABLE"), Seen("b:1", "END", True, "no variables.index"))
    assert verdict.state is State.FAILED
    assert verdict.text == "b:1 does not serve version 17: no variables.index"
    assert "unloaded" in judged(Seen("a:1", "END")).text


def test_an_error_while_it_loads_is_no_verdict_but_the_end_of_the_time_is():
    loading = Seen("a:1", "LOADING", True, "try again")
    assert judged(loading).state is State.WAITING
    late = judged(loading, waited=60.0)
    assert late.state is State.FAILED
    assert late.text == "a:1 did not answer with version 17 within 60 s: it is LOADING (try again)"


def test_a_server_that_fell_silent_has_the_whole_time():
    silent = Seen("a:1", watch_plan.UNREACHABLE, message="connection refused")
    assert judged(silent, waited=59.0).text == "waiting for a:1 to answer, 59 s"
    assert "no answer (connection refused)" in judged(silent, waited=60.0).text


def test_the_file_lasts_until_the_watch_ends(tmp_path):
    assert watch_plan.read_pending(tmp_path) is None
    watch_plan.forget_pending(tmp_path)
    pending = Pending(17, "flights", "/examples", "/evaluation", "it is slow")
    watch_plan.write_pending(tmp_path, pending)
    assert watch_plan.read_pending(tmp_path) == pending
    watch_plan.forget_pending(tmp_path)
    assert watch_plan.read_pending(tmp_path) is None
    assert watch_plan.read_pending(tmp_path / "missing") is None


@pytest.mark.parametrize("text", ["", "[]", '{"version": 3}', json.dumps({"version": "3", "model": "m"})])
def test_a_file_of_another_hand_is_named(tmp_path, text):
    (tmp_path / ".watch.json").write_text(text)
    with pytest.raises(EvergreenError, match=r"\.watch\.json"):
        watch_plan.read_pending(tmp_path)


def test_settings_come_from_the_configuration():
    assert watch_plan.parse_settings({"base_path": "/b"}) == watch_plan.WatchSettings()
    found = watch_plan.parse_settings(
        {
            "server": ["a:1", "b:1"],
            "watch": {"timeout": 5, "rows": 2, "tolerance": 0.1},
            "canary": {"minutes": 2.0, "stable": "good", "metrics": ["http://a/m"]},
            "models_config": "/m",
        }
    )
    assert (found.servers, found.timeout, found.rows, found.tolerance) == (("a:1", "b:1"), 5, 2, 0.1)
    assert found.canary == watch_plan.CanarySettings(minutes=2.0, stable="good", metrics=("http://a/m",))
    assert found.stable == "good"
    assert watch_plan.parse_settings({"server": "a:1"}).servers == ("a:1",)
