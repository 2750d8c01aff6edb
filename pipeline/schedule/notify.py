"""Telling people and programs what happened: a command or a webhook, from a thread of its own.

A webhook's body is signed: the header `X-Evergreen-Signature` is `sha256=` and the HMAC-SHA256, in hexadecimal, of the
header `X-Evergreen-Timestamp`, a full stop and the body, by the secret. Secrets, and parts of a URL that are secret,
come from environment variables; neither they nor a URL behind its host are ever written to a log.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import queue
import re
import string
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evergreen.pipeline.settings_schedule import Notification

ATTEMPTS = 4
_PAUSE_S = 2.0
_TIMEOUT_S = 20.0
_DRAIN_S = 15.0
_PLACE = re.compile(r"\$\{(\w+)\}")


class CannotTell(Exception):
    """A notification could not be delivered; its words hold no secret."""


class Notifier:
    """Delivers events in their order, in the background.

    Args:
      say: writes a line to the scheduler's log.
      pause_s: seconds before the second attempt; each one after is twice as long.
    """

    def __init__(self, say: Callable[[str], None], pause_s: float = _PAUSE_S):
        self._say = say
        self._pause_s = pause_s
        self._queue: queue.Queue[tuple[list[Notification], dict[str, Any], Callable[[str], None]] | None]
        self._queue = queue.Queue(maxsize=1000)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="notify", daemon=True)
        self._thread.start()

    def send(
        self, entries: Sequence[Notification], event: Mapping[str, Any], done: Callable[[str], None] = lambda _: None
    ) -> None:
        """Queues an event for everybody who asked for it.

        Args:
          entries: the section `schedule.notify`.
          event: `id`, `event`, `message` and further plain values.
          done: is called with the id, from another thread, when everybody was told or given up.
        """
        try:
            self._queue.put_nowait(([entry for entry in entries if event["event"] in entry.on], dict(event), done))
        except queue.Full:
            self._say(f"nobody was told of `{event['event']}`: too many notifications wait")

    def close(self) -> None:
        """Delivers what waits, for some seconds at most, and ends."""
        self._closing.set()
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            return
        self._thread.join(_DRAIN_S)

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            entries, event, done = item
            for entry in entries:
                self._tell(entry, event)
            done(str(event.get("id", "")))

    def _tell(self, entry: Notification, event: Mapping[str, Any]) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                deliver(entry, event)
                return
            except CannotTell as error:
                why = str(error)
            except Exception as error:  # whatever it is, the next event must go out
                why = type(error).__name__
            if attempt < ATTEMPTS:
                self._closing.wait(self._pause_s * 2 ** (attempt - 1))
        self._say(f"{_target(entry)} was not told of `{event['event']}`: {why}")


def deliver(entry: Notification, event: Mapping[str, Any]) -> None:
    """Tells one receiver.

    Args:
      entry: the receiver.
      event: what happened.

    Raises:
      CannotTell: it could not be told.
    """
    if entry.command is not None:
        _run(entry.command, event)
    else:
        _post(entry, event)


def body(template: str | None, event: Mapping[str, Any]) -> bytes:
    """Returns what a webhook receives.

    Args:
      template: text with `${event}`, `${message}` and the like, in whose place the values stand as they do inside of a
        JSON string; None for the event as JSON.
      event: what happened.
    """
    if template is None:
        return json.dumps(dict(event), default=str).encode()
    words = {key: value if isinstance(value, str) else json.dumps(value, default=str) for key, value in event.items()}
    places = {key: json.dumps(word)[1:-1] for key, word in words.items()}
    return string.Template(template).safe_substitute(places).encode()


def signature(secret: str, timestamp: str, content: bytes) -> str:
    """Returns the value of the header `X-Evergreen-Signature`.

    Args:
      secret: the shared secret.
      timestamp: seconds since 1970, as in the header `X-Evergreen-Timestamp`.
      content: the body.
    """
    digest = hmac.new(secret.encode(), timestamp.encode() + b"." + content, hashlib.sha256)
    return f"sha256={digest.hexdigest()}"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """What was signed for one address is not sent to another one."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _post(entry: Notification, event: Mapping[str, Any]) -> None:
    assert entry.webhook is not None
    url = _PLACE.sub(lambda found: _variable(found[1]), entry.webhook)
    try:
        template = Path(entry.template).read_text(encoding="utf-8") if entry.template else None
    except OSError as error:
        raise CannotTell(f"the template {entry.template}: {error.strerror}") from None
    content = body(template, event)
    headers = {"Content-Type": "application/json", "User-Agent": "evergreen", "X-Evergreen-Event": str(event["event"])}
    if entry.secret_env is not None:
        timestamp = str(int(time.time()))
        headers["X-Evergreen-Timestamp"] = timestamp
        headers["X-Evergreen-Signature"] = signature(_variable(entry.secret_env), timestamp, content)
    try:
        request = urllib.request.Request(url, data=content, headers=headers, method="POST")
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=_TIMEOUT_S):
            pass
    except urllib.error.HTTPError as error:
        error.close()
        raise CannotTell(f"it answered {error.code}") from None
    except urllib.error.URLError as error:
        raise CannotTell(str(getattr(error.reason, "strerror", None) or type(error.reason).__name__)) from None
    except (OSError, ValueError) as error:
        raise CannotTell(type(error).__name__) from None


def _run(command: Sequence[str], event: Mapping[str, Any]) -> None:
    try:
        done = subprocess.run(
            list(command),
            input=json.dumps(dict(event), default=str).encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CannotTell(f"it took longer than {_TIMEOUT_S:.0f} s") from None
    except OSError as error:
        raise CannotTell(str(error.strerror)) from None
    if done.returncode != 0:
        raise CannotTell(f"it ended with exit status {done.returncode}")


def _variable(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise CannotTell(f"the environment variable {name} is not set")
    return value


def _target(entry: Notification) -> str:
    """Names a receiver without what may be secret in its address."""
    if entry.command is not None:
        return f"the command {entry.command[0]}"
    host = urllib.parse.urlsplit(entry.webhook or "").hostname
    return f"the webhook at {host}" if host and "$" not in host else "the webhook"
