"""The settings of the ServingValidator, from the JSON that the pipeline passes; no TensorFlow here."""

from __future__ import annotations

import dataclasses
import json

from evergreen.components.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class ServingSettings:
    """The section `serving` of the configuration.

    Attributes:
      rows: how many rows of the exam the server is asked about.
      seconds: the longest that the whole may take, from the server's start to its last answer.
      max_bytes: the most memory that the server may use.
      tolerance: how far an answer may be from the Trainer's model's; see `evergreen.components.model_server.compare`.
    """

    rows: int = 50
    seconds: float = 300.0
    max_bytes: int = 8_000_000_000
    tolerance: float = 1e-3

    @classmethod
    def from_json(cls, text: str) -> ServingSettings:
        """Reads the settings.

        Args:
          text: a JSON object with any of the attributes' names; unknown keys are refused.

        Raises:
          ConfigError: for an unknown key, or a number that is not above 0.
        """
        given = json.loads(text)
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(given) - known):
            raise ConfigError(
                f"Unknown key `serving.{unknown[0]}`", f"The keys are {', '.join(sorted(known))}.", "Correct the key."
            )
        for key, value in given.items():
            if not value > 0:
                raise ConfigError(
                    f"Invalid value for `serving.{key}`",
                    f"Received: {value!r}. Expected a number above 0.",
                    "Correct the value.",
                )
        return cls(**given)
