"""Watches a retraining from outside: the memory and the processor's time of all its processes, stage by stage."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

RUNNER = "start-up"
_EVERY_S = 0.2  # listing the processes of a machine takes milliseconds


@dataclass
class Watched:
    """What was seen of a run.

    Attributes:
      result: what the command printed.
      seconds: wall-clock seconds of the whole process.
      peak: bytes by node: the most resident memory (RSS) of all processes together; pages that two of them share count
        twice.
      processor: processor seconds by node, of all processes.
    """

    result: dict[str, Any]
    seconds: float
    peak: dict[str, int] = field(default_factory=dict)
    processor: dict[str, float] = field(default_factory=dict)


def watch(command: Sequence[str], logs: Path, environment: dict[str, str]) -> Watched:
    """Runs a command that prints JSON, and samples its processes until it ends.

    Args:
      command: `evergreen run --json ...`.
      logs: the workspace's folder of logs, whose newest run says which stage works.
      environment: of the process.

    Returns:
      What was seen.

    Raises:
      SystemExit: the command failed.
    """
    peak: Counter[str] = Counter()
    processor: Counter[str] = Counter()
    before = set(logs.iterdir()) if logs.exists() else set()
    began = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    ended = threading.Event()

    def sample() -> None:
        root, used = psutil.Process(child.pid), 0.0
        while not ended.wait(_EVERY_S):
            stage = _stage(logs, before)
            resident, now = _measure(root)
            peak[stage] = max(peak[stage], resident)
            processor[stage] += max(0.0, now - used)
            used = max(used, now)

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    out, err = child.communicate()
    seconds = time.perf_counter() - began
    ended.set()
    sampler.join()
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} exited {child.returncode}:\n{out[-2000:]}\n{err[-4000:]}")
    return Watched(json.loads(out[out.index("{") :]), seconds, dict(peak), dict(processor))


def _measure(root: psutil.Process) -> tuple[int, float]:
    """Returns the bytes and the processor seconds of a process and of all below it, those that ended included."""
    resident, used = 0, 0.0
    try:
        family = [root, *root.children(recursive=True)]
    except psutil.Error:
        return 0, 0.0
    for process in family:
        try:
            resident += process.memory_info().rss
            times = process.cpu_times()
        except psutil.Error:
            continue
        used += times.user + times.system + times.children_user + times.children_system
    return resident, used


def _stage(logs: Path, before: set[Path]) -> str:
    """Returns the node that the run's log names last as started and not ended."""
    try:
        (log,) = (folder / "run.log" for folder in logs.iterdir() if folder not in before)
        return last_started(log.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return RUNNER


def last_started(log: str) -> str:
    """Reads which stage a run is in from its log.

    Args:
      log: lines such as `2026-01-01T10:00:00 Trainer starts` and `... Trainer ended after 3.2 s`.

    Returns:
      The stage that started last and has not ended; `start-up` where none is running, which is the runner itself.
    """
    running: list[str] = []
    for line in log.splitlines():
        words = line.split()
        if len(words) == 3 and words[2] == "starts":
            running.append(words[1])
        elif len(words) > 3 and words[2] in ("ended", "failed") and words[1] in running:
            running.remove(words[1])
    return running[-1] if running else RUNNER
