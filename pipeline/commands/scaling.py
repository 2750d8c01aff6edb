"""`evergreen scaling`: what more devices would bring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from evergreen.components.errors import ConfigError, EvergreenError
from evergreen.components.trainer import scaling as model
from evergreen.components.trainer.request import Request
from evergreen.pipeline import config as configuration
from evergreen.pipeline import options, scaling, scaling_plot, scaling_runs
from evergreen.pipeline.console import Console, StageProgress, number, print_json, size
from evergreen.pipeline.run_log import RunLog
from evergreen.pipeline.store import Store

FOLDER = "scaling"  # in the workspace: the picture and the logs of the last time
_LEAST_STEPS = 10


def _list(text: str, option: str, expected: str) -> list[str]:
    found = [part.strip() for part in text.split(",")]
    if not all(found):
        raise _wrong(option, text, expected)
    return list(dict.fromkeys(found))


def _wrong(option: str, received: str, expected: str) -> ConfigError:
    return ConfigError(f"{option} is wrong", f"received {received!r}, expected {expected}", "Correct the option.")


def _strategies(text: str) -> list[str]:
    expected = f"one or more of {', '.join(model.STRATEGIES)}, with commas between them"
    found = _list(text, "--strategy", expected)
    if not set(found) <= set(model.STRATEGIES):
        raise _wrong("--strategy", text, expected)
    return found


def _replicas(text: str) -> list[int]:
    expected = "numbers of devices from 1 on, with commas between them, such as 1,2,4"
    found = _list(text, "--replicas", expected)
    if not all(part.isdecimal() and int(part) for part in found):
        raise _wrong("--replicas", text, expected)
    return sorted({int(part) for part in found})


@click.command()
@click.option("--strategy", default="mirrored,parameter_server", show_default=True, help="Strategies, with commas.")
@click.option("--replicas", default="1,2", show_default=True, help="Numbers of devices or workers, with commas.")
@click.option("--bandwidth", default="10Gbit", show_default=True, help="Of a host's link, for the prediction.")
@click.option("--latency", default="50us", show_default=True, help="Of a message, for the prediction.")
@click.option("--steps", default=40, show_default=True, type=click.IntRange(min=_LEAST_STEPS), help="Of each training.")
@click.option(
    "--plot", type=click.Path(path_type=Path), metavar="FILE", help="The picture, a .png or .svg; in the workspace."
)
@options.config
@options.json_output
def command(
    config_file: str | None,
    overrides: tuple[str, ...],
    strategy: str,
    replicas: str,
    bandwidth: str,
    latency: str,
    steps: int,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Say what more devices would bring: measured speed-up, bytes of a step, and where it saturates.

    Trains a few steps under each strategy and number of devices on what the last run's Trainer read, as processes of
    this machine, and predicts hosts of their own from it. Records and publishes nothing.

    \b
    Example:
      evergreen scaling --strategy multi_worker_mirrored,parameter_server --replicas 1,2,4 --bandwidth 1Gbit
    """
    strategies, counts = _strategies(strategy), _replicas(replicas)
    network = model.Network(model.parse_bandwidth(bandwidth), model.parse_latency(latency))
    config = configuration.load(config_file, overrides)
    configuration.check_files(config)
    if plot is not None:
        scaling_plot.check_path(plot)
    cases = scaling_runs.plan(config, strategies, counts, steps)
    request = scaling_runs.last_training(config, Store(config.connection, config.name))
    folder = config.workspace_dir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    study = _measure(cases, request, network, folder, as_json)
    picture = plot or folder / "scaling.png"
    scaling_plot.draw(study, config.name, picture)
    if as_json:
        print_json({**study.to_json(), "steps": steps, "plot": str(picture)})
        return
    _print(study, Console())
    Console().note(f"picture: {picture}")


def _measure(
    cases: list[scaling_runs.Case], request: Request, network: model.Network, folder: Path, quiet: bool
) -> scaling.Study:
    """Trains case after case, with progress on the terminal and what TensorFlow prints in a log of each."""
    for old in folder.glob("*.log"):
        old.unlink()
    with RunLog(folder.parent, folder.name) as log, StageProgress(log.terminal, quiet=quiet) as stages:
        stages.widen(map(str, cases))

        def train(case: scaling_runs.Case) -> scaling_runs.Measured:
            stages.start(str(case), "starting")
            with log.stage(str(case).replace(" ", "-")):
                try:
                    found = scaling_runs.measure(case, request, stages.update)
                except RuntimeError as error:
                    raise EvergreenError(
                        f"the training under {case} failed",
                        str(error).strip().splitlines()[-1],
                        f"What it printed is in {folder}.",
                    ) from error
            stages.done(f"{found.step_s * 1e3:.4g} ms a step")
            return found

        return scaling.study(cases, network, train)


def _print(study: scaling.Study, console: Console) -> None:
    columns = [
        "strategy",
        "replicas",
        "ms",
        "speed-up",
        "sends",
        "receives",
        "in all",
        "counted",
        "predicted ms",
        "speed-up there",
    ]
    rows: list[list[Any]] = [["single", 1, number(study.single_s * 1e3), number(1.0), *[None] * 6]]
    for row in study.rows:
        rows.append(
            [
                row.strategy,
                row.replicas,
                number(row.step_s * 1e3),
                number(row.speedup),
                size(row.traffic.sent),
                size(row.traffic.received),
                size(row.traffic.total),
                size(row.measured_bytes),
                number(row.predicted_step_s * 1e3),
                number(row.predicted_speedup),
            ]
        )
    console.note(
        "Milliseconds and bytes of a step; what each device or worker sends and receives, and all of them.", "bold"
    )
    console.table(columns, rows, right=columns[1:])
    for strategy, prediction in study.predictions.items():
        console.note(f"{strategy}: {_saturation(prediction)}")
    for note in study.notes():
        console.note(f"note: {note}")


def _saturation(prediction: model.Prediction) -> str:
    """Says where a strategy saturates, in a sentence."""
    best, limit = prediction.replicas, number(prediction.limit)
    if best is None:
        return f"every further device helps, up to {limit} times the speed of one"
    if best == 1:
        return f"saturated from the start: {limit} times the speed of one device, and slower with more"
    beyond = "no faster" if prediction.floor_s else "slower"
    return f"saturates at {best} devices, {limit} times the speed of one; with more it gets {beyond}"
