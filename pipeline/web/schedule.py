"""The schedule as the page shows it, from the state that the scheduler leaves in the workspace."""

from __future__ import annotations

import json
from typing import Any

from evergreen.pipeline.config import Config

_ENDED_SHOWN = 5


def state(config: Config) -> dict[str, Any] | None:
    """Reads the schedule's state.

    Args:
      config: the project's configuration.

    Returns:
      `paused` (the reason, empty where it is not), `running` and `queue` (`trigger`, `span`, `scheduled`), `failures`
      in a row, `ended` (the newest first); None where there is no schedule or nobody can read it. Moments are
      milliseconds since 1970.
    """
    found = _read(config)
    if found is None:
        return None
    running = found.get("running") or {}
    paused = found.get("paused") or {}
    return {
        "paused": str(paused.get("reason") or ("paused" if paused else "")),
        "paused_since": _milliseconds(paused.get("since")),
        "running": {**_job(running.get("job") or {}), "span": running.get("span")} if running else None,
        "queue": [_job(job) for job in found.get("queue") or [] if isinstance(job, dict)],
        "failures": int(found.get("failures") or 0),
        "ended": [
            {**one, "ended": _milliseconds(one.get("ended"))}
            for one in reversed((found.get("ended") or [])[-_ENDED_SHOWN:])
            if isinstance(one, dict)
        ],
    }


def stamp(config: Config) -> int:
    """Returns when the state was last written, 0 where there is none."""
    try:
        return (config.workspace_dir / "schedule" / "state.json").stat().st_mtime_ns
    except OSError:
        return 0


def _read(config: Config) -> dict[str, Any] | None:
    try:
        found = json.loads((config.workspace_dir / "schedule" / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _job(job: dict[str, Any]) -> dict[str, Any]:
    return {"trigger": job.get("trigger"), "span": job.get("span"), "scheduled": _milliseconds(job.get("scheduled"))}


def _milliseconds(seconds: Any) -> float | None:
    return seconds * 1000 if isinstance(seconds, (int, float)) and seconds else None
