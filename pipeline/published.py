"""A published version in Python, for notebooks: the model, its metrics, its spans and everything behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from evergreen.components.errors import ConfigError
from evergreen.components.pusher import versions
from evergreen.pipeline.lineage.records import Provenance, SpanUse


class Published:
    """One published version.

    Args:
      lineage: everything behind it.

    Attributes:
      lineage: the same.
    """

    def __init__(self, lineage: Provenance):
        self.lineage = lineage

    def __repr__(self) -> str:
        spans = ", ".join(str(use.span) for use in self.spans)
        return f"<version {self.version}, {'live' if self.lineage.live else 'not live'}, of spans {spans}>"

    @property
    def version(self) -> int:
        """The version number."""
        assert self.lineage.version is not None
        return self.lineage.version

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Metrics on the exam, by name."""
        return self.lineage.metrics

    @property
    def spans(self) -> Sequence[SpanUse]:
        """The spans that the model was trained on, the oldest first."""
        return self.lineage.window

    @property
    def path(self) -> Path:
        """The SavedModel's folder."""
        return Path(self.lineage.path)

    @property
    def tflite_path(self) -> Path | None:
        """The TFLite model of the same version; None without one."""
        found = versions.lite_path(self.path.parent) / str(self.version) / versions.TFLITE_FILE
        return found if found.is_file() else None

    @cached_property
    def model(self) -> Any:
        """The SavedModel, loaded by TensorFlow; `model.signatures["serving_default"]` takes serialized tf.Examples.

        Raises:
          ConfigError: retention has deleted its files.
        """
        if not self.lineage.on_disk:
            raise ConfigError(
                f"version {self.version} is no longer on disk",
                f"{self.path} was deleted by retention (publish.keep)",
                "Its lineage and metrics are still there; the Trainer's artifact may be: lineage.training.model_uri.",
            )
        import tensorflow as tf

        return tf.saved_model.load(str(self.path))
