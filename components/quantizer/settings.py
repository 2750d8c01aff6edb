"""The settings of the Quantizer, from the JSON that the pipeline passes; no TensorFlow here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping

from evergreen.components.errors import ConfigError

BASELINE = "float32"
VARIANTS = (BASELINE, "float16", "dynamic_int8")


@dataclasses.dataclass(frozen=True)
class QuantizeSettings:
    """The section `quantize` of the configuration.

    Attributes:
      variants: what to make, of `VARIANTS`; none means that nothing is quantized.
      max_drop: by metric name, the most that a variant may lose against the SavedModel on the same rows.
      required: the variants that must pass, or gate 3 closes.
      publish: the variant to publish; None means the smallest that passed.
    """

    variants: tuple[str, ...] = ("float16", "dynamic_int8")
    max_drop: Mapping[str, float] = dataclasses.field(default_factory=dict)
    required: tuple[str, ...] = ()
    publish: str | None = None

    @classmethod
    def from_json(cls, text: str) -> QuantizeSettings:
        """Reads the settings and checks that every name in them means something.

        Args:
          text: a JSON object with any of the attributes' names; unknown keys are refused.

        Raises:
          ConfigError: for an unknown key, variant or metric, a negative bound, or a variant that is required or to be
            published but not made.
        """
        given = json.loads(text)
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(given) - known):
            raise ConfigError(
                f"Unknown key `quantize.{unknown[0]}`", f"The keys are {', '.join(sorted(known))}.", "Correct the key."
            )
        settings = cls(
            variants=tuple(dict.fromkeys(given.get("variants", cls.variants))),
            max_drop=dict(given.get("max_drop") or {}),
            required=tuple(given.get("required") or ()),
            publish=given.get("publish"),
        )
        _check_names("variants", settings.variants, VARIANTS, "exist")
        _check_names("required", settings.required, settings.variants, "are listed under `quantize.variants`")
        if settings.publish is not None:
            _check_names("publish", [settings.publish], settings.variants, "are listed under `quantize.variants`")
        # Imported here: the command line reads VARIANTS from this module and has no need of numpy.
        from evergreen.components.evaluator import metrics

        for metric, bound in settings.max_drop.items():
            metrics.get(metric)
            if not bound >= 0:
                raise ConfigError(
                    f"Invalid value for `quantize.max_drop.{metric}`",
                    f"Received: {bound!r}. Expected a number of 0 or more: the most that a variant may lose.",
                    "Correct the value.",
                )
        return settings


def _check_names(key: str, names: Iterable[str], valid: Iterable[str], what: str) -> None:
    valid = list(valid)
    for name in names:
        if name not in valid:
            raise ConfigError(
                f"Invalid value for `quantize.{key}`",
                f"Received: {name!r}. These {what}: {', '.join(valid) or 'none'}.",
                "Name one of them.",
            )
