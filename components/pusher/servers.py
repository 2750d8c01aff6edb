"""The servers of `publish.server`: whether they are there, what they say of a version, and their configuration."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from evergreen.components.errors import ConfigError, EvergreenError
from evergreen.components.pusher import watch_plan
from evergreen.components.pusher.watch_plan import Seen

POLL_S = 0.25
_REQUEST_S = 10.0
_RELOAD_S = 30.0
# A server looks for versions once a second by default; one published just now may be new to it.
_KNOWS_S = 5.0


class ServerAway(EvergreenError):
    """A server of `publish.server` does not answer; nothing is wrong with the model."""

    retryable = True


class Servers:
    """Servers of one model, by address. A context manager: leaving it ends the connections.

    Args:
      addresses: `host:port` each.
      model: the name by which they know the model.
    """

    def __init__(self, addresses: tuple[str, ...], model: str):
        self.addresses = addresses
        self.model = model
        self._clients: dict[str, Any] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def client(self, server: str) -> Any:
        """Returns the `Client` of a server."""
        if server not in self._clients:
            from evergreen.components.model_server.client import Client

            self._clients[server] = self._stack.enter_context(Client(server, _REQUEST_S))
        return self._clients[server]

    def see(self, server: str, version: int) -> Seen:
        """Asks a server for the state of a version."""
        from evergreen.components.model_server.client import ServerError

        try:
            found = next((s for s in self.client(server).status(self.model) if s.version == version), None)
        except ServerError as error:
            if error.code.name == "NOT_FOUND":
                return Seen(server, watch_plan.UNKNOWN)
            return Seen(server, watch_plan.UNREACHABLE, message=error.details)
        if found is None:
            return Seen(server, watch_plan.UNKNOWN)
        return Seen(server, found.state, found.code.name != "OK", found.message)

    def check_there(self, server: str, headline: str, step: str) -> None:
        """Refuses where a server does not answer.

        Args:
          server: its address.
          headline: what that keeps from being done.
          step: what holds until it answers.

        Raises:
          ServerAway: it does not answer.
        """
        seen = self.see(server, 0)
        if seen.state == watch_plan.UNREACHABLE:
            raise ServerAway(
                f"{headline}: the server {server} does not answer",
                seen.message,
                f"Start it (`evergreen serve`), or correct `publish.server`, and run again; {step}.",
            )

    def check_reads(self, server: str, base: Path, live: int) -> None:
        """Refuses where a server does not know what is live: it would never look at a new version either.

        Args:
          server: its address; it answers.
          base: the base path.
          live: the live version in it.

        Raises:
          ConfigError: the server does not know the version.
        """
        end = time.monotonic() + _KNOWS_S
        while self.see(server, live).state == watch_plan.UNKNOWN:
            if time.monotonic() >= end:
                raise ConfigError(
                    f"nothing was published: the server {server} does not read {base}",
                    f"{base} holds version {live}, and the server knows no such version of the model `{self.model}`",
                    f"Start it with --model_name={self.model} --model_base_path={base}, or with a models.config that "
                    "names both.",
                )
            time.sleep(POLL_S)

    def reload(self, config: Any) -> list[str]:
        """Gives every server its configuration.

        Args:
          config: a ModelServerConfig.

        Returns:
          What those said that did not take it within half a minute.
        """
        refused = []
        for server in self.addresses:
            words = self._reload(server, config)
            if words:
                refused.append(f"{server}: {words}")
        return refused

    def _reload(self, server: str, config: Any) -> str:
        from evergreen.components.model_server.client import ServerError

        end = time.monotonic() + _RELOAD_S
        while True:
            try:
                self.client(server).reload(config)
                return ""
            except ServerError as error:
                # A version that has just been loaded, or a server that has just started, may take a moment.
                if time.monotonic() >= end:
                    return error.details
            time.sleep(POLL_S)
