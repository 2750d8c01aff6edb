"""Watches a published version come alive on the servers, tries it as a canary, and takes it back where it fails.

The order of things, each of which may be the last that this process does:
  1. `check`, before the push: the servers answer, and their configuration will load the version and keep the labels.
  2. `announce`, under the lock of the base path, before the commit: `.watch.json` puts the version on probation.
  3. `run`: every server reports it AVAILABLE, its answers are the Trainer's own, the trial is passed, the labels move.
  4. The probation ends; or the version is withdrawn, the version before it answers again, and then it ends.
A process that died on the way leaves `.watch.json`, and `finish` does the rest in another one.

A server that does not answer before a push, or before a watch is taken up again, refuses: a version is only judged by
servers that were there. One that answered then, and does not any more, may have been brought down by the version: it
counts against it when the time is over.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from filelock import FileLock, Timeout

from evergreen.components import atomic
from evergreen.components.errors import EvergreenError, LockHeld
from evergreen.components.model_server.rows import Rows
from evergreen.components.pusher import labels, probe, publish, trial, versions, watch_plan
from evergreen.components.pusher.servers import POLL_S, ServerAway, Servers
from evergreen.components.pusher.watch_plan import Pending, State, Watched, WatchSettings

Say = Callable[[float | None, str], None]

LOCK_FILE = ".watch.lock"
_TRIES, _TRY_AGAIN_S = 5, 1.0


class LabelsNotMoved(EvergreenError):
    """A server did not take the labels."""


class Watch:
    """A watch over one base path. Close it, or use it as a context manager.

    Args:
      settings: what to watch and how.
      base_path: the base path.
      model: the name by which the servers know the model.
      say: told the fraction done (None where unknown) and what is happening.
    """

    def __init__(self, settings: WatchSettings, base_path: atomic.StrPath, model: str, say: Say):
        self.settings = settings
        self.base = versions.local_path(base_path)
        self.model = model
        self._say = say
        self._servers = Servers(settings.servers, model)
        self._warnings: list[str] = []

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *error: object) -> None:
        self._servers.__exit__()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Holds the watch of the base path, which the kernel gives back when the process dies.

        Raises:
          LockHeld: another process watches a version of it.
        """
        atomic.make_directory(self.base)
        try:
            with FileLock(str(self.base / LOCK_FILE), timeout=0):
                yield
        except Timeout as error:
            raise LockHeld(
                f"another process is watching a new version in {self.base}",
                f"it holds {self.base / LOCK_FILE}",
                "Try again when it has ended.",
            ) from error

    def check(self) -> None:
        """Looks, before a push, whether a new version can be watched.

        Raises:
          ServerAway: a server does not answer, or its metrics cannot be read.
          ConfigError: a server does not know the model, or would not load a new version or keep the labels.
        """
        present = versions.list_entries(self.base)
        live = versions.live_of(present)
        for server in self.settings.servers:
            self._servers.check_there(server, "nothing was published", "what was trained is kept")
            if live is not None:
                self._servers.check_reads(server, self.base, live)
        if self.settings.canary is not None:
            for url in self.settings.canary.metrics:
                try:
                    trial.scrape(url, self.model)
                except EvergreenError as error:
                    raise ServerAway(error.headline, error.reason, error.next_step) from error
        if self.settings.models_config is not None:
            path = self.settings.models_config
            config = labels.model_config(labels.parse(labels.read_text(path), path), self.model, path)
            complete = [version for version, entry in present.items() if versions.is_complete(entry)]
            number = versions.next_version(time.time(), versions.highest_ever(self.base))
            labels.check_policy(
                config, complete, number, self.settings.canary is not None, path, moving=self._moving(number)
            )

    def announce(self, version: int, examples_uri: str = "", evaluation_uri: str = "") -> None:
        """Puts a version on probation; for `publish.publish`.

        Args:
          version: its number.
          examples_uri: the Examples whose exam rows are to be sent.
          evaluation_uri: the ModelEvaluation with the Trainer's answers.
        """
        watch_plan.write_pending(self.base, Pending(version, self.model, examples_uri, evaluation_uri))

    def finish(self) -> Watched | None:
        """Finishes the watch that a process which died has left.

        Returns:
          How it ended; None where there was none, or its version was never published.

        Raises:
          ServerAway: a server does not answer now; the version stays on probation.
          EvergreenError: see `run`.
        """
        pending = watch_plan.read_pending(self.base)
        if pending is None:
            return None
        if pending.reason:  # that it goes is decided, whoever answers
            return self.run()
        if pending.version not in versions.list_entries(self.base):
            watch_plan.forget_pending(self.base)
            return None
        if not self.settings.servers:
            watch_plan.forget_pending(self.base)
            text = f"Version {pending.version} is watched no more: `publish.server` names no server now."
            return Watched(pending.version, "", text)
        for server in self.settings.servers:
            headline = f"version {pending.version} is published, but its watch cannot be finished"
            self._servers.check_there(server, headline, "or take `publish.server` out, and the version stays")
        return self.run()

    def run(self) -> Watched:
        """Watches the version that is on probation, to its end.

        Returns:
          How it ended.

        Raises:
          ConfigError: `models_config` cannot be read any more.
          EvergreenError: the file system refused; the version stays on probation.
        """
        pending = watch_plan.read_pending(self.base)
        assert pending is not None
        if pending.reason:
            return self._withdraw(pending)
        try:
            reason, measured = self._examine(pending)
        except LabelsNotMoved as error:
            reason, measured = f"{error.headline}: {error.reason}", {}
        if reason:
            pending = dataclasses.replace(pending, reason=reason)
            watch_plan.write_pending(self.base, pending)
            return dataclasses.replace(self._withdraw(pending), measured=measured)
        watch_plan.forget_pending(self.base)
        servers = self.settings.servers
        text = f"{servers[0]} answers" if len(servers) == 1 else f"{len(servers)} servers answer"
        text += f" with version {pending.version}"
        if measured and self.settings.canary is not None:
            text += f", after a trial of {self.settings.canary.minutes:g} minutes"
        return Watched(pending.version, "", f"{text}.", measured, tuple(self._warnings))

    def move_labels(self, wanted: Mapping[str, int | None]) -> None:
        """Moves labels: in the file first, so that a server that starts now has them, then in every server.

        Args:
          wanted: `{label: version}`; None takes a label away. Does nothing without `models_config`.

        Raises:
          ConfigError: the file cannot be read.
          LabelsNotMoved: a server refused, or did not answer within half a minute.
        """
        path = self.settings.models_config
        if path is None:
            return
        text = labels.read_text(path)
        changed = labels.edited(text, self.model, wanted, path)
        if changed != text:
            atomic.write_file(path, changed)
        config = labels.parse(changed, path)
        refused = self._servers.reload(config)
        if refused:
            raise LabelsNotMoved(
                "a server did not take the labels",
                "; ".join(refused),
                "Reload the server's configuration, or start it anew.",
            )

    def _moving(self, version: int) -> dict[str, int]:
        """Returns the labels that a push moves to the new version when all is well."""
        settings = self.settings
        if settings.models_config is None:
            return {}
        return {settings.stable: version, **({settings.canary.label: version} if settings.canary else {})}

    def _examine(self, pending: Pending) -> tuple[str, dict[str, Any]]:
        """Returns why the version failed (empty where it did not), and what a trial measured."""
        version, settings = pending.version, self.settings
        reason = self._wait(version)
        if reason:
            return reason, {}
        rows = self._rows(pending)
        if rows is not None:
            self._say(None, f"comparing {len(rows.serialized)} answers with the Trainer's own")
            for server in settings.servers:
                wrong = self._compare(server, version, rows)
                if wrong:
                    return wrong, {}
        measured: dict[str, Any] = {}
        stable = None if self._has_passed(version) else self._before(version)
        if settings.canary is not None and stable is not None and self._is_live(version):
            # Both have a place from here on: clients that ask for `stable` are not moved by the trial.
            self.move_labels({settings.canary.stable: stable, settings.canary.label: version})
            clients = {server: self._servers.client(server) for server in settings.servers}
            result = trial.run(clients, self.model, version, rows, settings.canary, settings.tolerance, self._say)
            measured = result.measured
            if result.reasons:
                return "; ".join(result.reasons), measured
        if self._is_live(version):
            self.move_labels(self._moving(version))
        return "", measured

    def _rows(self, pending: Pending) -> Rows | None:
        """Returns what to ask; None, with a warning, where there is nothing: that is no fault of the version."""
        try:
            return probe.load(pending.examples_uri, pending.evaluation_uri, self.settings.rows)
        except EvergreenError as error:
            self._warnings.append(f"No answers of version {pending.version} were compared: {error.headline}.")
            return None

    def _is_live(self, version: int) -> bool:
        """Whether nobody has published another version, or rolled back, meanwhile: the labels are theirs then."""
        return versions.live_version(self.base) == version

    def _compare(self, server: str, version: int, rows: Rows) -> str:
        """Compares a server's answers with the Trainer's; returns what is wrong."""
        client = self._servers.client(server)
        for left in reversed(range(_TRIES)):
            try:
                name = probe.input_name(client, self.model, version)
                answers = probe.ask(client, self.model, rows, name, version=version)
            except EvergreenError as error:
                if left and getattr(error, "code", None) in probe.BUSY:
                    time.sleep(_TRY_AGAIN_S)  # a server under load may be too busy for a moment
                    continue
                return f"{server} does not answer for version {version}: {error.reason or error.headline}"
            wrong = probe.difference(answers, rows, self.settings.tolerance)
            return f"{server}: {wrong}" if wrong else ""
        raise AssertionError("unreachable")

    def _before(self, version: int) -> int | None:
        """Returns what `stable` points to, else the version before the new one; None where there is neither."""
        present = {v for v, path in versions.list_entries(self.base).items() if versions.is_complete(path)} - {version}
        stable = None
        if self.settings.models_config is not None:
            stable = labels.read(self.settings.models_config, self.model).get(self.settings.stable)
        return stable if stable in present else max((v for v in present if v < version), default=None)

    def _has_passed(self, version: int) -> bool:
        """Whether `stable` has moved already: a watcher may die between that and the end of the probation."""
        path = self.settings.models_config
        return path is not None and labels.read(path, self.model).get(self.settings.stable) == version

    def _wait(self, version: int) -> str:
        """Waits until every server has loaded a version; returns why it failed, or an empty text."""
        began = time.monotonic()
        while True:
            seen = [self._servers.see(server, version) for server in self.settings.servers]
            waited = time.monotonic() - began
            verdict = watch_plan.judge(seen, version, waited, self.settings.timeout)
            if verdict.state is State.FAILED:
                return verdict.text
            if verdict.state is State.LOADED:
                return ""
            self._say(min(0.99, waited / self.settings.timeout), verdict.text)
            time.sleep(POLL_S)

    def _withdraw(self, pending: Pending) -> Watched:
        """Takes a version back: its labels first, which no server may look for, then its files."""
        version, warnings = pending.version, self._warnings
        before = self._before(version)
        if self.settings.models_config is not None:
            theirs = [name for name, v in labels.read(self.settings.models_config, self.model).items() if v == version]
            try:
                self.move_labels(dict.fromkeys(theirs, before))
            except LabelsNotMoved as error:
                warnings.append(f"{error.headline}: {error.reason}. {error.next_step}")
        if version in versions.list_entries(self.base):
            publish.withdraw(self.base, version, pending.reason)
        text = f"Withdrew version {version}: {pending.reason}."
        live = versions.live_version(self.base)
        silent = self._wait_back(version, live)
        if silent:
            warnings.append(f"{silent} did not let go of version {version} within the time; look at the server's log.")
        elif live is not None:
            text += f" Version {live} answers again."
        watch_plan.forget_pending(self.base)
        return Watched(version, pending.reason, text, {}, tuple(warnings))

    def _wait_back(self, version: int, live: int | None) -> str:
        """Waits until every server answers with the live version and not with a withdrawn one; returns who does not.

        A server may say END of the live one meanwhile: it unloaded that when the newer one came.
        """
        began = time.monotonic()
        while True:
            missing = []
            for server in self.settings.servers:
                gone = self._servers.see(server, version).state not in (watch_plan.AVAILABLE, watch_plan.UNREACHABLE)
                if not gone or (live is not None and self._servers.see(server, live).state != watch_plan.AVAILABLE):
                    missing.append(server)
            waited = time.monotonic() - began
            if not missing or waited >= self.settings.timeout:
                return ", ".join(missing)
            doing = f"answer with version {live} again" if live is not None else f"unload version {version}"
            self._say(None, f"waiting for {missing[0]} to {doing}, {waited:.0f} s")
            time.sleep(POLL_S)


