"""What each page of the local server shows. Reads the store anew for every page; runs in one thread, one at a time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

from evergreen.components.errors import ConfigError
from evergreen.components.pusher import catalog, versions, watch_plan
from evergreen.pipeline import locks, rollback
from evergreen.pipeline.config import Config
from evergreen.pipeline.lineage import Lineage, diff
from evergreen.pipeline.span_pattern import Pattern
from evergreen.pipeline.store import Result, Store
from evergreen.pipeline.web import data, history, network, schedule

Page = tuple[str, dict[str, Any]]
RUNS_SHOWN = 25
_PLOTTED = 40


def link(kind: str, number: int) -> str | None:
    """Returns the address of an artifact's or execution's page."""
    return f"/{kind}/{number}"


class Views:
    """The pages: each method returns the template's name and its values.

    Args:
      config: the project's configuration.
    """

    def __init__(self, config: Config):
        self.config = config
        self._store: Store | None = None
        self._file: int | None = None
        self._label = Pattern(config.data.pattern).label

    @property
    def store(self) -> Store:
        """The metadata store; opened anew where another file has taken its place."""
        file = None
        if self.config.connection.kind == "sqlite" and os.path.exists(self.config.connection.path):
            file = os.stat(self.config.connection.path).st_ino
        if self._store is None or file != self._file:
            self._store, self._file = Store(self.config.connection, self.config.name), file
        return self._store

    @property
    def lineage(self) -> Lineage:
        """Answers from the store as it is now."""
        return Lineage(self.config, self.store)

    def pulse(self) -> str:
        """Returns a text that changes when the overview would."""
        newest = self.store.newest_runs(1)
        run = f"{newest[0].id} {newest[0].result.value}" if newest else ""
        held = versions.read_hold(self.config.publish.base_path)
        base = f"{sorted(versions.list_entries(self.config.publish.base_path))} {held and held.since}"
        return hashlib.sha256(f"{run} {base} {schedule.stamp(self.config)}".encode()).hexdigest()[:16]

    def overview(self) -> Page:
        """What is live, what goes on, what comes next, the versions, the newest runs."""
        base_path = self.config.publish.base_path
        records = catalog.list_versions(base_path)
        watched = None if versions.is_uri(base_path) else watch_plan.read_pending(versions.local_path(base_path))
        runs = self.store.newest_runs(max(RUNS_SHOWN + 1, _PLOTTED))
        running = next((run for run in runs if run.result is Result.RUNNING), None)
        metrics = list(self.config.evaluate.metrics)
        rows = [history.row(run, None, {}) for run in reversed(runs[:_PLOTTED])]
        return "overview", {
            "live": next((record for record in records if record.live), None),
            "watched": watched and watched.version,
            "hold": versions.read_hold(base_path),
            "running": running if running is not None and locks.is_held(self.config.lock_path) else None,
            "schedule": schedule.state(self.config),
            "versions": records,
            "runs": runs[:RUNS_SHOWN],
            "more": len(runs) > RUNS_SHOWN,
            "plots": history.plots(rows, metrics[:2])[:2] if any(row["exam"] for row in rows) else [],
            "metrics": metrics[:2],
            "label": self._label,
            "pulse": self.pulse(),
        }

    def runs(self, skip: int) -> Page:
        """A page of the runs, newest first."""
        found = self.store.newest_runs(RUNS_SHOWN + 1, skip)
        return "runs", {
            "runs": found[:RUNS_SHOWN],
            "newer": max(0, skip - RUNS_SHOWN) if skip else None,
            "older": skip + RUNS_SHOWN if len(found) > RUNS_SHOWN else None,
            "first": skip + 1,
        }

    def history(self) -> Page:
        """The model's history."""
        return "history", {"history": history.history(self.lineage)}

    def version(self, number: int) -> Page:
        """The card of a version."""
        lineage = self.lineage
        return "card", {"card": data.card(lineage, lineage.version(number), self._label, link=link)}

    def run(self, run_id: str) -> Page:
        """The card of a run."""
        lineage = self.lineage
        return "card", {"card": data.card(lineage, lineage.run(run_id), self._label, as_run=True, link=link)}

    def span(self, number: int) -> Page:
        """Everything made from a span."""
        return "span", {"span": self.lineage.span(number), "label": self._label}

    def artifact(self, number: int) -> Page:
        """An artifact among its neighbours."""
        lineage = self.lineage
        node = lineage.artifact(number)
        (proto,) = lineage.graph.artifacts([number])
        span = node.properties.get("span")
        return "node", {
            "kind": "artifact",
            "title": f"{node.type} {number}",
            "facts": {"state": node.state, "made": node.created, "run": node.made_by.get("run"), "uri": node.name},
            "version": node.properties.get("pushed_version"),
            "span": (int(span), self._label(int(span))) if span is not None else None,
            "details": network.details(proto),
            "graph": network.around_artifact(lineage.graph, number, self._label, link),
        }

    def execution(self, number: int) -> Page:
        """An execution among what went in and what came out.

        Raises:
          ConfigError: there is no such execution.
        """
        lineage = self.lineage
        found = lineage.graph.executions([number]) if self.store.exists else []
        if not found:
            raise ConfigError(
                f"there is no execution {number}",
                f"{self.config.connection.describe()} does not hold it",
                "The graph of a version names the executions behind it.",
            )
        (proto,) = found
        return "node", {
            "kind": "execution",
            "title": f"{lineage.graph.kind(proto)} {number}",
            "facts": {
                "state": data.STATES.get(proto.last_known_state, "?"),
                "made": proto.create_time_since_epoch,
                "run": lineage.graph.run_of(number),
                "took": (proto.last_update_time_since_epoch - proto.create_time_since_epoch) / 1000,
            },
            "version": None,
            "span": None,
            "details": network.details(proto),
            "graph": network.around_execution(lineage.graph, number, self._label, link),
        }

    def compare(self, before: int | None, after: int | None) -> Page:
        """What changed between two versions; by default from the version before to the live one."""
        published = [run.pushed_version for run in self.store.newest_runs(200) if run.pushed_version]
        known = sorted({*versions.list_entries(self.config.publish.base_path), *published}, reverse=True)
        after = after if after is not None else known[0] if known else None
        if before is None and after is not None:
            before = next((version for version in known if version < after), None)
        changes: list[Any] = []
        if before is not None and after is not None:
            lineage = self.lineage
            sides = lineage.version(before), lineage.version(after)
            changes = diff.compare(*sides, least_rows=self.config.evaluate.min_slice_rows)
        sections: dict[str, list[Any]] = {}
        for change in changes:
            sections.setdefault(change.section, []).append((change.name, *diff.words(change)))
        return "compare", {"known": known, "before": before, "after": after, "sections": sections}

    def rollback_form(self, to: int) -> Page:
        """Asks whether to roll back.

        Raises:
          ConfigError: the version is not on disk, or live already.
        """
        records = {record.version: record for record in catalog.list_versions(self.config.publish.base_path)}
        live = next((record for record in records.values() if record.live), None)
        found = records.get(to)
        if found is None or live is None or found.live or found.withdrawn is not None:
            withdrawn = f"it was withdrawn: {found.withdrawn}" if found and found.withdrawn is not None else ""
            raise ConfigError(
                f"version {to} cannot be restored",
                withdrawn or ("it is live already" if found and found.live else "it is not in the base path"),
                "The overview lists the versions that are there.",
            )
        return "rollback", {"target": found, "live": live, "metrics": list(self.config.evaluate.metrics)}

    def live_version(self) -> int | None:
        """Returns the live version, or None."""
        return versions.live_version(self.config.publish.base_path)

    def roll_back(self, to: int) -> Mapping[str, Any]:
        """Rolls back, as `evergreen rollback --to` does.

        Returns:
          `version`, `restores`, `was_live` and `warnings`.
        """
        done, warnings = rollback.roll_back(self.config, self.store, to)
        return {
            "version": done.version,
            "restores": done.restores,
            "was_live": done.was_live,
            "warnings": [*done.warnings, *warnings],
        }
