"""What splitting one network over two devices costs: by layers, by units, by regions of the image.

Each split trains the same network on the same batches as one device does, forward, backward and SGD
(`model_splits.py` has the graphs). The devices are logical ones of the CPU, each limited to one thread, so that two
have two cores and one has one. For each split are printed

- the bytes that cross between the devices in a step. They are those of the tensors that TensorFlow's partition of the
  graph sends across, with the shapes that the trace of the step has for them; what the split should move is computed
  beside it, and the program ends where the two differ. The logical devices of one machine share its memory: a tensor
  that crosses is handed over, so moving it costs almost nothing here. What a link would add is computed from the bytes;
- the share of a traced step in which a device runs no operation (the mean of both devices);
- the time of an untraced step, against one device's: medians of steps that take turns;
- the largest difference of any weight from one device's after some steps: the check that the split is right.

The Trainer's `strategy: model_parallel` splits by units, as the second case does, but DTensor places and moves there,
so its costs are not these.

    .venv/bin/python benchmarks/model_parallel.py [--steps 100] [--json]
        [--dense BATCH,LAYERS,UNITS] [--convolutional BATCH,LAYERS,CHANNELS,ROWS] [--gbit 10]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from model_splits import SPLITS, Arrays, Network, Step, expected_bytes, one_device

from evergreen.components.errors import EvergreenError

# Weights are of the order of 0.1; sums in another order differ in the last bits of float32, 1e-8 a step.
TOLERANCE = 1e-5
CHECKED_STEPS = 5
TRACED_STEPS = 10
TURN = 5  # steps
WARM_UP = 3  # steps
NO_GAIN = 0.75  # of one device's time: two devices could bring it to 0.5, and this is half of that gain
QUIET = 0.9  # of the cores that the devices should use; with less, another process had them


class Runner:
    """A training step in a session of its own, whose devices have one thread each.

    Args:
      build: makes the step.
      network: the sizes.
      devices: how many logical devices there are.
    """

    def __init__(self, build: Callable[[Network], Step], network: Network, devices: int):
        config = tf.compat.v1.ConfigProto(
            device_count={"CPU": devices},
            intra_op_parallelism_threads=1,
            inter_op_parallelism_threads=devices,
            use_per_session_threads=True,
        )
        # What runs is the graph as it is written.
        config.graph_options.rewrite_options.disable_meta_optimizer = True
        with tf.Graph().as_default():
            self._step = build(network)
            self._variables = tf.nest.flatten(self._step.variables)
            self._session = tf.compat.v1.Session(config=config)
            self._session.run([variable.initializer for variable in [*self._variables, *self._step.counters]])

    def step(self, *traced: Any) -> None:
        """Trains a step on the next batch; the arguments are `RunOptions` and `RunMetadata` of a traced one."""
        self._session.run(self._step.operations, None, *traced)

    def trace(self) -> Any:
        """Trains a step; returns its RunMetadata, with the trace and each device's part of the graph."""
        options = tf.compat.v1.RunOptions(trace_level=tf.compat.v1.RunOptions.FULL_TRACE, output_partition_graphs=True)
        metadata = tf.compat.v1.RunMetadata()
        self.step(options, metadata)
        return metadata

    def copies(self) -> list[Arrays]:
        """Returns the weights of the network, once for each copy that the devices hold."""
        values = self._session.run(self._variables)
        return self._step.copies(tf.nest.pack_sequence_as(self._step.variables, values))

    def weight_bytes(self) -> list[int]:
        """Returns the bytes of the weights that each device holds."""
        return [
            sum(int(np.prod(variable.shape)) * variable.dtype.size for variable in tf.nest.flatten(own))
            for own in self._step.variables
        ]


def crossing(metadata: Any) -> dict[tuple[str, str], int]:
    """Sums the bytes of the tensors that a traced step sent from one device to another.

    The trace leaves out the sending itself. So the graph's partition says which tensor is sent where, and the trace of
    the operation that made the tensor says how large it was.

    Args:
      metadata: from `Runner.trace`.

    Returns:
      Bytes by the names of the sending and the receiving device.
    """
    made = {}
    for device in metadata.step_stats.dev_stats:
        for node in device.node_stats:
            for output in node.output:
                described = output.tensor_description
                values = int(np.prod([dim.size for dim in described.shape.dim], dtype=np.int64))
                size = values * tf.dtypes.as_dtype(described.dtype).size
                made[device.device, node.node_name, output.slot] = size
    found: dict[tuple[str, str], int] = {}
    for graph in metadata.partition_graphs:
        for node in graph.node:
            if node.op != "_Send":
                continue
            ends = node.attr["send_device"].s.decode(), node.attr["recv_device"].s.decode()
            name, _, slot = node.input[0].partition(":")
            found[ends] = found.get(ends, 0) + made[ends[0], name, int(slot or 0)]
    return found


