"""The picture of `evergreen scaling`: speed-up and bytes by number of devices, measured points on predicted curves.

matplotlib is imported when a picture is drawn; its Agg backend needs no screen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evergreen.components.errors import ConfigError
from evergreen.components.trainer import scaling
from evergreen.components.trainer.settings import MIRRORED, MULTI_WORKER, PARAMETER_SERVER
from evergreen.pipeline.scaling import Study

ENDINGS = (".png", ".svg")
# Colours that remain distinct to colour-blind readers: Okabe and Ito, "Color Universal Design", 2008.
_COLOURS = {MIRRORED: "#0072B2", MULTI_WORKER: "#009E73", PARAMETER_SERVER: "#D55E00"}
_MARKERS = {MIRRORED: "o", MULTI_WORKER: "s", PARAMETER_SERVER: "D"}
# mirrored and multi_worker_mirrored have one curve: the second is dashed on top of the first.
_LINES: Mapping[str, Any] = {MIRRORED: "-", MULTI_WORKER: (0, (6, 5)), PARAMETER_SERVER: "-"}
_STAR: Mapping[str, Any] = {"marker": "*", "markersize": 15, "markeredgecolor": "black", "linestyle": "none"}
_LEAST_DEVICES, _MOST_DEVICES = 16, 1024
_POINTS = 400


def check_path(path: Path) -> None:
    """Refuses a picture that could not be written, before anything is measured.

    Args:
      path: where it goes.

    Raises:
      ConfigError: its ending is not one of ENDINGS, or its folder is not there.
    """
    if path.suffix.lower() not in ENDINGS:
        raise ConfigError(
            "the picture's format is not known",
            f"received --plot {path}, expected a file that ends in {' or '.join(ENDINGS)}",
            "Name it so.",
        )
    if not path.parent.is_dir():
        raise ConfigError(
            "the picture cannot be written", f"there is no folder {path.parent}", "Make it, or name another."
        )


def draw(study: Study, name: str, path: Path) -> None:
    """Draws the picture.

    Args:
      study: what was measured and predicted.
      name: the project's name.
      path: the file; `check_path` takes it.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 5.6), layout="constrained")
    most = _most_devices(study)
    devices = [most ** (step / _POINTS) for step in range(_POINTS + 1)]
    _speedup(left, study, devices)
    _bytes(right, study, devices)
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xlim(0.93, most * 1.08)
        axes.set_xlabel("devices or workers")
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.grid(True, which="major", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = left.get_legend_handles_labels()
    # A column for each strategy, its line above its points; the last one is for both panels.
    figure.legend(handles, labels, loc="outside lower center", ncols=len(study.predictions) + 1, frameon=False)
    figure.suptitle(
        f"{name}: a step of {study.global_batch_size} rows, {study.single_s * 1e3:.3g} ms on one device; "
        f"predicted for links of {study.network.bandwidth * 8 / 1e9:g} Gbit/s and "
        f"{study.network.latency_s * 1e6:g} µs"
    )
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _most_devices(study: Study) -> int:
    """Returns the power of two up to which the curves go: past what was measured, and past where they saturate."""
    fastest = [one.fastest for one in study.predictions.values() if math.isfinite(one.fastest)]
    wanted = max(_LEAST_DEVICES, *(2 * row.replicas for row in study.rows), *(2.5 * one for one in fastest))
    return min(_MOST_DEVICES, 2 ** math.ceil(math.log2(wanted)))


def _speedup(axes: Any, study: Study, devices: list[float]) -> None:
    shown = [row.speedup for row in study.rows]
    for strategy, prediction in study.predictions.items():
        values = [prediction.speedup(count) for count in devices]
        shown += values
        axes.plot(devices, values, **_style(strategy), label=f"{strategy}, predicted")
        points = [(row.replicas, row.speedup) for row in study.rows if row.strategy == strategy]
        _measured(axes, strategy, points, f"{strategy}, measured here")
    axes.plot(devices, devices, color="#999999", linestyle=":", label="as many times as devices")
    axes.plot([], [], **_STAR, color="white", label="saturates: more devices do not help")
    axes.axhline(1.0, color="#bbbbbb", linewidth=0.8)
    top = 1.25 * max(1.2, *shown)
    stars = {
        (best, round(prediction.speedup(best), 6)): _COLOURS[strategy]
        for strategy, prediction in reversed(list(study.predictions.items()))
        if (best := prediction.replicas) is not None and best <= devices[-1]
    }
    for (best, height), colour in stars.items():
        # Of two that are close together the lower one has its words below.
        close = any(abs(other - best) <= 0.5 * best and 0 < higher - height < top / 8 for other, higher in stars)
        axes.plot([best], [height], **_STAR, color=colour, zorder=6)
        axes.annotate(
            f"{best} {'device' if best == 1 else 'devices'}, {height:.3g}×",
            (best, height),
            xytext=(0, -24) if close else (13, 12),
            textcoords="offset points",
            ha="center" if close else "left",
            color=colour,
            zorder=4,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )
    axes.set_ylim(0, top)
    axes.set_ylabel("speed-up over one device (times)")
    axes.set_title("Speed-up at the same global batch", fontsize=11)


def _bytes(axes: Any, study: Study, devices: list[float]) -> None:
    from matplotlib import ticker

    counts = sorted({max(1, round(count)) for count in devices})
    for strategy in study.predictions:
        totals = [scaling.traffic(strategy, count, study.moved, study.update).total / 1e6 for count in counts]
        drawn = [(count, total) for count, total in zip(counts, totals, strict=True) if total > 0]
        axes.plot(*zip(*drawn, strict=True), **_style(strategy))
        points = [(row.replicas, row.measured_bytes) for row in study.rows if row.strategy == strategy]
        _measured(axes, strategy, [(count, value / 1e6) for count, value in points if value])
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(ticker.NullLocator())
    axes.set_ylabel("moved in a step, all devices together (MB)")
    axes.set_title("Bytes of a step: computed (lines) and counted", fontsize=11)


def _style(strategy: str) -> dict[str, Any]:
    return {"color": _COLOURS[strategy], "linestyle": _LINES[strategy], "linewidth": 1.8}


def _measured(axes: Any, strategy: str, points: list[tuple[int, float]], label: str | None = None) -> None:
    if points:
        axes.plot(
            *zip(*points, strict=True),
            color=_COLOURS[strategy],
            marker=_MARKERS[strategy],
            markersize=8,
            markerfacecolor="white",
            markeredgewidth=1.8,
            linestyle="none",
            zorder=5,
            label=label,
        )
