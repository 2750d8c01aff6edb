"""What must hold after a soak: a list of checks, each with what was found."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soak_world import Delivery, World

from evergreen.components.pusher import catalog, versions
from evergreen.components.span_records import property_value
from evergreen.pipeline.store import Result, Run, State, Store

_LOOK_S = 0.05


@dataclass(frozen=True)
class Check:
    """One thing that must hold.

    Attributes:
      name: what.
      held: whether it did.
      found: what was found, in words.
    """

    name: str
    held: bool
    found: str


class Watcher:
    """Looks at the base path as a model server does, but twenty times a second, from a thread of its own.

    Args:
      base_path: the base path.

    Attributes:
      seen: by version, its bytes when it appeared.
      problems: what a server would have stumbled over.
    """

    def __init__(self, base_path: Path):
        self._base = base_path
        self.seen: dict[int, int] = {}
        self.problems: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Looks no more."""
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(_LOOK_S):
            for version, path in versions.list_entries(self._base).items():
                if version in self.seen:
                    continue
                self.seen[version] = catalog.saved_model_bytes(path)
                if not versions.is_complete(path):
                    self.problems.append(f"version {version} appeared without saved_model.pb")
                if version < max(self.seen):
                    self.problems.append(f"version {version} appeared after {max(self.seen)}")


def tried(world: World) -> list[Run]:
    """Lists the runs with their stages, oldest first."""
    return Store(world.config.connection, world.config.name).runs(stages=True)


def checks(world: World, arrived: Sequence[Delivery], watcher: Watcher) -> list[Check]:
    """Checks everything but that each version loads. The scheduler has ended.

    Args:
      world: the project.
      arrived: what was delivered.
      watcher: what was seen of the base path meanwhile.
    """
    store = Store(world.config.connection, world.config.name)
    runs, records = store.runs(stages=True), catalog.list_versions(world.config.publish.base_path)
    records.reverse()
    return [
        _decided_once(store, arrived),
        _trained_once(runs),
        _rising(store, [(record.version, record.span, record.span_version) for record in records]),
        _complete(records, watcher),
        _told(world, runs, {record.version for record in records}),
        _nothing_running(store, runs),
        _no_orphans(world),
        _no_leftovers(world, store),
    ]


def _decided_once(store: Store, arrived: Sequence[Delivery]) -> Check:
    expected = {(one.month, one.version): one.how != "corrupt" for one in arrived}
    records = store.span_records()
    times = Counter(record.key for record in records)
    wrong = [
        f"span {key[0]} version {key[1]} {times[key]} times"
        for key in sorted(expected | dict(times))
        if times[key] != 1 or key not in expected
    ]
    wrong += [
        f"span {record.span} version {record.version} {'accepted' if record.accepted else 'rejected'}"
        for record in records
        if record.key in expected and expected[record.key] != record.accepted
    ]
    rejected = sum(not accepted for accepted in expected.values())
    return Check(
        "every span version was decided exactly once",
        not wrong,
        ", ".join(wrong) or f"{len(expected) - rejected} accepted, {rejected} rejected",
    )


def _trained_once(runs: Sequence[Run]) -> Check:
    trained = Counter(
        (run.label, run.version) for run in runs for s in run.stages if s.node == "Trainer" and s.state is State.DONE
    )
    twice = [f"span {label} version {version}" for (label, version), count in trained.items() if count > 1]
    cut_off = sum(run.result is Result.KILLED for run in runs)
    return Check(
        "no span version was trained on twice",
        not twice,
        ", ".join(twice) or f"{len(trained)} trainings that came to their end in {len(runs)} runs, {cut_off} cut off",
    )


def _rising(store: Store, base: Sequence[tuple[int, int | None, int | None]]) -> Check:
    pushed = [
        (int(property_value(one, "pushed_version")), int(property_value(one, "span", -1)))
        for one in sorted(store.mlmd.get_artifacts_by_type("PushedModel"), key=lambda one: one.id)
        if property_value(one, "published", 1)
    ]
    numbers = [version for version, _ in pushed]
    spans = [(span or 0, version or 0) for _, span, version in base]
    held = bool(base) and numbers == sorted(set(numbers)) and spans == sorted(set(spans))
    held = held and numbers == [version for version, _, _ in base]
    return Check("versions rise, and ML Metadata knows them all", held, f"{numbers} of spans {spans}")


def _complete(records: Sequence[Any], watcher: Watcher) -> Check:
    problems = list(watcher.problems)
    problems += [f"version {record.version}: {record.problem}" for record in records if record.problem]
    problems += [f"version {record.version} has no TFLite pair" for record in records if record.tflite_bytes is None]
    for record in records:
        if watcher.seen.get(record.version) != record.bytes:
            problems.append(
                f"version {record.version} appeared with {watcher.seen.get(record.version)} of {record.bytes} bytes"
            )
    return Check(
        "the base path held complete versions only, at every moment",
        not problems,
        ", ".join(problems) or f"{len(records)} versions, whole from the moment at which they appeared",
    )


def _told(world: World, runs: Sequence[Run], published: set[int]) -> Check:
    events = world.notices()
    told = [event["version"] for event in events if event["event"] == "published"]
    names = Counter(str(event["event"]) for event in events)
    held = set(told) == published and len(told) == len(published) and names["late"] >= 1
    held = held and not names["paused"] and not names["failed"]
    refused = {run.id for run in runs if run.result in (Result.DATA_REJECTED, Result.MODEL_REJECTED)}
    held = held and refused == {event["run"] for event in events if event["event"] == "not_published"}
    counts = ", ".join(f"{count} {name}" for name, count in sorted(names.items()))
    return Check("every version and every refusal was told, the late month too, and no failure", held, counts)


def _nothing_running(store: Store, runs: Sequence[Run]) -> Check:
    from ml_metadata.proto import metadata_store_pb2 as pb

    states = Counter(execution.last_known_state for execution in store.mlmd.get_executions())
    going = states[pb.Execution.RUNNING] + states[pb.Execution.NEW]
    held = not going and all(run.result is not Result.RUNNING for run in runs)
    return Check(
        "no execution and no run is RUNNING in ML Metadata",
        held,
        f"{sum(states.values())} executions, {states[pb.Execution.FAILED]} FAILED, {going} RUNNING",
    )


def _no_orphans(world: World, limit_s: float = 20.0) -> Check:
    end = time.monotonic() + limit_s
    while (left := world.processes()) and time.monotonic() < end:
        time.sleep(0.5)
    remembered = world.state()
    held = not left and remembered.running is None and remembered.paused is None
    return Check("no orphan process", held, ", ".join(map(str, left)) or "none")


def _no_leftovers(world: World, store: Store) -> Check:
    """Looks for what is written aside, for results of runs, and for outputs of executions that failed."""
    found = []
    for folder, folders, files in os.walk(world.folder):
        aside = [name for name in (*folders, *files) if name.startswith((".staging", ".removed", "result-"))]
        found += [os.path.relpath(os.path.join(folder, name), world.folder) for name in aside]
    root = Path(world.config.pipeline_root)
    known = {str(one.id): one.last_known_state for one in store.mlmd.get_executions()}
    for path in (*root.glob("*/*/*"), *root.glob("*/.system/*/*"), *root.glob("*/.system/*/*/*")):
        if path.is_dir() and path.name.isdigit() and known.get(path.name) not in (3, 5):
            found.append(f"{path.relative_to(world.folder)} of an execution that did not end")
    found += [f"tmp/{path.name}" for path in world.tmp.iterdir()]
    return Check("no leftover staging, no temporary file", not found, ", ".join(found[:8]) or "none")
