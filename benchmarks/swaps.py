"""Swaps under constant load: does a client of the built-in server notice that a new version takes over?

Eight connections of the load's process ask over gRPC without pause while versions are published by stage and rename,
one as soon as the one before it answers. A request counts as during a swap where it was under way between a rename and
the end of the version before.

    .venv/bin/python benchmarks/swaps.py [--swaps 30] [--json]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import serving_sides
from serving_sides import serving_world

CONNECTIONS = 8
QUIET_S = 1.0  # between two swaps, so that there are requests to compare with


def measure(folder: Path, swaps: int) -> dict[str, Any]:
    """Swaps and measures.

    Returns:
      `swaps`, `requests`, `failed`, `p99_ms` of requests (`quiet`, `swap`), their `ratio`, and `available_s`: the
      longest time from a rename until the version answered.
    """
    base, staged = folder / "m", folder / "staged"
    base.mkdir()
    for version in range(1, swaps + 2):
        serving_sides.save_model(staged / str(version), float(version))
    (staged / "1").rename(base / "1")
    request = serving_sides.write_requests(folder)["grpc", 1]
    spans, available = [], []
    load = serving_sides.Load()
    try:
        with serving_world.serve(folder / "log", "--model_name=m", f"--model_base_path={base}") as server:
            server.wait("m", 1)
            seconds = swaps * (QUIET_S + 2.5)
            load.start(
                protocol="grpc",
                address=server.grpc,
                request=str(request),
                connections=CONNECTIONS,
                seconds=seconds,
                times=True,
            )
            time.sleep(seconds / 5 + 1)
            for version in range(2, swaps + 2):
                begin = time.time()
                (staged / str(version)).rename(base / str(version))
                available.append(server.wait("m", version))
                server.wait("m", version - 1, "END")
                spans.append((begin, time.time()))
                time.sleep(QUIET_S)
            result = load.result()
    finally:
        load.close()
    quiet, swap = [], []
    for start, taken in result["times"]:
        during = any(start < end and start + taken > begin for begin, end in spans)
        (swap if during else quiet).append(taken * 1e3)
    p99 = {name: sorted(times)[int(len(times) * 0.99)] for name, times in (("quiet", quiet), ("swap", swap))}
    return {
        "swaps": swaps,
        "requests": {"quiet": len(quiet), "swap": len(swap)},
        "failed": result["failed"],
        "error": result["error"],
        "p99_ms": p99,
        "ratio": p99["swap"] / p99["quiet"],
        "available_s": max(available),
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--swaps", type=int, default=30)
    parser.add_argument("--json", action="store_true", help="print what was measured as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), arguments.swaps)
    if arguments.json:
        print(json.dumps(found, indent=1))
        return
    print(f"{found['swaps']} swaps, {sum(found['requests'].values())} requests, {found['failed']} failed")
    p99 = found["p99_ms"]
    print(f"p99 during swaps {p99['swap']:.1f} ms, else {p99['quiet']:.1f} ms: ×{found['ratio']:.2f}")
    print(f"at the latest {found['available_s']:.2f} s after its rename a version answered")


if __name__ == "__main__":
    main()
