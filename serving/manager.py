"""Which versions of which models answer requests: finds them, loads them, swaps them, and lends them to requests."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from evergreen.serving.servable import Servable
from evergreen.serving.status import VersionStatus


@dataclass(frozen=True)
class ManagerOptions:
    """The flags that the manager obeys, under their names.

    Attributes:
      batching: a BatchingParameters proto (see batching_config), or None for no batching.
    """

    file_system_poll_wait_seconds: float = 1.0
    model_config_file: str | None = None
    model_config_file_poll_wait_seconds: float = 0.0
    max_num_load_retries: int = 5
    load_retry_interval_micros: int = 60_000_000
    allow_version_labels_for_unavailable_models: bool = False
    prefer_tflite_model: bool = False
    enable_model_warmup: bool = True
    batching: Any = None


class Manager:
    """Serves the versions that a ModelServerConfig asks for.

    Args:
      options: see ManagerOptions.
      warm_up: called with each version after it is loaded and before it is AVAILABLE, unless
        `enable_model_warmup` is off; an exception fails the load.
      on_load: called with model, version and seconds after each successful load, warm-up included.
    """

    def __init__(
        self,
        options: ManagerOptions,
        warm_up: Callable[[Servable], None] = lambda servable: None,
        on_load: Callable[[str, int, float], None] = lambda model, version, seconds: None,
    ):
        self.options = options

    def start(self, config: Any) -> None:
        """Takes the first configuration (a ModelServerConfig) and starts to poll. Returns before the loads are done."""

    def stop(self) -> None:
        """Ends polling and loads, and unloads everything once its requests have ended."""

    def reload(self, config: Any) -> None:
        """Takes a ModelServerConfig in place of the present one: models that it does not name are unloaded.

        Raises:
          ServingError: INVALID_ARGUMENT for a config that is not valid, FAILED_PRECONDITION for a label of a version
            that is not AVAILABLE; the present config then stays.
        """

    def current_config(self) -> Any:
        """Returns a copy of the ModelServerConfig in force."""

    @contextlib.contextmanager
    def lease(self, name: str, version: int | None = None, label: str | None = None) -> Iterator[Servable]:
        """Lends a version to one request; it is not unloaded before the request ends.

        Args:
          name: the model.
          version: a version of it; None for the newest AVAILABLE one.
          label: a label of the model's config, in place of a version.

        Raises:
          ServingError: NOT_FOUND for a model or version that is not AVAILABLE, INVALID_ARGUMENT for an unknown label.
        """
        raise NotImplementedError
        yield

    def status(self, name: str, version: int | None = None, label: str | None = None) -> list[VersionStatus]:
        """Returns what became of the model's versions, newest first; of one version where it is named.

        Raises:
          ServingError: NOT_FOUND for a model or version that was never seen, INVALID_ARGUMENT for an unknown label.
        """
        raise NotImplementedError
