"""A trial's judgement, from counters and answers alone."""

from __future__ import annotations

import pytest

from evergreen.components.pusher import canary
from evergreen.components.pusher.canary import Counters, Probes
from evergreen.components.pusher.watch_plan import CanarySettings

LIMITS = CanarySettings(max_error_ratio=0.05, max_latency_ratio=1.5)
PREDICT = ("predict", "GRPC")
PAGE = """\
# TYPE :tensorflow:serving:request_count counter
:tensorflow:serving:request_count{model_name="flights",status="OK"} 90
:tensorflow:serving:request_count{model_name="flights",status="INVALID_ARGUMENT"} 10
:tensorflow:serving:request_count{model_name="taxi",status="OK"} 1000
# TYPE :tensorflow:serving:request_latency histogram
:tensorflow:serving:request_latency_bucket{model_name="flights",API="predict",entrypoint="GRPC",le="10"} 0
:tensorflow:serving:request_latency_bucket{model_name="flights",API="predict",entrypoint="GRPC",le="+Inf"} 90
:tensorflow:serving:request_latency_sum{model_name="flights",API="predict",entrypoint="GRPC"} 180000
:tensorflow:serving:request_latency_count{model_name="flights",API="predict",entrypoint="GRPC"} 90
"""


def counters(ok: int, errors: int = 0, mean: float = 0.01) -> Counters:
    return Counters({"OK": ok, "INTERNAL": errors}, {PREDICT: (ok, ok * mean)})


def judged(before=None, during=None, stable=None, new=None, over=True) -> list[str]:
    nothing = Counters()
    return canary.judge(LIMITS, before or nothing, during or nothing, stable or Probes(), new or Probes(), over=over)


def test_a_page_is_read_for_one_model():
    read = canary.read_metrics(PAGE, "flights")
    assert (read.requests, read.errors) == (100, 10)
    assert read.latency == {PREDICT: (90, pytest.approx(0.18))}
    assert canary.read_metrics(PAGE, "other") == Counters()


def test_counters_of_a_time_and_of_a_server_that_started_anew():
    assert canary.since(counters(100, 2), counters(150, 3)).statuses == {"OK": 50, "INTERNAL": 1}
    assert canary.since(counters(100, 2), counters(5)) == counters(5)
    both = canary.total([counters(10, 1, 0.1), counters(30, 2, 0.2)])
    assert (both.requests, both.errors, both.latency[PREDICT]) == (43, 3, (40, pytest.approx(7.0)))


def test_a_trial_like_the_time_before_it_is_passed():
    same = Probes([0.01] * 30)
    assert judged(counters(1000, 10), counters(100, 1), same, same) == []
    assert judged() == []


def test_failures_of_the_new_version_alone_end_the_trial_early():
    failing = Probes([0.01] * 18, ["a:1: boom"] * 2)
    assert judged(stable=Probes([0.01] * 20), new=failing, over=False) == [
        "2 of 20 requests to `canary` failed, 0 of 20 to `stable`: a:1: boom"
    ]
    assert judged(stable=Probes([0.01] * 18, ["down"] * 2), new=failing) == [], "both fail: it is not the version"
    few = Probes([0.01] * 2, ["a:1: boom"])
    assert judged(stable=Probes([0.01] * 3), new=few, over=False) == []
    assert judged(stable=Probes([0.01] * 3), new=few) != []


def test_clients_errors_are_compared_with_the_time_before():
    assert judged(counters(900, 100), counters(90, 10)) == []
    (reason,) = judged(counters(990, 10), counters(90, 10), over=False)
    assert reason == "10.0% of 100 requests failed during the trial, 1.0% before it"
    assert judged(counters(990, 10), counters(5, 5)) == [], "ten requests say nothing"


def test_slowness_is_judged_at_the_end():
    slow, quick = Probes([0.02] * 20), Probes([0.01] * 20)
    assert judged(stable=quick, new=slow, over=False) == []
    (reason,) = judged(stable=quick, new=slow)
    assert reason == "`canary` answers in 20.0 ms, 2.00 times the 10.0 ms of `stable` (at most 1.5)"
    assert judged(stable=slow, new=quick) == []
    (reason,) = judged(counters(100, mean=0.01), counters(100, mean=0.03))
    assert reason == "predict GRPC takes 3.00 times as long as before the trial (at most 1.5)"
    assert judged(counters(10, mean=0.01), counters(100, mean=0.03)) == []


def test_what_was_measured_is_kept_as_plain_values():
    found = canary.measured(counters(10), counters(20, 1), Probes([0.01]), Probes([], ["boom"]))
    assert found["requests"] == {"before": 10, "during": 21}
    assert found["mean_ms"] == {"predict GRPC": {"before": 10.0, "during": 10.0}}
    assert found["probes"]["stable"] == {"count": 1, "errors": 0, "median_ms": 10.0}
    assert found["probes"]["canary"] == {"count": 1, "errors": 1, "median_ms": None}
