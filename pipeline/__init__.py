"""The pipeline: configuration, spans and windows, running one retraining, its history and lineage, the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evergreen.pipeline.published import Published

__all__ = ["load"]


def load(version: int | None = None, config: str | Path | None = None, overrides: Sequence[str] = ()) -> Published:
    """Loads a published version: its model, metrics, spans and lineage.

    Args:
      version: its number; the live one by default.
      config: the project's evergreen.yaml, or its folder; by default the one of this folder or the nearest above.
      overrides: `key.path=value` each.

    Returns:
      The version; its model is loaded when first asked for.

    Raises:
      ConfigError: there is no such version, or no project.
    """
    from evergreen.pipeline import config as configuration
    from evergreen.pipeline.lineage import Lineage
    from evergreen.pipeline.published import Published

    return Published(Lineage(configuration.load(config, overrides)).version(version))
