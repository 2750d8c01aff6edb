"""Which versions of which models answer requests: the configuration in force, its labels, and leases for requests."""

from __future__ import annotations

import contextlib
import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from tensorflow_serving.config import model_server_config_pb2

from evergreen.serving import errors, model_config
from evergreen.serving.model import Hooks, Model
from evergreen.serving.options import ManagerOptions
from evergreen.serving.servable import Servable
from evergreen.serving.status import AVAILABLE, VersionStatus

__all__ = ["Manager", "ManagerOptions", "VersionStatus"]

_LOG = logging.getLogger(__name__)


class Manager:
    """Serves the versions that a ModelServerConfig asks for.

    A base path that is missing holds up its own model only; tensorflow_model_server stops the updates of all models.

    Args:
      options: see ManagerOptions.
      warm_up: called with each version after it is loaded and before it is AVAILABLE, unless
        `enable_model_warmup` is off; an exception fails the load.
      on_load: called with model, version and seconds after each successful load, warm-up included.
      on_queued: called with model and seconds for each request that waited in a batching queue.
    """

    def __init__(
        self,
        options: ManagerOptions,
        warm_up: Callable[[Servable], None] = lambda servable: None,
        on_load: Callable[[str, int, float], None] = lambda model, version, seconds: None,
        on_queued: Callable[[str, float], None] = lambda model, seconds: None,
    ):
        self._options = options
        self._hooks = Hooks(warm_up, on_load, on_queued)
        self._models: dict[str, Model] = {}
        self._leaving: dict[str, Model] = {}
        self._labels: dict[str, dict[str, int]] = {}
        self._config: Any = None
        self._reloading = threading.Lock()
        self._stop = threading.Event()
        self._file_thread: threading.Thread | None = None

    def start(self, config: Any) -> None:
        """Takes the first configuration (a ModelServerConfig) and starts to poll. Returns before the loads are done.

        Its labels need no AVAILABLE version yet: a server that starts again has the labels it had.

        Raises:
          ServingError: INVALID_ARGUMENT or UNIMPLEMENTED for a config that cannot be served.
        """
        from evergreen.serving import runtime  # noqa: F401

        # What is loaded by now stays for ever: the collections after each swap need not look through all of TensorFlow,
        # which takes 0.2 s, for which no request is answered.
        gc.collect()
        gc.freeze()
        self._take(config, first=True)
        seconds = self._options.model_config_file_poll_wait_seconds
        if self._options.model_config_file and seconds > 0:
            self._file_thread = threading.Thread(target=self._watch_file, name="model_config_file", daemon=True)
            self._file_thread.start()

    def stop(self, seconds: float = 30.0) -> None:
        """Ends polling and loads, and unloads everything once its requests have ended; waits for `seconds` at most."""
        self._stop.set()
        with self._reloading:
            models = [*self._models.values(), *self._leaving.values()]
            for model in models:
                model.stop()
        end = time.monotonic() + seconds
        for model in models:
            model.join(max(end - time.monotonic(), 0.0))

    def reload(self, config: Any) -> None:
        """Takes a ModelServerConfig in place of the present one, and waits until models that are new to it were loaded.

        As in tensorflow_model_server, models, base paths and policies are in force when a label is refused; the labels
        stay as they were. So first the policy, then, once the version is AVAILABLE, the label.

        Raises:
          ServingError: INVALID_ARGUMENT or UNIMPLEMENTED for a config that cannot be served (nothing changes);
            FAILED_PRECONDITION for a label of a version that is not AVAILABLE; UNKNOWN for a new model of which no
            version could be loaded.
        """
        self._take(config, first=False)

    def current_config(self) -> Any:
        """Returns a copy of the ModelServerConfig in force, with the labels in force."""
        copy = model_server_config_pb2.ModelServerConfig()
        if self._config is not None:
            copy.CopyFrom(self._config)
        return copy

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
        version = self._resolve(name, version, label)
        model = self._models.get(name)
        if model is None:
            raise _not_served(name, version)
        with model.lease(version) as servable:
            if servable is None:
                raise _not_served(name, version)
            yield servable

    def status(self, name: str, version: int | None = None, label: str | None = None) -> list[VersionStatus]:
        """Returns what became of the model's versions, newest first; of one version where it is named.

        Raises:
          ServingError: NOT_FOUND for a model or version that was never seen, INVALID_ARGUMENT for an unknown label.
        """
        version = self._resolve(name, version, label)
        model = self._models.get(name) or self._leaving.get(name)
        known = model.status() if model else []
        if version is not None:
            known = [one for one in known if one.version == version]
        if not known:
            which = "any versions" if version is None else f"version {version}"
            raise errors.not_found(f"Could not find {which} of model {name}")
        return known

    def _resolve(self, name: str, version: int | None, label: str | None) -> int | None:
        if not label:
            return version
        try:
            return self._labels.get(name, {})[label]
        except KeyError:
            raise errors.invalid(f"Unrecognized servable version label: {label}") from None

    def _take(self, config: Any, first: bool) -> None:
        model_config.check(config)
        with self._reloading:
            if self._stop.is_set():
                raise errors.unavailable("The server is shutting down.")
            wanted = {model.name: model for model in config.model_config_list.config}
            new = self._change_models(wanted)
            in_force = model_server_config_pb2.ModelServerConfig()
            in_force.CopyFrom(config)
            # Labels of models that are gone go with them, whatever becomes of the new ones.
            self._labels = {name: labels for name, labels in self._labels.items() if name in wanted}
            for model in in_force.model_config_list.config:
                _set_labels(model, self._labels.get(model.name, {}))
            self._config = in_force
            if not first:
                self._await_loads(new)
            labels = {name: dict(model.version_labels) for name, model in wanted.items() if model.version_labels}
            if not first:
                self._check_labels(labels)
            self._labels = labels
            with_labels = model_server_config_pb2.ModelServerConfig()
            with_labels.CopyFrom(config)
            self._config = with_labels

    def _change_models(self, wanted: dict[str, Any]) -> list[Model]:
        """Adds, changes and takes away models; returns those that are new."""
        new = []
        models = dict(self._models)
        for name in models.keys() - wanted.keys():
            self._leaving[name] = models.pop(name)
            self._leaving[name].stop()
        for name, config in wanted.items():
            if name in models:
                models[name].update(config)
            else:
                models[name] = Model(config, self._options, self._hooks)
                new.append(models[name])
        self._models = models  # at once: a request sees the models of one configuration
        for model in new:
            model.start()
        return new

    def _await_loads(self, models: list[Model]) -> None:
        for model in models:
            status = model.wait_decided()
            if status is None or status.state != AVAILABLE:
                why = f"version: {status.version} due to error: {status.message}" if status else "no versions found"
                raise errors.ServingError(
                    grpc.StatusCode.UNKNOWN,
                    f"1 servable(s) did not become available: {{{{name: {model.name} {why}}}}}",
                )

    def _check_labels(self, labels: dict[str, dict[str, int]]) -> None:
        """Refuses a label of a version that is not AVAILABLE, unless it is a new one and such are allowed."""
        for name, by_label in labels.items():
            for label, version in by_label.items():
                if self._models[name].is_available(version):
                    continue
                moved = self._labels.get(name, {}).get(label, version) != version
                if moved or not self._options.allow_version_labels_for_unavailable_models:
                    raise errors.failed_precondition(
                        f"Request to assign label {label} to version {version} of model {name}, which is not "
                        "currently available for inference"
                    )

    def _watch_file(self) -> None:
        """Takes the model config file whenever its text changes, and again as long as it is refused."""
        file, seconds = self._options.model_config_file, self._options.model_config_file_poll_wait_seconds
        assert file is not None
        refused: str | None = None
        while not self._stop.wait(seconds):
            try:
                config = model_config.read(file)
                if refused is not None or config != self._config:
                    self.reload(config)
                    _LOG.info("Took the changed %s", file)
                refused = None
            except errors.ServingError as error:
                if error.message != refused:
                    _LOG.error("%s is not in force: %s", file, error.message)
                refused = error.message
            except Exception:
                _LOG.exception("Taking %s failed", file)


def _not_served(name: str, version: int | None) -> errors.ServingError:
    which = f"Latest({name})" if version is None else f"Specific({name}, {version})"
    return errors.not_found(f"Servable not found for request: {which}")


def _set_labels(model: Any, labels: dict[str, int]) -> None:
    model.version_labels.clear()
    for label, version in labels.items():
        model.version_labels[label] = version
