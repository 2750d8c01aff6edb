"""Checkpoints of a training: what a killed one left, from which the next one goes on.

A checkpoint is one NumPy file with the weights, the optimizer's variables, the best weights so far and, as JSON, how
far the training was. It is written aside and renamed, so that a half-written one has no checkpoint's name; one that
cannot be read, or that belongs to a model of another shape, is passed over, and the one before it is taken. Plain
arrays fit every strategy.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from evergreen.components import atomic
from evergreen.components.trainer.request import Request

KEEP = 2
_NAME = re.compile(r"step-(\d+)\.npz")


@dataclass
class State:
    """How far a training was.

    Attributes:
      step: steps done.
      values: what the loop must know to go on, ready for JSON.
      weights: the model's weights in the order of `Model.get_weights`.
      optimizer: the optimizer's variables in their order.
      best: the best weights so far; empty without early stopping.
    """

    step: int
    values: dict[str, Any]
    weights: list[np.ndarray]
    optimizer: list[np.ndarray]
    best: list[np.ndarray] = field(default_factory=list)


def folder(request: Request) -> str:
    """Returns where a training keeps its checkpoints: beside the outputs of the Trainer's node, by what it trains on.

    The same training, started again after a kill, has other output folders and the same inputs.

    Args:
      request: the training.
    """
    if request.checkpoint_dir:
        return request.checkpoint_dir
    settings = json.loads(request.to_json())
    for key in ("model_dir", "run_dir", "cache_bytes", "picked", "chief", "checkpoint_dir"):
        settings.pop(key)
    for key in ("max_restarts", "checkpoint_every", "profile"):
        settings["settings"].pop(key)
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    node = Path(request.model_dir).parent.parent
    return str(node / ".checkpoints" / key)


class Keeper:
    """Writes and reads the checkpoints of one training.

    Args:
      path: the training's folder of checkpoints; made when the first one is written.
      every: steps between two; 0 for none.
      writes: whether this process writes them; others of the same job only read.
    """

    def __init__(self, path: str, every: int, writes: bool = True):
        self.path = Path(path)
        self.every = every
        self.writes = writes
        self.written = 0
        self._last = 0

    def is_due(self, step: int) -> bool:
        """Says whether `every` steps went by since the last checkpoint, or since the beginning."""
        return self.every > 0 and step - self._last >= self.every

    def write(self, state: State) -> None:
        """Writes a checkpoint durably and removes all but the newest few.

        Args:
          state: how far the training is.
        """
        self._last = state.step
        if not self.writes:
            return
        arrays: dict[str, Any] = {"state": np.array(json.dumps({"step": state.step, "values": state.values}))}
        for name in ("weights", "optimizer", "best"):
            arrays.update({f"{name}/{number}": array for number, array in enumerate(getattr(state, name))})
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        atomic.make_directory(self.path)
        atomic.write_file(self.path / f"step-{state.step}.npz", buffer.getvalue())
        self.written += 1
        for old in self._files()[KEEP:]:
            old.unlink(missing_ok=True)

    def read(self, weights: Sequence[Any], optimizer: Sequence[Any]) -> State | None:
        """Reads the newest checkpoint that is whole and fits.

        Args:
          weights: the model's weights, as variables or arrays; only their shapes are looked at, which a checkpoint
            must have.
          optimizer: the optimizer's variables, likewise.

        Returns:
          The state; None where there is none.
        """
        for file in self._files():
            try:
                state = _load(file)
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                continue
            if _shapes(state.weights) == _shapes(weights) and _shapes(state.optimizer) == _shapes(optimizer):
                self._last = state.step
                return state
        return None

    def clear(self) -> None:
        """Removes the training's checkpoints, and those of trainings that nobody went on with."""
        if self.writes:
            shutil.rmtree(self.path.parent, ignore_errors=True)

    def _files(self) -> list[Path]:
        """The checkpoints, newest first."""
        if not self.path.is_dir():
            return []
        found = [
            (int(match[1]), self.path / name) for name in os.listdir(self.path) if (match := _NAME.fullmatch(name))
        ]
        return [file for _, file in sorted(found, reverse=True)]


def _load(file: Path) -> State:
    with np.load(file, allow_pickle=False) as arrays:
        about = json.loads(str(arrays["state"]))
        groups: dict[str, dict[int, np.ndarray]] = {"weights": {}, "optimizer": {}, "best": {}}
        for name in arrays.files:
            group, _, number = name.partition("/")
            if group in groups:
                groups[group][int(number)] = arrays[name]
    lists = {name: [group[number] for number in sorted(group)] for name, group in groups.items()}
    return State(int(about["step"]), about["values"], **lists)


def _shapes(arrays: Sequence[Any]) -> list[tuple[int, ...]]:
    return [tuple(array.shape) for array in arrays]
