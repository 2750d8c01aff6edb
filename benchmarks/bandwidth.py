"""Does a training step on slow links take as long as `evergreen scaling` predicts?

The flights model trains on real hosts: network namespaces joined by veth, whose links `tc` slows to 1 Gbit, 100 Mbit
and 10 Mbit per second. `multi_worker_mirrored` has two hosts, `parameter_server` four: the coordinator, two workers and
a server; all but the first run `evergreen worker`. For each link the step that was measured stands beside the one
predicted: what a step took on links that were not slowed, plus the seconds that the formulas of
`components/trainer/scaling.py` give to its bytes. All hosts share this machine's cores, in every row alike.

    python benchmarks/bandwidth.py [--strategies multi_worker_mirrored,parameter_server] [--rates 1gbit,100mbit,10mbit]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = Path(__file__).resolve().parent
sys.path += [str(HERE), str(HERE.parent / "examples" / "flights")]

import network_hosts  # noqa: E402
import training_data  # noqa: E402

from evergreen.components.trainer import scaling  # noqa: E402

BATCH = 512
PORT = 2222
TIMEOUT_S = 900
# How many hosts take part, as what.
JOBS = {
    "multi_worker_mirrored": ("worker", "worker"),
    "parameter_server": ("chief", "worker", "worker", "ps"),
}
_WORKER = "import sys; from evergreen.pipeline.cli import main; sys.exit(main(sys.argv[1:]))"


def train(work: Path, out: Path, strategy: str, steps: int) -> None:
    """Leads a training, as the host that TF_CONFIG says; writes the report into `out`.

    Args:
      work: where the rows and the transform graph are.
      out: a new folder.
      strategy: its name.
      steps: how many.
    """
    from evergreen.components.trainer import executor

    settings = {
        "strategy": strategy,
        "steps": steps,
        "global_batch_size": BATCH,
        "max_restarts": 0,
        # A link may be busy with gradients for longer than a status takes.
        "cluster": {"timeout": 120},
    }
    report = executor.train(training_data.request(work, out, settings))
    (out / "report.json").write_text(json.dumps(report), encoding="utf-8")


class Cluster:
    """Hosts with `evergreen worker` on all but the first, for the time of a `with`.

    Args:
      hosts: as many as the strategy needs, or more.
      strategy: its name.
      folder: where they leave what they print.
    """

    def __init__(self, hosts: list[network_hosts.Host], strategy: str, folder: Path):
        self.hosts = hosts[: len(JOBS[strategy])]
        self.strategy = strategy
        self._folder = folder
        self._workers: list[subprocess.Popen] = []
        self._jobs: dict[str, list[str]] = {}
        self._tasks = []
        for host, job in zip(self.hosts, JOBS[strategy], strict=True):
            self._tasks.append({"type": job, "index": len(self._jobs.setdefault(job, []))})
            self._jobs[job].append(f"{host.address}:{PORT}")

    def __enter__(self) -> Cluster:
        for number in range(1, len(self.hosts)):
            with open(self._folder / f"{self.hosts[number].name}.log", "w", encoding="utf-8") as log:
                command = self.hosts[number].command([sys.executable, "-c", _WORKER, "worker"])
                self._workers.append(
                    subprocess.Popen(
                        command, env=self._environment(number), cwd=training_data.EXAMPLE, stdout=log, stderr=log
                    )
                )
        return self

    def __exit__(self, *error: Any) -> None:
        for process in self._workers:
            process.send_signal(signal.SIGKILL)
            process.wait()

    def measure(self, work: Path, rate: str | None, steps: int) -> dict[str, Any]:
        """Trains at a rate; returns the report, with `sent`: bytes per step of each host, start and end included."""
        for host in self.hosts:
            host.limit(rate)
        before = [host.moved() for host in self.hosts]
        with tempfile.TemporaryDirectory() as name:
            words = [sys.executable, __file__, "--train", name, "--work", str(work), "--steps", str(steps)]
            command = self.hosts[0].command([*words, "--strategies", self.strategy])
            done = subprocess.run(command, env=self._environment(0), capture_output=True, text=True, timeout=TIMEOUT_S)
            if done.returncode:
                raise RuntimeError(f"{self.strategy} at {rate}: {done.stderr[-3000:]}")
            report = json.loads((Path(name) / "report.json").read_text(encoding="utf-8"))
        after = [host.moved() for host in self.hosts]
        report["sent"] = [(new[1] - old[1]) / steps for new, old in zip(after, before, strict=True)]
        return report

    def _environment(self, number: int) -> dict[str, str]:
        config = {"cluster": self._jobs, "task": self._tasks[number]}
        return {**os.environ, "TF_CONFIG": json.dumps(config), "no_proxy": "*"}


def predicted_extra_s(strategy: str, report: dict[str, Any], rate: str) -> float:
    """Returns the seconds that a link of a rate adds to a step, by the formulas."""
    moved = scaling.volume(report["bytes"], BATCH)
    workers = sum(job == "worker" for job in JOBS[strategy])
    bandwidth = scaling.parse_bandwidth(rate.replace("gbit", "Gbit").replace("mbit", "Mbit"))
    slow, free = (
        scaling.predict(strategy, 0.0, moved, scaling.Network(link)).step_s(workers) for link in (bandwidth, 1e18)
    )
    return slow - free


def main() -> None:
    """Measures every strategy at every rate, and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--strategies", default=",".join(JOBS))
    parser.add_argument("--rates", default="1gbit,100mbit,10mbit")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    strategies = arguments.strategies.split(",")
    if arguments.train:
        train(arguments.work, arguments.train, strategies[0], arguments.steps)
        return
    network_hosts.enter()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name) / "rows"
        training_data.write(work, [1])
        hosts = network_hosts.make(max(len(JOBS[strategy]) for strategy in strategies))
        for strategy in strategies:
            with Cluster(hosts, strategy, Path(name)) as cluster:
                free = cluster.measure(work, None, arguments.steps)
                for rate in arguments.rates.split(","):
                    report = cluster.measure(work, rate, arguments.steps)
                    measured = report["step_ms"]["p50"]
                    predicted = free["step_ms"]["p50"] + predicted_extra_s(strategy, report, rate) * 1e3
                    row = {
                        "strategy": strategy,
                        "hosts": len(cluster.hosts),
                        "link": rate,
                        "unslowed_ms": free["step_ms"]["p50"],
                        "predicted_ms": predicted,
                        "measured_ms": measured,
                        "measured_to_predicted": measured / predicted,
                        "sent_bytes_per_step": report["sent"],
                        "step_parts_ms": report["step_parts_ms"],
                    }
                    rows.append(row)
                    print(
                        f"{strategy}, {rate}: predicted {predicted:.0f} ms, measured {measured:.0f} ms",
                        file=sys.stderr,
                        flush=True,
                    )
    if arguments.json:
        json.dump(rows, sys.stdout, indent=1)
        print()
        return
    head = f"{'strategy':22} {'hosts':>5} {'link':>8} {'unslowed':>9} {'predicted':>10} {'measured':>9} {'ratio':>6}"
    print(f"{head}  most sent")
    for row in rows:
        print(
            f"{row['strategy']:22} {row['hosts']:5} {row['link']:>8} {row['unslowed_ms']:6.1f} ms "
            f"{row['predicted_ms']:7.1f} ms {row['measured_ms']:6.1f} ms {row['measured_to_predicted']:6.2f}  "
            f"{max(row['sent_bytes_per_step']) / 1e6:.2f} MB a step"
        )
    worst = max(rows, key=lambda row: abs(row["measured_to_predicted"] - 1))
    print(
        f"Furthest from its prediction is {worst['strategy']} at {worst['link']}: it takes "
        f"{worst['measured_to_predicted']:.2f} times as long as predicted."
    )


if __name__ == "__main__":
    main()
