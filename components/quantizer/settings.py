"""The settings of the Quantizer, from the JSON that the pipeline passes; no TensorFlow here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

from evergreen.components.errors import ConfigError

BASELINE = "float32"
INT8, INT8_FLOAT_IO, INT16X8 = "int8", "int8_float_io", "int16x8"
VARIANTS = (BASELINE, "float16", "dynamic_int8", INT8, INT8_FLOAT_IO, INT16X8)
# What needs rows to learn the ranges of activations from.
CALIBRATED = (INT8, INT8_FLOAT_IO, INT16X8)
PREFER = ("smallest", "fastest")
WHEN_NONE = ("withdraw", "refuse")


@dataclasses.dataclass(frozen=True)
class QuantizeSettings:
    """The section `quantize` of the configuration.

    Attributes:
      variants: what to make, of `VARIANTS`; none means that nothing is quantized.
      max_drop: by metric name, the most that a variant may lose against the SavedModel on the same rows.
      max_bytes: the largest file.
      max_latency_ratio: the slowest answer to one row on one thread, as a ratio to float32's.
      max_abs_difference: the largest difference of an output from the SavedModel's.
      required: the variants that must pass, or gate 3 closes.
      publish: the variant to publish; None means the one that `prefer` picks.
      prefer: of the variants that passed, the `smallest` or the `fastest`.
      when_none: where none passed, `withdraw` the TFLite version that is published, or `refuse` to publish.
      calibration_rows: how many rows of the split `train` calibrate.
      calibration_seed: which ones.
      convert_seconds: the longest that one conversion may take.
      allow_select_ops: whether operators that TFLite lacks may be TensorFlow's own; the phone's runtime must have them.
    """

    variants: tuple[str, ...] = ("float16", "dynamic_int8")
    max_drop: Mapping[str, float] = dataclasses.field(default_factory=dict)
    max_bytes: int | None = None
    max_latency_ratio: float | None = None
    max_abs_difference: float | None = None
    required: tuple[str, ...] = ()
    publish: str | None = None
    prefer: str = "smallest"
    when_none: str = "withdraw"
    calibration_rows: int = 500
    calibration_seed: int = 0
    convert_seconds: float = 300.0
    allow_select_ops: bool = False

    @classmethod
    def from_json(cls, text: str) -> QuantizeSettings:
        """Reads the settings and checks that every name in them means something.

        Args:
          text: a JSON object with any of the attributes' names; unknown keys are refused.

        Raises:
          ConfigError: for an unknown key, variant or metric, a number out of range, or a variant that is required or to
            be published but not made.
        """
        given = json.loads(text)
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(given) - known):
            raise ConfigError(
                f"Unknown key `quantize.{unknown[0]}`", f"The keys are {', '.join(sorted(known))}.", "Correct the key."
            )
        lists = {"variants": tuple(dict.fromkeys(given.get("variants", cls.variants)))}
        lists["required"] = tuple(given.get("required") or ())
        settings = cls(**{**given, **lists, "max_drop": dict(given.get("max_drop") or {})})
        _check_names("variants", settings.variants, VARIANTS, "exist")
        _check_names("required", settings.required, settings.variants, "are listed under `quantize.variants`")
        if settings.publish is not None:
            _check_names("publish", [settings.publish], settings.variants, "are listed under `quantize.variants`")
        _check_names("prefer", [settings.prefer], PREFER, "exist")
        _check_names("when_none", [settings.when_none], WHEN_NONE, "exist")
        for key in ("calibration_rows", "convert_seconds"):
            _check_number(key, getattr(settings, key), "a number above 0", zero=False)
        for key in ("max_bytes", "max_latency_ratio", "max_abs_difference"):
            if getattr(settings, key) is not None:
                _check_number(key, getattr(settings, key), "a number of 0 or more: the most that a variant may have")
        # Imported here: the command line reads VARIANTS from this module and has no need of numpy.
        from evergreen.components.evaluator import metrics

        for metric, bound in settings.max_drop.items():
            metrics.get(metric)
            _check_number(f"max_drop.{metric}", bound, "a number of 0 or more: the most that a variant may lose")
        return settings

    @property
    def calibrated(self) -> bool:
        """Whether a variant needs rows to calibrate."""
        return any(variant in CALIBRATED for variant in self.variants)


def _check_names(key: str, names: Iterable[str], valid: Iterable[str], what: str) -> None:
    valid = list(valid)
    for name in names:
        if name not in valid:
            raise ConfigError(
                f"Invalid value for `quantize.{key}`",
                f"Received: {name!r}. These {what}: {', '.join(valid) or 'none'}.",
                "Name one of them.",
            )


def _check_number(key: str, value: Any, expected: str, zero: bool = True) -> None:
    if not (value >= 0 if zero else value > 0):
        raise ConfigError(
            f"Invalid value for `quantize.{key}`", f"Received: {value!r}. Expected {expected}.", "Correct the value."
        )
