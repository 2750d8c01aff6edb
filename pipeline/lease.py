"""Keeps the runs of several hosts apart where they share one ML Metadata server.

The lock file of a workspace is known to one host. Where the metadata store is MySQL or PostgreSQL a run also takes a
lease there: the context `<pipeline>.<number>` of the type `evergreen_lease`, one number after the other. The store
refuses a second context of one external id, so that of two hosts that reach for a number one gets it. (A second name
it refuses too, but only within one type, and on PostgreSQL hosts that come at once register one type several times.)
The holder counts `beat` up every few seconds; a lease that was neither given back nor beats belongs to a host that
died, and the next number may be taken. No clock of one host is compared with that of another.

ML Metadata deletes no contexts: each run leaves one behind.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from evergreen.components.errors import LockHeld
from evergreen.components.span_records import property_value
from evergreen.pipeline.store import Store
from evergreen.pipeline.store_connection import without_chatter

TYPE = "evergreen_lease"
BEAT_S = 10.0
# For so long a lease that is not given back is watched before it counts as dead.
WATCH_S = 45.0
_FIRST_CONTEXTS = 32


class Lease:
    """The right to run a pipeline, for the time of a `with`.

    Args:
      store: the project's metadata store, with a connection that no other thread uses.
      beat_s: seconds between two beats.
      watch_s: seconds without a beat after which a lease counts as dead; several beats.

    Raises:
      LockHeld: a run on another host holds it, on entering.
    """

    def __init__(self, store: Store, beat_s: float = BEAT_S, watch_s: float = WATCH_S):
        self._store = store
        self._beat_s = beat_s
        self._watch_s = watch_s
        self._ended = threading.Event()
        self._context: Any = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Lease:
        newest = self._newest()
        if newest is not None and not self._is_free(newest):
            raise _held_by(newest)
        self._context = self._take(1 if newest is None else _number(newest) + 1)
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self._put(given_back=1)

    def _newest(self) -> Any | None:
        """The newest lease, found without reading all the others."""
        from ml_metadata import ListOptions, OrderByField

        prefix, limit = f"{self._store.pipeline}.", _FIRST_CONTEXTS
        while True:
            options = ListOptions(limit=limit, order_by=OrderByField.ID, is_asc=False)
            contexts = self._store.mlmd.get_contexts(options)
            found = [c for c in contexts if c.type == TYPE and c.name.startswith(prefix)]
            if found or len(contexts) < limit:
                return max(found, key=_number, default=None)
            limit *= 8

    def _is_free(self, lease: Any) -> bool:
        """Whether its holder has given it back, or is dead."""
        if property_value(lease, "given_back", 0):
            return True
        if property_value(lease, "processes", "") == _processes():
            return not _is_alive(property_value(lease, "pid", 0), property_value(lease, "created", 0))
        end = time.monotonic() + self._watch_s
        while time.monotonic() < end:
            time.sleep(min(self._beat_s, self._watch_s / 10))
            now = self._newest()
            if now is None or now.id != lease.id or property_value(now, "beat", 0) != property_value(lease, "beat", 0):
                return False
            if property_value(now, "given_back", 0):
                return True
        return True

    def _take(self, number: int) -> Any:
        from ml_metadata import errors
        from ml_metadata.proto import metadata_store_pb2 as pb

        mlmd = self._store.mlmd
        context = pb.Context(
            type_id=mlmd.put_context_type(pb.ContextType(name=TYPE), can_add_fields=True),
            name=f"{self._store.pipeline}.{number}",
            external_id=f"{TYPE}:{self._store.pipeline}.{number}",
        )
        context.custom_properties["host"].string_value = socket.gethostname()
        context.custom_properties["processes"].string_value = _processes()
        context.custom_properties["pid"].int_value = os.getpid()
        context.custom_properties["created"].int_value = int(psutil.Process().create_time())
        context.custom_properties["beat"].int_value = 0
        try:
            with without_chatter(self._store.kind):
                (context.id,) = mlmd.put_contexts([context])
        except errors.AlreadyExistsError:
            raise LockHeld(
                "another run holds this pipeline",
                f"a run on another host has just taken the lease {context.name} in the metadata store",
                "wait for it (evergreen status shows it), then run again",
            ) from None
        return context

    def _keep(self) -> None:
        """Beats; ends the run where its lease was taken for dead, as after a suspension of the machine."""
        beat = 0
        while not self._ended.wait(self._beat_s):
            beat += 1
            try:
                newest = self._newest()
                if newest is not None and newest.id != self._context.id:
                    # Which also ends a wait in the main thread. A shell's background job does not listen to SIGINT.
                    deaf = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
                    os.kill(os.getpid(), signal.SIGTERM if deaf else signal.SIGINT)
                    return
                self._put(beat=beat)
            except Exception:  # a server that is away for a moment; the next beat may reach it
                self._store.reopen()

    def _put(self, **values: int) -> None:
        for name, value in values.items():
            self._context.custom_properties[name].int_value = value
        try:
            self._store.mlmd.put_contexts([self._context])
        except Exception:  # the connection broke since the last beat
            self._store.reopen()
            self._store.mlmd.put_contexts([self._context])


def _number(lease: Any) -> int:
    return int(lease.name.rpartition(".")[2])


def _processes() -> str:
    """Names what a process id is looked up in: containers, and copies of one machine, may share a host's name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _is_alive(pid: int, created: int) -> bool:
    try:
        return int(psutil.Process(pid).create_time()) == created
    except psutil.Error:
        return False


def _held_by(lease: Any) -> LockHeld:
    return LockHeld(
        "another run holds this pipeline",
        f"process {property_value(lease, 'pid', '?')} on {property_value(lease, 'host', '?')} holds the lease "
        f"{lease.name} in the metadata store",
        "wait for it (evergreen status shows it), then run again",
    )