def idle_shares(metadata: Any) -> list[float]:
    """Computes the share of a traced step in which a device runs no operation.

    Args:
      metadata: from `Runner.trace`.

    Returns:
      Shares in [0, 1], in the order of the devices' names.
    """
    spans = {}
    for device in metadata.step_stats.dev_stats:
        starts = [(node.all_start_nanos + node.op_start_rel_nanos, node) for node in device.node_stats]
        spans[device.device] = sorted((start, node.all_start_nanos + node.op_end_rel_nanos) for start, node in starts)
    whole = max(end for own in spans.values() for _, end in own) - min(own[0][0] for own in spans.values())
    return [1 - covered(own) / whole for _, own in sorted(spans.items())]


def covered(spans: list[tuple[int, int]]) -> int:
    """Returns the length of the union of sorted intervals."""
    total = reached = 0
    for start, end in spans:
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total


def time_turns(runners: dict[str, Runner], steps: int) -> tuple[dict[str, float], dict[str, float]]:
    """Times untraced steps of runners that take turns, so that what else the machine does falls on all of them.

    Args:
      runners: by name.
      steps: of each, at least.

    Returns:
      The medians of the milliseconds, and of the cores in use: the process's CPU time over the wall's.
    """
    ms: dict[str, list[float]] = {name: [] for name in runners}
    cores: dict[str, list[float]] = {name: [] for name in runners}
    while any(len(taken) < steps for taken in ms.values()):
        for name, runner in runners.items():
            for _ in range(TURN):
                began, used = time.perf_counter(), time.process_time()
                runner.step()
                seconds = time.perf_counter() - began
                ms[name].append(seconds * 1e3)
                cores[name].append((time.process_time() - used) / seconds)
    return tuple({name: float(np.median(taken)) for name, taken in kind.items()} for kind in (ms, cores))  # type: ignore[return-value]


def largest_difference(one: Arrays, other: Arrays) -> float:
    """Returns the largest absolute difference of any weight."""
    pairs = zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


def measure(split: str, network: Network, steps: int, gbit: float) -> dict[str, Any]:
    """Trains a network split and on one device.

    Args:
      split: a key of `SPLITS`.
      network: the sizes.
      steps: that are timed.
      gbit: of a link between the devices, 10^9 bits per second.

    Returns:
      What the report and the advice are made of; `link_ms`, `ratio_with_link` and `least_gbit` are computed, the
      rest is measured.

    Raises:
      EvergreenError: the weights or the bytes are not what they must be.
    """
    runners = {"one": Runner(one_device, network, 1), "two": Runner(SPLITS[split], network, 2)}
    for runner in runners.values():
        for _ in range(CHECKED_STEPS):
            runner.step()
    [reference] = runners["one"].copies()
    difference = max(largest_difference(reference, copy) for copy in runners["two"].copies())
    if not difference <= TOLERANCE:
        raise EvergreenError(
            f"The network split by {split} does not train as on one device",
            f"after {CHECKED_STEPS} steps a weight differs by {difference:.2g}; expected at most {TOLERANCE:g}",
            "The split is wrong: see benchmarks/model_splits.py.",
        )
    traces = [runners["two"].trace() for _ in range(WARM_UP + TRACED_STEPS)][WARM_UP:]
    moved = crossing(traces[-1])
    expected = expected_bytes(split, network)
    if list(moved.values()) != [expected, expected]:
        raise EvergreenError(
            f"The network split by {split} moves other bytes than it should",
            f"the trace has {moved}; expected {expected} each way",
            "The split, or what is computed for it, is wrong: see benchmarks/model_splits.py.",
        )
    ms, cores = time_turns(runners, steps)
    total, gain = sum(moved.values()), ms["one"] - ms["two"]
    link_ms = total * 8 / (gbit * 1e6)
    return {
        "split": split,
        "network": asdict(network),
        "bytes": total,
        "bytes_expected": 2 * expected,
        "idle": np.median([idle_shares(trace) for trace in traces], axis=0).tolist(),
        "step_ms": ms,
        "ratio": ms["two"] / ms["one"],
        "cores": cores,
        "largest_difference": difference,
        "largest_change": largest_difference(network.weights(), reference),
        "weights": max(runners["two"].weight_bytes()) / runners["one"].weight_bytes()[0],
        "gbit": gbit,
        "link_ms": link_ms,
        "ratio_with_link": (ms["two"] + link_ms) / ms["one"],
        "least_gbit": total * 8 / (gain * 1e6) if gain > 0 else None,
    }


