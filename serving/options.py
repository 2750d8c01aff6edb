"""What the manager is told by the server's flags."""

from __future__ import annotations

from dataclasses import dataclass

from evergreen.serving.batching_config import BatchingParameters


@dataclass(frozen=True)
class ManagerOptions:
    """The flags that the manager obeys, under their names.

    Attributes:
      file_system_poll_wait_seconds: seconds between two looks at the base paths; 0 looks once, and after each change of
        the configuration.
      model_config_file: the ModelServerConfig to look at again and again.
      model_config_file_poll_wait_seconds: seconds between two looks at it; 0 never looks again.
      max_num_load_retries: how often a failed load is tried again.
      load_retry_interval_micros: microseconds between two tries.
      allow_version_labels_for_unavailable_models: whether a new label may point to a version that is not AVAILABLE.
      prefer_tflite_model: whether `model.tflite` of a version goes before its SavedModel.
      enable_model_warmup: whether a version is warmed up before it is AVAILABLE.
      batching: how requests become batches; None for no batching.
    """

    file_system_poll_wait_seconds: float = 1.0
    model_config_file: str | None = None
    model_config_file_poll_wait_seconds: float = 0.0
    max_num_load_retries: int = 5
    load_retry_interval_micros: int = 60_000_000
    allow_version_labels_for_unavailable_models: bool = False
    prefer_tflite_model: bool = False
    enable_model_warmup: bool = True
    batching: BatchingParameters | None = None
