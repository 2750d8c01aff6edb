"""A process that pushes, withdraws or rolls back, and is killed by SIGKILL at the n-th system call that changes files.

Not a test: the kill tests start it, write one JSON line for each order to its standard input, and read one line with
the outcome. Each order runs in a fork, so that the imports are paid for once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import system_calls

from evergreen.components import atomic
from evergreen.components.pusher import publish, rollback


def _push(order: dict[str, Any]) -> None:
    atomic._CHUNK_BYTES = 1000
    tflite = order["tflite"]
    candidate = publish.Candidate(
        saved_model=Path(order["model"]),
        model_artifact_id=order["id"],
        model_uri=f"/workspace/model/{order['id']}",
        name="kill",
        run="a-run",
        span=1,
        tflite=Path(tflite) if tflite else None,
        tflite_variant="dynamic_int8",
        withdraw_tflite=not tflite,
        warm_up=b"requests",
    )
    publish.publish(order["base"], candidate, keep=2, now=lambda: order["now"])


def _withdraw(order: dict[str, Any]) -> None:
    publish.withdraw(order["base"], order["version"], "It does not load.", now=lambda: order["now"])


def _roll_back(order: dict[str, Any]) -> None:
    atomic._CHUNK_BYTES = 1000
    rollback.roll_back(order["base"], now=lambda: order["now"])


ACTIONS: dict[str, Callable[[dict[str, Any]], None]] = {
    "push": _push,
    "withdraw": _withdraw,
    "rollback": _roll_back,
}


def main() -> None:
    """Serves orders until standard input ends; says first whether it can."""
    print(json.dumps({"why_not": system_calls.why_not()}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        status, calls = system_calls.run(lambda order=order: ACTIONS[order["action"]](order), order["kill_at"])
        print(json.dumps({"status": status, "calls": calls}), flush=True)


if __name__ == "__main__":
    main()
