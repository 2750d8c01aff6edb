"""One served model: its versions, and the thread that finds, loads and unloads them beside the requests.

Each model has a thread of its own, so that a load that takes long or fails does not hold up another model. Requests
take a lock for the time of a look-up; all that is slow happens outside of it.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from evergreen.serving import complete, errors, loader, versions
from evergreen.serving.options import ManagerOptions
from evergreen.serving.servable import Servable
from evergreen.serving.status import AVAILABLE, END, LOADING, START, UNLOADING, VersionStatus

_LOG = logging.getLogger(__name__)
# Versions that ended and stay in the status: enough to see what happened, and a bound for a server that runs for years.
_ENDED_KEPT = 20
_AFTER_DEFECT_SECONDS = 1.0


@dataclass
class _Version:
    """What is known of one version; guarded by the model's lock except `servable`'s own calls.

    Attributes:
      leases: requests that run on it.
      fingerprint: the directory's files when a load was last tried.
      seen: the same at the last poll.
      tries: loads that failed.
      retry_at: when the next try is due, by the monotonic clock; None for no further try.
      found: whether the newest listing of the base path holds it.
      wanted: whether the policy ever asked for it; the status leaves out those that nobody asked for.
    """

    number: int
    path: Path
    state: str = START
    code: grpc.StatusCode = grpc.StatusCode.OK
    message: str = ""
    servable: Servable | None = None
    leases: int = 0
    fingerprint: Any = None
    seen: Any = None
    tries: int = 0
    retry_at: float | None = None
    found: bool = True
    wanted: bool = False

    @property
    def failed(self) -> bool:
        """Whether the last load failed."""
        return self.servable is None and self.code is not grpc.StatusCode.OK

    def status(self) -> VersionStatus:
        """What ModelService reports."""
        return VersionStatus(self.number, self.state, self.code, self.message)


@dataclass(frozen=True)
class Hooks:
    """What the server does beside: see Manager's arguments of these names."""

    warm_up: Callable[[Servable], None]
    on_load: Callable[[str, int, float], None]
    on_queued: Callable[[str, float], None]


