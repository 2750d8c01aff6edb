"""A canary's trial judged: counters of a server's metrics and answers to requests of our own, before and during.

Two sources, because neither suffices. A server's own metrics count what clients really met, but TensorFlow Serving does
not say by which version: they can only be compared with the time before the trial. The requests of our own go to the
stable and to the new version by turns, so they tell the two apart, but they are few and all alike. Pure; scraping and
asking live in `trial`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evergreen.components.pusher.watch_plan import CanarySettings

REQUESTS = ":tensorflow:serving:request_count"
LATENCY = ":tensorflow:serving:request_latency"
MICROSECONDS = 1e6
# Below these a share or a mean says nothing, and a trial is not broken off.
MIN_REQUESTS = 20
MIN_PROBES = 20


@dataclass(frozen=True)
class Counters:
    """What one server has counted for one model since it started.

    Attributes:
      statuses: requests by their status, such as `OK`.
      latency: by (API, entrypoint), the number of requests and their seconds together.
    """

    statuses: Mapping[str, float] = field(default_factory=dict)
    latency: Mapping[tuple[str, str], tuple[float, float]] = field(default_factory=dict)

    @property
    def requests(self) -> float:
        """All requests."""
        return sum(self.statuses.values())

    @property
    def errors(self) -> float:
        """Those whose status is not OK."""
        return sum(count for status, count in self.statuses.items() if status != "OK")


def read_metrics(text: str, model: str) -> Counters:
    """Reads a server's metrics in Prometheus's text form.

    Args:
      text: the page.
      model: the model's name; of others nothing is read.

    Returns:
      The counters; empty where the server has not answered for this model yet.

    Raises:
      ValueError: it is no such page.
    """
    from prometheus_client.parser import text_string_to_metric_families

    statuses: dict[str, float] = {}
    latency: dict[tuple[str, str], list[float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            # The parser takes `_total` off a counter's name or adds it, after the page's TYPE line.
            name, labels = sample.name.removesuffix("_total"), sample.labels
            if labels.get("model_name") != model:
                continue
            if name == REQUESTS:
                status = labels.get("status", "")
                statuses[status] = statuses.get(status, 0.0) + sample.value
            elif name in (LATENCY + "_count", LATENCY + "_sum"):
                entry = latency.setdefault((labels.get("API", ""), labels.get("entrypoint", "")), [0.0, 0.0])
                if name.endswith("_count"):
                    entry[0] += sample.value
                else:
                    entry[1] += sample.value / MICROSECONDS
    return Counters(statuses, {key: (count, seconds) for key, (count, seconds) in latency.items()})


def since(earlier: Counters, later: Counters) -> Counters:
    """Returns what was counted between two readings.

    Args:
      earlier: the first.
      later: the second; where it has counted less, the server was started anew and everything in it is new.
    """
    if later.requests < earlier.requests:
        return later
    latency = {}
    for key, (count, seconds) in later.latency.items():
        count_before, seconds_before = earlier.latency.get(key, (0.0, 0.0))
        latency[key] = (max(0.0, count - count_before), max(0.0, seconds - seconds_before))
    statuses = {name: max(0.0, count - earlier.statuses.get(name, 0.0)) for name, count in later.statuses.items()}
    return Counters(statuses, latency)


def total(parts: Iterable[Counters]) -> Counters:
    """Adds up the counters of several servers."""
    statuses: dict[str, float] = {}
    latency: dict[tuple[str, str], tuple[float, float]] = {}
    for part in parts:
        for name, count in part.statuses.items():
            statuses[name] = statuses.get(name, 0.0) + count
        for key, (count, seconds) in part.latency.items():
            known = latency.get(key, (0.0, 0.0))
            latency[key] = (known[0] + count, known[1] + seconds)
    return Counters(statuses, latency)


@dataclass(frozen=True)
class Probes:
    """Answers to requests of our own under one label.

    Attributes:
      seconds: of each that was answered, how long it took.
      errors: the words of those that were not, or were answered wrongly.
    """

    seconds: Sequence[float] = ()
    errors: Sequence[str] = ()

    @property
    def count(self) -> int:
        """All requests."""
        return len(self.seconds) + len(self.errors)

    @property
    def median(self) -> float:
        """The median time, in seconds; NaN where nothing was answered."""
        ordered = sorted(self.seconds)
        return ordered[len(ordered) // 2] if ordered else float("nan")


def judge(
    limits: CanarySettings, before: Counters, during: Counters, stable: Probes, canary: Probes, *, over: bool
) -> list[str]:
    """Compares the trial with the time before it, and the new version with the stable one.

    Errors end a trial as soon as there were requests enough; slowness, which may pass, is judged at the end.

    Args:
      limits: what is allowed.
      before: the servers' counters of the time before the trial.
      during: those of the trial so far.
      stable: our requests to the stable version.
      canary: our requests to the new one.
      over: whether the trial has come to its end.

    Returns:
      What is beyond the limits, in sentences; none where the trial goes well.
    """
    reasons = []
    if canary.count >= (1 if over else MIN_PROBES):
        rise = _share(len(canary.errors), canary.count) - _share(len(stable.errors), stable.count)
        if rise > limits.max_error_ratio:
            reasons.append(
                f"{len(canary.errors)} of {canary.count} requests to `{limits.label}` failed, "
                f"{len(stable.errors)} of {stable.count} to `{limits.stable}`: {canary.errors[-1]}"
            )
    if during.requests >= MIN_REQUESTS:
        share, share_before = _share(during.errors, during.requests), _share(before.errors, before.requests)
        if share - share_before > limits.max_error_ratio:
            reasons.append(
                f"{share:.1%} of {during.requests:.0f} requests failed during the trial, {share_before:.1%} before it"
            )
    if not over:
        return reasons
    if min(len(canary.seconds), len(stable.seconds)) >= MIN_PROBES and stable.median:
        ratio = canary.median / stable.median
        if ratio > limits.max_latency_ratio:
            reasons.append(
                f"`{limits.label}` answers in {1000 * canary.median:.1f} ms, {ratio:.2f} times the "
                f"{1000 * stable.median:.1f} ms of `{limits.stable}` (at most {limits.max_latency_ratio:g})"
            )
    for key in sorted(during.latency):
        slower = _slower(before.latency.get(key, (0.0, 0.0)), during.latency[key])
        if slower is not None and slower > limits.max_latency_ratio:
            name = " ".join(part for part in key if part)
            reasons.append(
                f"{name} takes {slower:.2f} times as long as before the trial (at most {limits.max_latency_ratio:g})"
            )
    return reasons


def measured(before: Counters, during: Counters, stable: Probes, canary: Probes) -> dict[str, Any]:
    """Returns the numbers of a trial as plain values, for the record.

    Args:
      before: see `judge`.
      during: see `judge`.
      stable: see `judge`.
      canary: see `judge`.
    """
    return {
        "requests": {"before": before.requests, "during": during.requests},
        "errors": {"before": before.errors, "during": during.errors},
        "mean_ms": {
            " ".join(part for part in key if part): {
                "before": _mean_ms(before.latency.get(key, (0.0, 0.0))),
                "during": _mean_ms(during.latency[key]),
            }
            for key in sorted(during.latency)
        },
        "probes": {
            name: {
                "count": probes.count,
                "errors": len(probes.errors),
                "median_ms": round(1000 * probes.median, 3) if probes.seconds else None,
            }
            for name, probes in (("stable", stable), ("canary", canary))
        },
    }


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _mean_ms(entry: tuple[float, float]) -> float | None:
    return round(1000 * entry[1] / entry[0], 3) if entry[0] else None


def _slower(before: tuple[float, float], during: tuple[float, float]) -> float | None:
    """Returns how many times longer the mean request took; None where there are too few to say."""
    if min(before[0], during[0]) < MIN_REQUESTS or not before[1]:
        return None
    return (during[1] / during[0]) / (before[1] / before[0])
