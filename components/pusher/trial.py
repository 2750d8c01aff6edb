"""Runs a canary's trial: asks both versions by turns, reads the servers' metrics, and stops when it goes badly.

What is judged, and by which limits, is `canary`'s business.
"""

from __future__ import annotations

import itertools
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evergreen.components.errors import EvergreenError
from evergreen.components.model_server.addresses import is_loopback
from evergreen.components.model_server.rows import Rows
from evergreen.components.pusher import canary, probe
from evergreen.components.pusher.canary import Counters, Probes
from evergreen.components.pusher.watch_plan import CanarySettings

Say = Callable[[float | None, str], None]

_PROBES = 300  # of the whole trial, as far as they are not less than this apart:
_PROBE_S = 0.1
_SCRAPE_S = 5.0
_HTTP_S = 5.0


@dataclass(frozen=True)
class Result:
    """How a trial ended.

    Attributes:
      reasons: what went wrong; none where it was passed.
      measured: the numbers, as plain values.
    """

    reasons: list[str]
    measured: dict[str, Any]


@dataclass
class _Asked:
    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def probes(self) -> Probes:
        return Probes(self.seconds, self.errors)


def scrape(url: str, model: str) -> Counters:
    """Reads a server's metrics.

    Args:
      url: of the page.
      model: the model's name.

    Raises:
      EvergreenError: it cannot be read.
    """
    try:
        direct = [urllib.request.ProxyHandler({})] if is_loopback(urllib.parse.urlsplit(url).netloc) else []
        with urllib.request.build_opener(*direct).open(url, timeout=_HTTP_S) as answer:
            return canary.read_metrics(answer.read().decode("utf-8"), model)
    except (OSError, ValueError) as error:
        raise EvergreenError(
            "the server's metrics cannot be read",
            f"{url}: {error}",
            "Start the server with --monitoring_config_file and --rest_api_port, or correct `publish.canary.metrics`.",
        ) from error


def run(
    clients: Mapping[str, Any],
    model: str,
    version: int,
    rows: Rows | None,
    limits: CanarySettings,
    tolerance: float,
    say: Say,
) -> Result:
    """Tries a version whose label is set already.

    Args:
      clients: by address, a `Client` of each server.
      model: the model's name.
      version: the version on trial.
      rows: what to ask; None to read the servers' metrics only.
      limits: what is allowed, and how long it takes.
      tolerance: see `probe.difference`; the new version's answers are checked, the stable one's are another model's.
      say: told how far the trial is.

    Returns:
      The result. A server whose metrics cannot be read during the trial is left out for the moment.

    Raises:
      EvergreenError: a server does not say what the version's signatures are.
    """
    input_name = probe.input_name(next(iter(clients.values())), model, version) if rows is not None else ""
    before = _scrape_all(limits.metrics, model, {})
    latest: dict[str, Counters] = dict(before)
    stable, new = _Asked(), _Asked()
    duration = 60 * limits.minutes
    pause = max(_PROBE_S, duration / _PROBES)
    began = time.monotonic()
    scraped = began
    for turn in itertools.count():
        now = time.monotonic()
        over = now - began >= duration
        if over or now - scraped >= min(_SCRAPE_S, duration / 10):
            latest = _scrape_all(limits.metrics, model, latest)
            scraped = now
        during = canary.total(canary.since(before.get(url, Counters()), counters) for url, counters in latest.items())
        base = canary.total(before.values())
        reasons = canary.judge(limits, base, during, stable.probes(), new.probes(), over=over)
        if reasons or over:
            return Result(reasons, canary.measured(base, during, stable.probes(), new.probes()))
        say(
            (now - began) / duration,
            f"version {version} on trial as `{limits.label}`: {_clock(now - began)} of {_clock(duration)}, "
            f"{len(new.seconds) + len(new.errors)} requests of ours, {len(new.errors)} failed"
            + (f"; {during.requests:.0f} of clients, {during.errors:.0f} failed" if limits.metrics else ""),
        )
        if rows is not None:
            for client in clients.values():
                # By turns, so that neither always finds the machine as the other left it.
                for label in (limits.stable, limits.label) if turn % 2 else (limits.label, limits.stable):
                    asked, check = (new, tolerance) if label == limits.label else (stable, None)
                    _ask(client, model, label, probe.one(rows, turn), input_name, check, asked)
        time.sleep(max(0.0, min(pause, began + duration - time.monotonic())))
    raise AssertionError("unreachable")


def _scrape_all(urls: Sequence[str], model: str, known: Mapping[str, Counters]) -> dict[str, Counters]:
    found = dict(known)
    for url in urls:
        try:
            found[url] = scrape(url, model)
        except EvergreenError:
            continue
    return found


def _ask(
    client: Any, model: str, label: str, rows: Rows, input_name: str, tolerance: float | None, asked: _Asked
) -> None:
    began = time.monotonic()
    try:
        answers = probe.ask(client, model, rows, input_name, label=label)
    except EvergreenError as error:
        asked.errors.append(f"{client.address}: {getattr(error, 'details', '') or error.reason or error.headline}")
        return
    seconds = time.monotonic() - began
    wrong = probe.difference(answers, rows, tolerance) if tolerance is not None else ""
    if wrong:
        asked.errors.append(f"{client.address}: {wrong}")
    else:
        asked.seconds.append(seconds)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
