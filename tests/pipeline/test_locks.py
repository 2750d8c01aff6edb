"""The locks of a workspace."""

from __future__ import annotations

import threading
import time

import pytest
from filelock import FileLock, Timeout

from evergreen.pipeline import locks


def test_whoever_only_looks_does_not_keep_a_run_from_its_lock(tmp_path):
    path = tmp_path / "run.lock"
    glance = FileLock(str(path), thread_local=False)
    glance.acquire(timeout=0)
    threading.Timer(locks.GLANCE_SECONDS / 4, glance.release).start()
    with locks.take(path):
        assert locks.is_held(path)
    assert not locks.is_held(path)


def test_a_lock_that_is_held_is_refused_soon(tmp_path):
    path = tmp_path / "run.lock"
    assert not locks.is_held(path)
    with FileLock(str(path)):
        begin = time.monotonic()
        with pytest.raises(Timeout):
            locks.take(path)
        assert locks.GLANCE_SECONDS <= time.monotonic() - begin < 10 * locks.GLANCE_SECONDS
