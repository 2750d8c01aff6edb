"""The built-in server beside a plain FastAPI app and the bare call, with the same SavedModel and the same requests.

A dense network of 16 inputs and two layers of 64, so that what is measured is serving. Each row of the table is one
number of connections and of rows in a request; each column a way of asking: FastAPI (uvicorn, one process, as
benchmarks/serving_fastapi.py has it), REST and gRPC of the built-in server, both with and without batching. All servers
stand side by side; the load comes from one more process, which shares the machine's processors with the server that it
asks. The bare call is the SavedModel's signature in a loop, without any server. Rounds are interleaved, the best of
each cell counts.

    .venv/bin/python benchmarks/serving.py [--seconds 2] [--rounds 2] [--json]

Figures are of this machine in this hour; read the ratios.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import serving_sides
import tensorflow as tf
from serving_sides import ROWS, serving_world

CONNECTIONS = (1, 8, 32)
WAYS = ("fastapi", "rest", "rest batched", "grpc", "grpc batched")
BATCHING = "max_batch_size { value: 256 } batch_timeout_micros { value: 0 } num_batch_threads { value: 2 }"


def bare(model: Path, rows: int, seconds: float) -> dict[str, float]:
    """Calls the SavedModel's signature in a loop, in this process."""
    signature = tf.saved_model.load(str(model)).signatures["serving_default"]
    x = np.random.default_rng(0).normal(size=(rows, 16)).astype(np.float32)
    times = []
    for _ in range(100):
        signature(x=tf.constant(x))["y"].numpy()
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        signature(x=tf.constant(x))["y"].numpy()
        times.append(time.perf_counter() - start)
    times.sort()
    return {
        "rate": len(times) / seconds,
        "p50_ms": times[len(times) // 2] * 1e3,
        "p99_ms": times[int(len(times) * 0.99)] * 1e3,
    }


def cpu(pid: int) -> float:
    """Returns the seconds of the processors that a process has used."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def measure(folder: Path, seconds: float, rounds: int) -> dict[str, Any]:
    """Measures all cells.

    Returns:
      `bare` by rows, and `cells` by "way/connections/rows"; requests a second (`rate`), `p50_ms`, `p99_ms`,
      and `cpu_us`, microseconds of the processors that the server used for a request.
    """
    base = folder / "m"
    base.mkdir()
    serving_sides.save_model(base / "1")
    files = serving_sides.write_requests(folder)
    (folder / "batching").write_text(BATCHING)
    flags = ["--model_name=m", f"--model_base_path={base}"]
    batched = ["--enable_batching", f"--batching_parameters_file={folder}/batching"]
    cells: dict[str, dict[str, float]] = {}
    load = serving_sides.Load()
    try:
        with (
            serving_world.serve(folder / "plain", *flags) as plain,
            serving_world.serve(folder / "batched", *flags, *batched) as with_batches,
            serving_sides.fastapi(base / "1") as app,
        ):
            plain.wait("m", 1)
            with_batches.wait("m", 1)
            servers = {
                "fastapi": app,
                "rest": (plain.rest, plain.process.pid),
                "rest batched": (with_batches.rest, with_batches.process.pid),
                "grpc": (plain.grpc, plain.process.pid),
                "grpc batched": (with_batches.grpc, with_batches.process.pid),
            }
            for _ in range(rounds):
                for connections in CONNECTIONS:
                    for rows in ROWS:
                        for way in WAYS:
                            protocol, (address, pid) = way.split()[0], servers[way]
                            before = cpu(pid)
                            load.start(
                                protocol="grpc" if protocol == "grpc" else "rest",
                                address=address,
                                request=str(files[protocol, rows]),
                                connections=connections,
                                seconds=seconds,
                            )
                            result = load.result()
                            if result["failed"]:
                                raise RuntimeError(f"{way}: {result['failed']} requests failed: {result['error']}")
                            rate = result["requests"] / seconds
                            spent = (cpu(pid) - before) * 1e6 / result["all"]
                            cell = cells.setdefault(f"{way}/{connections}/{rows}", {"rate": 0, "cpu_us": spent})
                            if rate > cell["rate"]:
                                cell.update(rate=rate, p50_ms=result["p50_ms"], p99_ms=result["p99_ms"])
                            cell["cpu_us"] = min(cell["cpu_us"], spent)
            return {"bare": {rows: bare(base / "1", rows, seconds) for rows in ROWS}, "cells": cells}
    finally:
        load.close()


def show(found: dict[str, Any]) -> None:
    """Prints the table in Markdown.

    A cell: requests a second, p50 / p99, the processors' time that the server used for a request; then how many times
    FastAPI's throughput, and how many times FastAPI's requests by the processors' time, which other programs on the
    machine disturb less.
    """
    for rows, one in found["bare"].items():
        print(f"bare call, {rows} rows: {one['rate']:.0f}/s, {one['p50_ms']:.2f} / {one['p99_ms']:.2f} ms")
    print("\n| connections | rows | " + " | ".join(WAYS) + " |")
    print("|---|---|" + "---|" * len(WAYS))
    for connections in CONNECTIONS:
        for rows in ROWS:
            texts = []
            other = found["cells"][f"fastapi/{connections}/{rows}"]
            for way in WAYS:
                one = found["cells"][f"{way}/{connections}/{rows}"]
                text = f"{one['rate']:.0f}/s, {one['p50_ms']:.1f} / {one['p99_ms']:.1f} ms, {one['cpu_us']:.0f} µs"
                ratios = f"×{one['rate'] / other['rate']:.1f}, ×{other['cpu_us'] / one['cpu_us']:.1f}"
                texts.append(text if way == "fastapi" else f"{text}, **{ratios}**")
            print(f"| {connections} | {rows} | " + " | ".join(texts) + " |")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print what was measured as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), arguments.seconds, arguments.rounds)
    if arguments.json:
        print(json.dumps(found, indent=1))
    else:
        show(found)


if __name__ == "__main__":
    main()
