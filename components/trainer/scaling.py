"""What more devices would bring: the bytes of a training step, and how long it takes at a bandwidth. No TensorFlow.

The cost model is the usual one of bandwidth and latency. Each device is a host of its own with one full-duplex link,
the global batch stays the same (strong scaling), computation divides evenly, and communication does not overlap with
it. A step of n devices then takes

    T(n) = falling / n + fixed + growing * n

seconds, which is least at n = sqrt(falling / growing). The terms follow from what each strategy sends:

- `mirrored`, `multi_worker_mirrored`: dense gradients by ring all-reduce, 2 (n-1)/n of them through every link, which
  no all-reduce can undercut (Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of
  workstations", 2009). Gradients of embedding tables (tf.IndexedSlices) are all-gathered: (n-1)/n of the rows of the
  whole batch, duplicates included (`all_reduce_indexed_slices` in TensorFlow's cross_device_utils.py).
- `parameter_server`, synchronous: n workers read the weights from p servers, and send their gradients to the
  coordinator, whose link carries n of them. It sends the sum to the servers, each row of a table once.
- `parameter_server`, asynchronous: each worker computes a whole global batch, reads from the servers and writes to
  them. One update is written at a time, so there is a rate that no number of workers exceeds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evergreen.components.errors import ConfigError
from evergreen.components.trainer.settings import MIRRORED, MULTI_WORKER, PARAMETER_SERVER

STRATEGIES = (MIRRORED, MULTI_WORKER, PARAMETER_SERVER)
# Messages that wait for one another in a step, and so cost a latency each. Synchronous: call, request of weights, their
# answer, gradients, update, its confirmation. Asynchronous: call, request, answer, then the turn.
_SYNC_MESSAGES, _ASYNC_MESSAGES = 6, 3
# While it holds its turn, an update is granted it, written, confirmed, and lets go of it.
_TURN_MESSAGES = 4
_BANDWIDTH = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<prefix>[kKMGT]?)(?P<unit>bit|bps|b|B)(?:/s|ps)?")
_LATENCY = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>us|µs|ms|s)")
_PREFIXES = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True)
class Volume:
    """What a training step of a model has to move, in bytes.

    Attributes:
      gradients: the dense gradients of one device.
      weights: the dense weights that a worker reads in a step from parameter servers; one that is used twice, as by a
        regularizer, is read twice.
      rows: embedding rows of a whole global batch, with their numbers: as gradients, and as weights that are read.
      unique: the same without duplicates, at most.
      examples: the transformed rows of a whole global batch, which a coordinator sends to workers.
    """

    gradients: float
    weights: float = 0.0
    rows: float = 0.0
    unique: float = 0.0
    examples: float = 0.0


@dataclass(frozen=True)
class Network:
    """What joins the devices.

    Attributes:
      bandwidth: bytes per second of a device's link, in each direction.
      latency_s: seconds that a message is under way, however short it is.
    """

    bandwidth: float
    latency_s: float = 0.0


@dataclass(frozen=True)
class Traffic:
    """What a step moves, in bytes.

    Attributes:
      sent: by one device, or by one worker to servers and coordinator.
      received: by one device, or by one worker.
      total: between all processes together.
    """

    sent: float
    received: float
    total: float


def volume(report: Mapping[str, Any], global_batch_size: int) -> Volume:
    """Reads what a model moves from the training report.

    Args:
      report: the report's key `bytes`; see `evergreen.components.trainer.volume`.
      global_batch_size: rows in a step.

    Returns:
      The bytes of a step.
    """
    rows = unique = 0.0
    for table in report["tables"]:
        gathered = table["per_example"] * global_batch_size
        rows += gathered * table["row_bytes"]
        unique += min(gathered, table["rows"]) * table["row_bytes"]
    return Volume(report["gradients"], report["reads"], rows, unique, report["example"] * global_batch_size)


def ring_bytes(devices: int, gradients: float, rows: float = 0.0) -> float:
    """Returns what each device of a ring sends, and receives, in a step.

    Args:
      devices: how many, n.
      gradients: bytes of dense gradients: 2 (n-1)/n of them.
      rows: bytes of the embedding rows of the whole batch: (n-1)/n of them.

    Returns:
      Bytes; for example 150 for 4 devices and 100 bytes of gradients.
    """
    return (devices - 1) / devices * (2 * gradients + rows)


def traffic(strategy: str, devices: int, moved: Volume, update: str = "sync") -> Traffic:
    """Counts what a step moves.

    Args:
      strategy: one of STRATEGIES.
      devices: devices, or workers.
      moved: what the model has to move.
      update: under `parameter_server`, `sync` or `async`; a step is one update by one global batch.

    Returns:
      The bytes.
    """
    if strategy != PARAMETER_SERVER:
        each = ring_bytes(devices, moved.gradients, moved.rows)
        return Traffic(each, each, devices * each)
    summed = moved.gradients + moved.unique
    if update == "async":
        received = moved.weights + moved.rows + moved.examples
        return Traffic(summed, received, summed + received)
    sent = moved.gradients + moved.rows / devices
    received = moved.weights + (moved.rows + moved.examples) / devices
    return Traffic(sent, received, devices * (sent + received) + summed)


@dataclass(frozen=True)
class Regime:
    """Seconds of a step of n devices: `falling / n + fixed + growing * n`."""

    falling: float
    fixed: float
    growing: float

    def step_s(self, devices: float) -> float:
        """Returns the seconds of a step; `devices` may be infinite."""
        return self.falling / devices + self.fixed + (self.growing * devices if self.growing else 0.0)

    @property
    def fastest(self) -> float:
        """The number of devices, not always a whole one, at which a step is shortest: sqrt(falling / growing)."""
        if self.falling <= 0:
            return 1.0
        return max(1.0, math.sqrt(self.falling / self.growing)) if self.growing else math.inf


@dataclass(frozen=True)
class Prediction:
    """How long a step takes on hosts of their own, for any number of them.

    Attributes:
      compute_s: seconds of a step on one device without any communication.
      few: up to `servers` workers: each worker's own link bounds what it reads.
      many: beyond: the servers' links do. Strategies without servers have this one only.
      servers: where `many` begins.
      floor_s: no number of devices makes a step shorter.
    """

    compute_s: float
    few: Regime
    many: Regime
    servers: int = 1
    floor_s: float = 0.0

    def step_s(self, devices: float) -> float:
        """Returns the seconds of a step of so many devices."""
        regime = self.few if devices < self.servers else self.many
        return max(self.floor_s, regime.step_s(devices))

    def speedup(self, devices: float) -> float:
        """Returns how many times as fast as one device without communication so many devices are."""
        return self.compute_s / self.step_s(devices)

    @property
    def fastest(self) -> float:
        """The number of devices where it saturates: beyond it a step gets slower, or no faster. May be infinite."""
        if self.floor_s and self.many.falling > 0:
            room = self.floor_s - self.many.fixed
            if room > 0:
                return max(1.0, self.many.falling / room)
        # The sum is convex: where it still falls at `servers`, its bottom lies beyond.
        beyond = self.many.fastest
        return beyond if beyond >= self.servers else min(self.few.fastest, float(self.servers))

    @property
    def replicas(self) -> int | None:
        """The whole number of devices with the shortest step; None where every further one helps."""
        fastest = self.fastest
        if math.isinf(fastest):
            return None
        below, above = math.floor(fastest), math.ceil(fastest)
        # Where there is a floor, the last device before it may seem to help by a rounding error.
        return below if self.step_s(below) <= self.step_s(above) * (1 + 1e-9) else above

    @property
    def limit(self) -> float:
        """The speed-up that no number of devices exceeds."""
        return self.speedup(self.fastest)


def predict(
    strategy: str,
    compute_s: float,
    moved: Volume,
    network: Network,
    servers: int = 1,
    update: str = "sync",
    overhead_s: float = 0.0,
) -> Prediction:
    """Predicts the time of a step.

    Args:
      strategy: one of STRATEGIES.
      compute_s: seconds of a step on one device.
      moved: what the model has to move.
      network: what joins the devices.
      servers: parameter servers, over which weights are spread evenly.
      update: under `parameter_server`, `sync` or `async`.
      overhead_s: what the strategy costs besides: seconds that do not divide, but for those of asynchronous updates.

    Returns:
      The prediction.
    """
    bandwidth, latency = network.bandwidth, network.latency_s
    if strategy != PARAMETER_SERVER:
        # Two rounds of n-1 messages reduce; tables take one for their lengths and one for their rows.
        rounds = 2 + (2 if moved.rows else 0)
        once = (2 * moved.gradients + moved.rows) / bandwidth
        regime = Regime(compute_s - once, overhead_s + once - rounds * latency, rounds * latency)
        return Prediction(compute_s, regime, regime)
    summed = (moved.gradients + moved.unique) / bandwidth
    if update == "async":
        read = (moved.weights + moved.rows) / bandwidth
        turn = summed + _TURN_MESSAGES * latency
        own = compute_s + overhead_s + moved.examples / bandwidth + read + _ASYNC_MESSAGES * latency + turn
        regime = Regime(own, 0.0, 0.0)
        return Prediction(compute_s, regime, regime, floor_s=max(turn, read / servers))
    up, down, rows = (size / bandwidth for size in (moved.gradients, moved.weights, moved.rows))
    # The coordinator's link carries all examples and all gradients, then the sum of these.
    fixed = overhead_s + (moved.examples + moved.rows) / bandwidth + summed + _SYNC_MESSAGES * latency
    few = Regime(compute_s + rows, fixed + down, up)
    many = Regime(compute_s, fixed + rows / servers, up + down / servers)
    return Prediction(compute_s, few, many, servers)


def parse_bandwidth(text: str) -> float:
    """Reads a bandwidth.

    Args:
      text: such as `10Gbit`, `100 Mbit/s`, `25Gbps` (bits) or `1.25GB/s` (bytes).

    Returns:
      Bytes per second.

    Raises:
      ConfigError: it is not written like this, or is zero.
    """
    match = _BANDWIDTH.fullmatch(text.strip())
    if match is None or not float(match["number"]):
        raise _wrong("--bandwidth", text, "a number with a unit, such as 10Gbit, 100Mbit or 1.25GB (each per second)")
    value = float(match["number"]) * _PREFIXES[match["prefix"]]
    return value if match["unit"] == "B" else value / 8


def parse_latency(text: str) -> float:
    """Reads a latency.

    Args:
      text: such as `50us`, `0.2ms` or `0s`.

    Returns:
      Seconds.

    Raises:
      ConfigError: it is not written like this.
    """
    match = _LATENCY.fullmatch(text.strip())
    if match is None:
        raise _wrong("--latency", text, "a number with a unit, such as 50us or 0.2ms")
    return float(match["number"]) * _SECONDS[match["unit"]]


def _wrong(option: str, received: str, expected: str) -> ConfigError:
    return ConfigError(f"{option} is wrong", f"received {received!r}, expected {expected}", "Correct the option.")
