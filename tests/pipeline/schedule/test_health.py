"""`/healthz` and `/metrics` as monitoring reads them."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from evergreen.components.errors import ConfigError
from evergreen.pipeline.schedule import health
from evergreen.pipeline.schedule.health import Endpoint, Snapshot


@pytest.fixture
def endpoint():
    made = Endpoint(0, "flights")
    yield made
    made.close()


def get(endpoint: Endpoint, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{endpoint.port}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def metrics(endpoint: Endpoint) -> dict[str, float]:
    status, text = get(endpoint, "/metrics")
    assert status == 200
    return {
        sample.name + (f":{sample.labels['result']}" if "result" in sample.labels else ""): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels["model"] == "flights"
    }


def test_metrics_are_what_the_loop_published(endpoint):
    now = time.time()
    endpoint.snapshot = Snapshot(
        beat=time.monotonic(),
        next_run=now + 60,
        last_success=now - 60,
        live_version=7,
        live_published=now - 3600,
        max_model_age=1800,
        waiting=2,
        failures=1,
        counts={"published": 3, "model rejected": 1},
        seconds=400.0,
    )
    found = metrics(endpoint)
    assert found["evergreen_next_run_timestamp_seconds"] == pytest.approx(now + 60)
    assert found["evergreen_last_success_timestamp_seconds"] == pytest.approx(now - 60)
    assert found["evergreen_live_version"] == 7
    assert found["evergreen_live_age_seconds"] == pytest.approx(3600, abs=60)
    assert found["evergreen_stale"] == 1
    assert found["evergreen_paused"] == 0
    assert found["evergreen_waiting"] == 2
    assert found["evergreen_runs_total:published"] == 3
    assert found["evergreen_runs_total:model rejected"] == 1
    assert found["evergreen_run_duration_seconds_count"] == 4
    assert found["evergreen_run_duration_seconds_sum"] == 400


def test_healthy_while_the_loop_goes_round_also_when_paused_or_stale(endpoint):
    endpoint.snapshot = Snapshot(
        beat=time.monotonic(), paused="3 runs failed", live_version=7, live_published=1.0, max_model_age=60
    )
    status, text = get(endpoint, "/healthz")
    assert status == 200
    assert json.loads(text)["paused"] == "3 runs failed"
    assert json.loads(text)["stale"] is True


def test_unhealthy_when_the_loop_hangs(endpoint):
    endpoint.snapshot = Snapshot(beat=time.monotonic() - health.HANGS_S - 1)
    status, text = get(endpoint, "/healthz")
    assert status == 503
    assert json.loads(text)["status"] == "hangs"


def test_nothing_else_is_there(endpoint):
    assert get(endpoint, "/")[0] == 404


def test_nobody_outside_of_the_machine_can_ask(endpoint):
    assert endpoint._server.server_address[0] == "127.0.0.1"


def test_a_taken_port_is_said(endpoint):
    with pytest.raises(ConfigError) as refused:
        Endpoint(endpoint.port, "flights")
    assert str(endpoint.port) in refused.value.headline