def advise(result: dict[str, Any]) -> str:
    """Says in one sentence when to take a split, from what `measure` returned."""
    ratio, linked, share, gbit = (result[name] for name in ("ratio", "ratio_with_link", "weights", "gbit"))
    taken, room = f"a step takes {ratio:.2f} of one device's time", f"a device holds {share:.0%} of the weights"
    if ratio > NO_GAIN:
        reason = f"{taken}, for each device idles {np.mean(result['idle']):.0%} of it"
        if share == 1:
            return f"Leave it: {reason}, and {room}."
        return f"Take it where the weights do not fit one device ({room}), not for speed: {reason}."
    link = f"over {gbit:g} Gbit/s it would take {linked:.2f}, and below {result['least_gbit']:.2g} nothing is won"
    if linked >= 1:
        return f"Take it only where the devices share memory or a faster link: {taken}, and {room}; {link} (computed)."
    purpose = "for speed, not for room" if share == 1 else "for speed and for room"
    return f"Take it {purpose}: {taken}, and {room}; {link} (computed)."


def busy_machine(result: dict[str, Any]) -> bool:
    """Says whether other processes had cores that the devices should have used, so that the times are too long."""
    should = {"one": 1.0, "two": sum(1 - idle for idle in result["idle"])}
    return any(result["cores"][name] < QUIET * cores for name, cores in should.items())


def sizes(count: int) -> Callable[[str], tuple[int, ...]]:
    """Returns a parser of so many positive whole numbers between commas."""

    def parse(text: str) -> tuple[int, ...]:
        numbers = tuple(int(part) for part in text.split(","))
        if len(numbers) != count or min(numbers) < 1:
            raise argparse.ArgumentTypeError(f"Expected {count} positive numbers between commas. Received: {text}")
        return numbers

    return parse


def show(results: list[dict[str, Any]]) -> None:
    """Prints the table, the advice, and what the figures do not hold for."""
    gbit = results[0]["gbit"]
    print(
        f"{'split by':9}{'kB moved':>10}{'idle':>7}{'ms, one':>9}{'ms, two':>9}{'ratio':>7}{'largest difference':>20}",
        end="",
    )
    print(f"{f'ms at {gbit:g} Gbit/s*':>19}")
    for result in results:
        ms = result["step_ms"]
        print(
            f"{result['split']:9}{result['bytes'] / 1e3:10.1f}{np.mean(result['idle']):7.0%}{ms['one']:9.1f}"
            f"{ms['two']:9.1f}{result['ratio']:7.2f}{result['largest_difference']:20.1e}{result['link_ms']:19.2f}"
        )
    print("* Computed from the bytes, one way after the other, without latency; the rest is measured a step.")
    for result in results:
        print(f"By {result['split']}: {advise(result)}")
    print(
        "These logical devices share one memory: moving the bytes cost almost nothing here. Devices k times as fast "
        "need a link k times as fast for the same ratios."
    )


def main() -> int:
    """Measures the three splits and prints them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=100, help="timed steps of each side")
    parser.add_argument("--dense", type=sizes(3), default=(128, 8, 768), metavar="BATCH,LAYERS,UNITS")
    parser.add_argument("--convolutional", type=sizes(4), default=(8, 4, 32, 32), metavar="BATCH,LAYERS,CHANNELS,ROWS")
    parser.add_argument("--gbit", type=float, default=10.0, help="the link whose time is computed, in 10^9 bit/s")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    results = []
    try:
        dense, convolutional = Network(*arguments.dense), Network(*arguments.convolutional)
        for split in SPLITS:
            print(f"splitting by {split} ...", file=sys.stderr)
            network = convolutional if split == "regions" else dense
            results.append(measure(split, network, arguments.steps, arguments.gbit))
            if busy_machine(results[-1]):
                print(f"by {split}: another process was busy, so the times are too long; run again", file=sys.stderr)
    except EvergreenError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    if arguments.json:
        json.dump({"tensorflow": tf.__version__, "steps": arguments.steps, "splits": results}, sys.stdout, indent=1)
        print()
    else:
        show(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
