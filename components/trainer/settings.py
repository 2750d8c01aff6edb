"""The section `trainer` of the configuration, as the component receives it: JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from evergreen.components.errors import ConfigError

SINGLE = "single"
MIRRORED = "mirrored"
STRATEGIES = (SINGLE, MIRRORED)
PRECISIONS = ("float32",)


@dataclass(frozen=True)
class EarlyStopping:
    """When training ends before its last step.

    Attributes:
      metric: `val_loss` or `val_<a metric of the model>`.
      patience: how many measurements without a gain end the training.
      every: steps between two measurements.
    """

    metric: str = "val_loss"
    patience: int = 3
    every: int = 200


@dataclass(frozen=True)
class WarmStart:
    """Training that starts from the champion's weights.

    Attributes:
      cold_every: every so many runs start from scratch.
    """

    cold_every: int = 10


@dataclass(frozen=True)
class TrainerSettings:
    """How a model is trained.

    Attributes:
      model: `module:function` of a `build_model`; None with `run_fn`.
      run_fn: `module:function` of a stock `run_fn`; None with `model`.
      strategy: `single` or `mirrored`.
      devices: how many devices; None for all.
      precision: `float32`.
      seed: sets every random generator.
      global_batch_size: rows in a step, over all devices together.
      steps: training steps at most.
      early_stopping: None to train all steps.
      warm_start: None to start from scratch always.
      hyperparameters: handed to the user's function as they are.
    """

    model: str | None = None
    run_fn: str | None = None
    strategy: str = SINGLE
    devices: int | None = None
    precision: str = "float32"
    seed: int = 0
    global_batch_size: int = 512
    steps: int = 2000
    early_stopping: EarlyStopping | None = None
    warm_start: WarmStart | None = None
    hyperparameters: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, text: str) -> TrainerSettings:
        """Reads the settings.

        Args:
          text: a JSON object with the attributes of this class as keys; what is absent has its default.

        Returns:
          The settings.

        Raises:
          ConfigError: a key or a value is not what this class expects.
        """
        return cls.from_dict(json.loads(text))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainerSettings:
        """See `from_json`."""
        values = dict(values)
        for key, section in (("early_stopping", EarlyStopping), ("warm_start", WarmStart)):
            if values.get(key) is not None:
                values[key] = section(**_known(section, values[key], f"trainer.{key}"))
        settings = cls(**_known(cls, values, "trainer"))
        settings._check()
        return settings

    def _check(self) -> None:
        if (self.model is None) == (self.run_fn is None):
            raise _wrong("trainer", "neither" if self.model is None else "both", "one of `model` and `run_fn`")
        for key, offered in (("strategy", STRATEGIES), ("precision", PRECISIONS)):
            if getattr(self, key) not in offered:
                raise _wrong(f"trainer.{key}", getattr(self, key), f"one of {', '.join(offered)}")
        for key in ("global_batch_size", "steps"):
            if getattr(self, key) < 1:
                raise _wrong(f"trainer.{key}", getattr(self, key), "at least 1")
        if self.devices is not None:
            if self.devices < 1 or (self.strategy == SINGLE and self.devices > 1):
                raise _wrong("trainer.devices", self.devices, "1 under `single`, 1 or more under `mirrored`")
            if self.global_batch_size % self.devices:
                raise _wrong(
                    "trainer.global_batch_size", self.global_batch_size, f"a multiple of the {self.devices} devices"
                )
        if self.early_stopping is not None and self.early_stopping.every < 1:
            raise _wrong("trainer.early_stopping.every", self.early_stopping.every, "at least 1")


def _known(section: Any, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    unknown = sorted(set(values) - set(section.__dataclass_fields__))
    if unknown:
        raise _wrong(f"{where}.{unknown[0]}", values[unknown[0]], f"one of {', '.join(section.__dataclass_fields__)}")
    return dict(values)


def _wrong(key: str, received: Any, expected: str) -> ConfigError:
    return ConfigError(
        f"{key} is wrong", f"received {received!r}, expected {expected}", "Correct it in evergreen.yaml."
    )
