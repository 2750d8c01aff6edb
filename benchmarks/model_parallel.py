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
from contextlib import closing
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
WRONG_SPLIT = "The split is wrong: see benchmarks/model_splits.py."
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

    def close(self) -> None:
        """Ends the session and its threads."""
        self._session.close()

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
        spans[device.device] = sorted(
            (node.all_start_nanos + node.op_start_rel_nanos, node.all_start_nanos + node.op_end_rel_nanos)
            for node in device.node_stats
        )
    whole = max(end for own in spans.values() for _, end in own) - min(own[0][0] for own in spans.values())
    return [1 - covered(own) / whole for _, own in sorted(spans.items())]


def covered(spans: list[tuple[int, int]]) -> int:
    """Returns the length of the union of sorted intervals."""
    total = reached = 0
    for start, end in spans:
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total


def time_turns(runners: dict[str, Runner], steps: int) -> dict[str, dict[str, float]]:
    """Times untraced steps of runners that take turns, so that what else the machine does falls on all of them.

    Args:
      runners: by name.
      steps: of each, rounded up to whole turns.

    Returns:
      By name the medians of a step: `ms` of time, and `cores` in use, the process's CPU time over the wall's.
    """
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in runners}
    for turn in range(0, steps, TURN):
        for name, runner in runners.items():
            while len(taken[name]) < turn + TURN:
                began, used = time.perf_counter(), time.process_time()
                runner.step()
                seconds = time.perf_counter() - began
                taken[name].append((seconds * 1e3, (time.process_time() - used) / seconds))
    medians = {name: np.median(steps_of_one, axis=0) for name, steps_of_one in taken.items()}
    return {name: {"ms": float(ms), "cores": float(cores)} for name, (ms, cores) in medians.items()}


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
      What the report and the advice are made of. `bytes_expected`, `link_ms`, `ratio_with_link` and `least_gbit` (the
      link at which the split takes as long as one device) are computed, the rest is measured. `weights` is the share
      of all weights that the fuller device holds, `largest_change` how far training took a weight.

    Raises:
      EvergreenError: the weights or the bytes are not what they must be.
    """
    with closing(Runner(one_device, network, 1)) as one, closing(Runner(SPLITS[split], network, 2)) as two:
        for _ in range(CHECKED_STEPS):
            one.step()
            two.step()
        [reference] = one.copies()
        difference = max(largest_difference(reference, copy) for copy in two.copies())
        if not difference <= TOLERANCE:
            raise EvergreenError(
                f"The network split by {split} does not train as on one device",
                f"After {CHECKED_STEPS} steps a weight differs by {difference:.2g}; expected at most {TOLERANCE:g}.",
                WRONG_SPLIT,
            )
        traces = [two.trace() for _ in range(WARM_UP + TRACED_STEPS)][WARM_UP:]
        moved, expected = crossing(traces[-1]), expected_bytes(split, network)
        if list(moved.values()) != [expected, expected]:
            raise EvergreenError(
                f"The network split by {split} moves other bytes than it should",
                f"The trace has {moved}; expected {expected} each way.",
                WRONG_SPLIT,
            )
        steps_of = time_turns({"one": one, "two": two}, steps)
        share = max(two.weight_bytes()) / one.weight_bytes()[0]
    total = sum(moved.values())
    one_ms, two_ms = steps_of["one"]["ms"], steps_of["two"]["ms"]
    link_ms = total * 8 / (gbit * 1e6)
    return {
        "split": split,
        "network": asdict(network),
        "bytes": total,
        "bytes_expected": 2 * expected,
        "idle": np.median([idle_shares(trace) for trace in traces], axis=0).tolist(),
        "step": steps_of,
        "ratio": two_ms / one_ms,
        "largest_difference": difference,
        "largest_change": largest_difference(network.weights(), reference),
        "weights": share,
        "gbit": gbit,
        "link_ms": link_ms,
        "ratio_with_link": (two_ms + link_ms) / one_ms,
        "least_gbit": total * 8 / ((one_ms - two_ms) * 1e6) if two_ms < one_ms else None,
    }


def advise(result: dict[str, Any]) -> str:
    """Says in one sentence when to take a split, from what `measure` returned."""
    ratio, linked, share, gbit = (result[name] for name in ("ratio", "ratio_with_link", "weights", "gbit"))
    taken, room = f"a step takes {ratio:.2f} of one device's time", f"a device holds {share:.0%} of the weights"
    if ratio > NO_GAIN:
        reason = f"{taken}, and each device idles {np.mean(result['idle']):.0%} of it"
        if share == 1:
            return f"Leave it: {reason}; {room}."
        return f"Take it where the weights do not fit one device ({room}), not for speed: {reason}."
    link = f"over {gbit:g} Gbit/s it would take {linked:.2f}, and below {result['least_gbit']:.1f} nothing is won"
    if linked >= 1:
        return f"Take it only where the devices share memory or a faster link: {taken}, and {room}; {link} (computed)."
    purpose = "for speed, not for room" if share == 1 else "for speed and for room"
    return f"Take it {purpose}: {taken}, and {room}; {link} (computed)."


def busy_machine(result: dict[str, Any]) -> bool:
    """Says whether other processes had cores that the devices should have used, so that the times are too long."""
    should = {"one": 1.0, "two": sum(1 - idle for idle in result["idle"])}
    return any(result["step"][name]["cores"] < QUIET * cores for name, cores in should.items())


def positive(kind: type, count: int) -> Callable[[str], list[Any]]:
    """Returns a parser of so many positive numbers of a kind, between commas."""

    def numbers(text: str) -> list[Any]:
        found = [kind(part) for part in text.split(",")]
        if len(found) != count or min(found) <= 0:
            raise argparse.ArgumentTypeError(f"expected {count} above 0, between commas; received {text}")
        return found

    return numbers


def show(results: list[dict[str, Any]]) -> None:
    """Prints the table, the advice, and what the figures do not hold for."""
    link = f"ms at {results[0]['gbit']:g} Gbit/s*"
    print(f"{'split by':9}{'kB moved':>10}{'idle':>7}{'ms, one':>9}{'ms, two':>9}{'ratio':>7}", end="")
    print(f"{'largest difference':>20}{link:>19}")
    for result in results:
        one, two = (result["step"][name]["ms"] for name in ("one", "two"))
        print(
            f"{result['split']:9}{result['bytes'] / 1e3:10.1f}{np.mean(result['idle']):7.0%}{one:9.1f}"
            f"{two:9.1f}{result['ratio']:7.2f}{result['largest_difference']:20.1e}{result['link_ms']:19.2f}"
        )
    print("* Computed from the bytes, one way after the other, without latency; the rest is measured.")
    for result in results:
        print(f"By {result['split']}: {advise(result)}")
    print(
        "Logical devices of one machine share its memory, so moving the bytes cost almost nothing here. "
        "Devices k times as fast need a link k times as fast for the same ratios."
    )


def main() -> int:
    """Measures the three splits and prints them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=positive(int, 1), default=[100], help="timed steps of each side")
    parser.add_argument("--dense", type=positive(int, 3), default=[128, 8, 768], metavar="BATCH,LAYERS,UNITS")
    shape = "BATCH,LAYERS,CHANNELS,ROWS"
    parser.add_argument("--convolutional", type=positive(int, 4), default=[8, 4, 32, 32], metavar=shape)
    parser.add_argument("--gbit", type=positive(float, 1), default=[10.0], help="the link to compute, 10^9 bit/s")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    [steps], [gbit], results = arguments.steps, arguments.gbit, []
    try:
        dense, convolutional = Network(*arguments.dense), Network(*arguments.convolutional)
        for split in SPLITS:
            print(f"splitting by {split} ...", file=sys.stderr)
            network = convolutional if split == "regions" else dense
            results.append(measure(split, network, steps, gbit))
            if busy_machine(results[-1]):
                print(f"by {split}: another process was busy, so the times are too long; run again", file=sys.stderr)
    except EvergreenError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    if arguments.json:
        json.dump({"tensorflow": tf.__version__, "steps": steps, "splits": results}, sys.stdout, indent=1)
        print()
    else:
        show(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
