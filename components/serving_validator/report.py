"""The report of one validation and gate 4's verdict in it: plain data in, plain data out.

The report is a JSON object:

    {"format": 1, "passed": true, "reasons": [], "notes": [],
     "server": "built-in" | "tensorflow_model_server", "rows": 50, "tolerance": 0.001,
     "start_s": 4.1,                    from the server's flags to the model's first AVAILABLE; its process may be ready
     "load_s": 0.4,                     the part of it that loaded the SavedModel, as the server measured it
     "peak_bytes": 310000000,           the server's memory at its highest
     "models": [{"model": "SavedModel" | "TFLite float16",
                 "signatures": [{"signature": "serving_default", "api": "gRPC" | "REST",
                                 "compared": "the Trainer's model" | "gRPC" | "",   whose answers these are held against
                                 "largest_difference": 1e-7, "p50_ms": 1.2, "p99_ms": 3.4, "calls": 50}]}]}

`p50_ms` and `p99_ms` are of single rows, one after the other; null where all rows went in one request. A number that
could not be had, or is not finite, is null.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Report = dict[str, Any]
SAVED_MODEL = "SavedModel"


def asked(
    signature: str, api: str, compared: str, largest_difference: float | None, seconds: Sequence[float]
) -> dict[str, Any]:
    """Returns what is kept of one signature's answers.

    Args:
      signature: its name.
      api: `gRPC` or `REST`.
      compared: whose answers these were held against.
      largest_difference: from them; infinite where only one of two numbers is.
      seconds: how long each single row took; empty where all went in one request.
    """
    if largest_difference is not None and not math.isfinite(largest_difference):
        largest_difference = None  # JSON has no such number; the reasons name both values
    p50, p99 = (float(one) * 1000 for one in np.percentile(seconds, (50, 99))) if len(seconds) else (None, None)
    return {
        "signature": signature,
        "api": api,
        "compared": compared,
        "largest_difference": largest_difference,
        "p50_ms": p50,
        "p99_ms": p99,
        "calls": len(seconds) or 1,
    }


def p50(result: Report, api: str) -> float | None:
    """Returns the median time of a row through an API, of the SavedModel's first signature that was timed; ms."""
    for model in result["models"]:
        for one in model["signatures"]:
            if model["model"] == SAVED_MODEL and one["api"] == api and one["p50_ms"] is not None:
                return float(one["p50_ms"])
    return None


def line(result: Report) -> str:
    """Says in a line what was found.

    Args:
      result: the report, or a summary of it.
    """
    parts = [result["server"], f"{result['rows']} rows"]
    for api in ("gRPC", "REST"):
        median = p50(result, api)
        if median is not None:
            parts.append(f"p50 {median:.1f} ms by {api}")
    if result["load_s"] is not None:
        parts.append(f"load {result['load_s']:.1f} s")
    if result["peak_bytes"]:
        parts.append(f"{result['peak_bytes'] / 1e6:.0f} MB")
    others = [model["model"] for model in result["models"] if model["model"] != SAVED_MODEL]
    return ", ".join(parts) + "".join(f"; {name} answers too" for name in others if result["passed"])
