"""What was measured of a project's training, beside what is predicted for more devices.

`scaling_runs` trains, `evergreen.components.trainer.scaling` has the formulas.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evergreen.components import ahead
from evergreen.components.errors import EvergreenError
from evergreen.components.trainer import devices, scaling
from evergreen.pipeline.scaling_runs import Case, Measured


@dataclass(frozen=True)
class Row:
    """A case, measured and predicted.

    Attributes:
      strategy: its name.
      replicas: devices or workers.
      step_s: seconds of a step here.
      speedup: how many times as fast as `single`.
      traffic: bytes of a step by the formulas of `evergreen.components.trainer.scaling`.
      measured_bytes: the same, all together, as measured; None where that was not possible.
      predicted_step_s: seconds of a step on hosts of their own.
      predicted_speedup: how many times as fast as `single` that is.
    """

    strategy: str
    replicas: int
    step_s: float
    speedup: float
    traffic: scaling.Traffic
    measured_bytes: float | None
    predicted_step_s: float
    predicted_speedup: float


@dataclass(frozen=True)
class Study:
    """All that was measured and predicted.

    Attributes:
      rows: one for each case.
      predictions: by strategy, for any number of devices.
      overheads: by strategy, the seconds by which a step of one device or worker was longer than under `single`; they
        are part of the prediction. Only where one device was measured.
      single_s: seconds of a step under `single`.
      moved: what a step of the model has to move.
      network: what the predictions assume.
      servers: parameter servers.
      update: `sync` or `async`, under `parameter_server`.
      global_batch_size: rows in a step.
      cores: of this machine, as many as this process may use.
      gpus: of this machine.
    """

    rows: tuple[Row, ...]
    predictions: Mapping[str, scaling.Prediction]
    overheads: Mapping[str, float]
    single_s: float
    moved: scaling.Volume
    network: scaling.Network
    servers: int
    update: str
    global_batch_size: int
    cores: int
    gpus: int

    def notes(self) -> list[str]:
        """Says what the numbers are worth."""
        most = max(row.replicas for row in self.rows)
        found = []
        if not self.gpus:
            found.append(
                f"this machine has no GPU: logical devices and local processes share its {self.cores} cores, so the "
                "measured speed-up is that of this machine and not of devices of their own"
            )
        elif most > self.gpus:
            found.append(f"{most} replicas share {self.gpus} GPUs here")
        if most > self.cores:
            found.append(f"{most} replicas are more than this machine's {self.cores} cores")
        found.append(
            f"predictions are for hosts of their own, joined by {self.network.bandwidth * 8 / 1e9:g} Gbit/s with "
            f"{self.network.latency_s * 1e6:g} us: the global batch of {self.global_batch_size} stays, the computation "
            "of `single` divides evenly, nothing overlaps"
        )
        added = ", ".join(f"{strategy} {seconds * 1e3:.3g} ms" for strategy, seconds in self.overheads.items())
        if added:
            found.append(f"added to each predicted step is what the strategy costs on one device here: {added}")
        missing = [strategy for strategy in self.predictions if strategy not in self.overheads]
        if missing:
            found.append(
                f"--replicas without 1: what {', '.join(missing)} costs on one device is not in the prediction"
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """Returns plain values for `--json`; bytes are those of a step."""
        return {
            "single_step_ms": self.single_s * 1e3,
            "global_batch_size": self.global_batch_size,
            "cores": self.cores,
            "gpus": self.gpus,
            "bandwidth_bytes_per_s": self.network.bandwidth,
            "latency_s": self.network.latency_s,
            "servers": self.servers,
            "update": self.update,
            "bytes": dataclasses.asdict(self.moved),
            "rows": [
                {
                    "strategy": row.strategy,
                    "replicas": row.replicas,
                    "step_ms": row.step_s * 1e3,
                    "speedup": row.speedup,
                    "bytes": dataclasses.asdict(row.traffic),
                    "measured_bytes": row.measured_bytes,
                    "predicted_step_ms": row.predicted_step_s * 1e3,
                    "predicted_speedup": row.predicted_speedup,
                }
                for row in self.rows
            ],
            "overhead_ms": {strategy: seconds * 1e3 for strategy, seconds in self.overheads.items()},
            "saturation": {
                strategy: {"replicas": prediction.replicas, "speedup": prediction.limit}
                for strategy, prediction in self.predictions.items()
            },
            "notes": self.notes(),
        }


def study(cases: Sequence[Case], network: scaling.Network, train: Callable[[Case], Measured]) -> Study:
    """Measures every case, and predicts.

    Args:
      cases: from `scaling_runs.plan`.
      network: what the predictions assume.
      train: measures a case.

    Returns:
      All of it.

    Raises:
      EvergreenError: the training refuses, or the model's bytes cannot be counted.
    """
    single, *others = cases
    base = train(single)
    if not base.report.get("bytes"):
        raise EvergreenError(
            "the bytes of a training step cannot be counted",
            f"the model of {single.settings.model} cannot be traced for a single row",
            "Let it take batches of any size.",
        )
    settings = others[0].settings
    moved = scaling.volume(base.report["bytes"], settings.global_batch_size)
    servers, update = settings.cluster.ps, settings.update
    found = [(case, train(case)) for case in others]
    # What a strategy costs on one device, where its processes share a machine and bytes cost next to nothing.
    overheads = {case.strategy: max(0.0, result.step_s - base.step_s) for case, result in found if case.replicas == 1}
    predictions = {
        strategy: scaling.predict(strategy, base.step_s, moved, network, servers, update, overheads.get(strategy, 0.0))
        for strategy in dict.fromkeys(case.strategy for case in others)
    }
    rows = [
        Row(
            case.strategy,
            case.replicas,
            result.step_s,
            base.step_s / result.step_s,
            scaling.traffic(case.strategy, case.replicas, moved, update),
            result.bytes,
            predictions[case.strategy].step_s(case.replicas),
            predictions[case.strategy].speedup(case.replicas),
        )
        for case, result in found
    ]
    cores = ahead.cores()
    return Study(
        tuple(rows),
        predictions,
        overheads,
        base.step_s,
        moved,
        network,
        servers,
        update,
        settings.global_batch_size,
        cores,
        len(devices.visible_gpus()),
    )