class Model:
    """One model of the configuration.

    Args:
      config: its ModelConfig.
      options: see ManagerOptions.
      hooks: see Hooks.
    """

    def __init__(self, config: Any, options: ManagerOptions, hooks: Hooks):
        self.name: str = config.name
        self._options = options
        self._hooks = hooks
        self._changed = threading.Condition()
        self._versions: dict[int, _Version] = {}
        self._base_path = Path(config.base_path)
        self._policy = config.model_version_policy
        self._poll_at: float | None = 0.0
        self._listed = False
        self._warned = ""
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name=f"versions of {self.name}", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def update(self, config: Any) -> None:
        """Takes another base path or policy. A version number that is loaded is not loaded again."""
        with self._changed:
            self._base_path = Path(config.base_path)
            self._policy = config.model_version_policy
            self._poll_at = 0.0
            self._changed.notify_all()

    def stop(self) -> None:
        """Unloads all versions as their requests end, and ends the thread; returns at once."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def join(self, seconds: float) -> None:
        """Waits until the thread has ended, for `seconds` at most."""
        self._thread.join(seconds)

    def wait_decided(self) -> VersionStatus | None:
        """Waits until a version is AVAILABLE or nothing that was found could be loaded at the first try.

        Returns:
          The newest AVAILABLE version's status, else the newest one's; None for a base path without versions.
        """
        with self._changed:
            self._changed.wait_for(self._decided)
            known = sorted(self._versions.values(), key=lambda one: (one.state == AVAILABLE, one.number))
            return known[-1].status() if known else None

    def status(self) -> list[VersionStatus]:
        """Returns the status of all versions, newest first."""
        with self._changed:
            known = sorted(self._versions.values(), key=lambda one: -one.number)
            return [one.status() for one in known if one.wanted]

    def is_available(self, version: int) -> bool:
        """Tells whether a version answers requests."""
        with self._changed:
            known = self._versions.get(version)
            return known is not None and known.state == AVAILABLE

    @contextlib.contextmanager
    def lease(self, version: int | None) -> Iterator[Servable | None]:
        """Lends a version, the newest AVAILABLE one for None; yields None where it is not AVAILABLE."""
        with self._changed:
            if version is None:
                number = max((one.number for one in self._versions.values() if one.state == AVAILABLE), default=None)
            else:
                number = version
            lent = None if number is None else self._versions.get(number)
            if lent is not None and lent.state == AVAILABLE:
                lent.leases += 1
            else:
                lent = None
        try:
            yield lent.servable if lent else None
        finally:
            if lent:
                with self._changed:
                    lent.leases -= 1
                    if not lent.leases and lent.state == UNLOADING:
                        self._changed.notify_all()

    def _decided(self) -> bool:
        if self._stopping:
            return True
        known = self._versions.values()
        return self._listed and (any(one.state == AVAILABLE for one in known) or all(one.failed for one in known))

    def _work(self) -> None:
        while True:
            with self._changed:
                if self._stopping and not any(one.servable for one in self._versions.values()):
                    return
            try:
                if self._poll_is_due():
                    self._poll()
                if self._unload_ended() or self._act():
                    continue
            except Exception:
                # A defect must not end the thread: what is loaded would be served for ever, and nothing new.
                _LOG.exception("Looking after model %s failed", self.name)
                time.sleep(_AFTER_DEFECT_SECONDS)
            with self._changed:
                if not self._nothing_to_do():
                    continue
                self._changed.wait(self._seconds_to_wait())

    def _poll_is_due(self) -> bool:
        return not self._stopping and self._poll_at is not None and time.monotonic() >= self._poll_at

    def _nothing_to_do(self) -> bool:
        """With the lock: what another thread changes, and then notifies, has not come yet."""
        ready = any(one.state == UNLOADING and not one.leases for one in self._versions.values())
        leaving = self._stopping and any(one.state == AVAILABLE for one in self._versions.values())
        finished = self._stopping and not any(one.servable for one in self._versions.values())
        return not (ready or leaving or finished or self._poll_is_due())

    def _seconds_to_wait(self) -> float | None:
        if self._stopping:
            return None
        times = [self._poll_at] if self._poll_at is not None else []
        # A try that is due and was not made is one that nobody wants now.
        now = time.monotonic()
        times += [one.retry_at for one in self._versions.values() if one.retry_at is not None and one.retry_at > now]
        return max(min(times) - now, 0.0) if times else None

    def _poll(self) -> None:
        """Lists the base path. One that is missing leaves everything as it is."""
        wait = self._options.file_system_poll_wait_seconds
        with self._changed:
            self._poll_at = time.monotonic() + wait if wait > 0 else None
            base_path = self._base_path
        try:
            found = versions.versions_of(os.listdir(base_path))
        except OSError as error:
            self._warn(f"Base path {base_path} of model {self.name} cannot be read: {error.strerror}")
            with self._changed:
                self._listed = True
                self._changed.notify_all()
            return
        self._warn("" if found else f"No versions of model {self.name} found under base path {base_path}")
        self._take(base_path, found)

    def _warn(self, message: str) -> None:
        """Logs what is wrong with the base path when it becomes so, not at each poll."""
        if message and message != self._warned:
            _LOG.warning(message)
        self._warned = message

    def _take(self, base_path: Path, found: dict[int, str]) -> None:
        """Brings the known versions in line with what the base path holds."""
        failed = [one for one in self._versions.values() if one.failed and one.number in found]
        seen = {one.number: complete.fingerprint(one.path) for one in failed}
        with self._changed:
            for number, name in found.items():
                known = self._versions.get(number)
                # A number that ended comes back as a new version: its directory was away in between, or it failed.
                if known is None or (not known.found and known.servable is None):
                    self._versions[number] = _Version(number, base_path / name)
            for number, known in list(self._versions.items()):
                known.found = number in found
                if not known.found and known.state in (START, LOADING):
                    del self._versions[number]
            for one in failed:
                self._look_again(one, seen[one.number])
            ended = sorted(one.number for one in self._versions.values() if one.state == END and not one.found)
            for number in ended[:-_ENDED_KEPT]:
                del self._versions[number]
            self._listed = True
            self._changed.notify_all()

    def _look_again(self, version: _Version, seen: Any) -> None:
        """Tries a failed version anew when its files have changed, then stayed the same from one poll to the next."""
        if seen != version.fingerprint and seen == version.seen:
            version.tries, version.retry_at = 0, 0.0
        version.seen = seen

    def _unload_ended(self) -> bool:
        """Unloads versions whose last request has ended; tells whether there were any."""
        with self._changed:
            if self._stopping:
                for one in self._versions.values():
                    if one.state == AVAILABLE:
                        one.state = UNLOADING
            ended = [one for one in self._versions.values() if one.state == UNLOADING and not one.leases]
        for one in ended:
            assert one.servable is not None
            try:
                one.servable.unload()
            except Exception:
                _LOG.exception("Unloading version %d of model %s failed", one.number, self.name)
            with self._changed:
                one.servable, one.state = None, END
                self._changed.notify_all()
            _LOG.info("Unloaded version %d of model %s", one.number, self.name)
        if ended:
            gc.collect()  # a graph refers to itself, and holds what the session does not
        return bool(ended)

    def _act(self) -> bool:
        """Takes the next step of the plan; tells whether there was one to load."""
        now = time.monotonic()
        with self._changed:
            if self._stopping:
                return False
            known = self._versions.values()
            step = versions.next_step(
                self._policy,
                found=[one.number for one in known if one.found],
                usable=[one.number for one in known if one.found and not one.failed and one.state != UNLOADING],
                due=[
                    one.number
                    for one in known
                    if one.found and one.failed and one.retry_at is not None and one.retry_at <= now
                ],
                loaded=[one.number for one in known if one.state == AVAILABLE],
            )
            for one in known:
                one.wanted = one.wanted or one.number in step.wanted
                if one.state == LOADING and one.number not in step.wanted:
                    one.state = END  # it failed, and by now another one goes before it
            for number in step.unload:
                self._versions[number].state = UNLOADING
            loading = None if step.load is None else self._versions[step.load]
            if loading is not None:
                loading.state = LOADING
            self._changed.notify_all()
        if loading is not None:
            self._load(loading)
        return loading is not None or bool(step.unload)

    def _load(self, version: _Version) -> None:
        """Loads and warms up one version; what it says when that fails becomes the version's status."""
        begin = time.monotonic()
        servable = None
        version.fingerprint = version.seen = complete.fingerprint(version.path)
        try:
            servable = loader.load(self.name, version.number, version.path, self._options, self._hooks.on_queued)
            if self._options.enable_model_warmup:
                self._hooks.warm_up(servable)
        except Exception as error:
            if servable is not None:
                servable.unload()
            self._fail(version, _as_serving_error(error))
            return
        seconds = time.monotonic() - begin
        _LOG.info("Loaded version %d of model %s in %.2f s", version.number, self.name, seconds)
        # Who sees it AVAILABLE may ask at once how long that took.
        self._hooks.on_load(self.name, version.number, seconds)
        with self._changed:
            version.servable, version.state = servable, AVAILABLE
            version.code, version.message, version.retry_at = grpc.StatusCode.OK, "", None
            self._changed.notify_all()

    def _fail(self, version: _Version, error: errors.ServingError) -> None:
        with self._changed:
            version.tries += 1
            # What is not there does not come by trying: the poll sees it come.
            again = version.tries <= self._options.max_num_load_retries and not isinstance(error, loader.Incomplete)
            wait = self._options.load_retry_interval_micros / 1e6
            version.state, version.code, version.message = LOADING if again else END, error.code, error.message
            version.retry_at = time.monotonic() + wait if again else None
            self._changed.notify_all()
        after = f"; next try in {wait:g} s" if again else ""
        _LOG.error("Version %d of model %s failed to load: %s%s", version.number, self.name, error.message, after)


def _as_serving_error(error: Exception) -> errors.ServingError:
    return error if isinstance(error, errors.ServingError) else errors.internal(f"{type(error).__name__}: {error}")