def protected(settings: WatchSettings, model: str) -> set[int]:
    """Returns the versions that retention must leave: those that a label points to.

    Args:
      settings: what is watched.
      model: the name by which the servers know the model.

    Raises:
      ConfigError: `models_config` cannot be read.
    """
    if settings.models_config is None:
        return set()
    return set(labels.read(settings.models_config, model).values())


def relabel(settings: WatchSettings, base_path: atomic.StrPath, model: str, version: int, say: Say) -> str:
    """Points the labels at a version that is live by another way than a push, such as a rollback.

    Args:
      settings: what is watched.
      base_path: the base path.
      model: the name by which the servers know the model.
      version: the version; the servers are waited for until they have loaded it.
      say: see `Watch`.

    Returns:
      Why the labels could not be moved, in a sentence; empty where they were, or where there are none.

    Raises:
      ConfigError: `models_config` cannot be read.
    """
    if not settings.servers or settings.models_config is None:
        return ""
    with Watch(settings, base_path, model, say) as watch:
        reason = watch._wait(version)
        if reason:
            return f"The labels stay where they are: {reason}."
        try:
            watch.move_labels(watch._moving(version))
        except LabelsNotMoved as error:
            return f"{error.headline[:1].upper()}{error.headline[1:]}: {error.reason}. {error.next_step}"
    return ""
