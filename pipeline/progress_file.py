"""How far the running stage is, for `evergreen status`: a small file that the run replaces twice a second at most."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

NAME = "progress.json"


def write(workspace: Path, run_id: str, stage: str, fraction: float | None, text: str) -> None:
    """Says how far a run is. Where that fails, nobody is told, and the run goes on.

    Args:
      workspace: the project's workspace.
      run_id: the run.
      stage: the stage that runs.
      fraction: 0 to 1; None where that is unknown.
      text: a few words, such as `step 400 of 2,000, loss 0.43`.
    """
    aside = workspace / f".{NAME}"
    with contextlib.suppress(OSError):
        values = {"run": run_id, "stage": stage, "fraction": fraction, "text": text}
        aside.write_text(json.dumps(values) + "\n", encoding="utf-8")
        os.replace(aside, workspace / NAME)


def read(workspace: Path, run_id: str, stage: str | None) -> dict[str, Any] | None:
    """Returns how far a run's stage is, `fraction` and `text`.

    Args:
      workspace: the project's workspace.
      run_id: the run.
      stage: the stage that runs.

    Returns:
      The values; None where the stage has said nothing yet.
    """
    try:
        found = json.loads((workspace / NAME).read_text(encoding="utf-8"))
        if (found["run"], found["stage"]) != (run_id, stage):
            return None
        return {"fraction": found["fraction"], "text": str(found["text"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None
