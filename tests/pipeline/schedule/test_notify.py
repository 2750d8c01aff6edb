"""Who is told of what: commands, signed webhooks, attempts, and secrets that stay secret."""

from __future__ import annotations

import hashlib
import hmac
import http.server
import json
import sys
import threading

import pytest

from evergreen.pipeline.schedule import notify
from evergreen.pipeline.schedule.notify import Notifier
from evergreen.pipeline.settings_schedule import Notification

EVENT = {"event": "published", "message": 'version 7, "auc" 0.7', "model": "flights", "version": 7}


class Receiver:
    """A web server that keeps what it is sent, and answers what it is told to."""

    def __init__(self):
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[int] = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                content = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests.append((self.path, dict(self.headers), content))
                status = receiver.answers.pop(0) if receiver.answers else 200
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


def entry(**values) -> Notification:
    return Notification.model_validate(values)


def send(*entries: Notification, event=EVENT, pause_s: float = 0.01) -> list[str]:
    """Sends an event to everybody, and returns what was said about it."""
    says: list[str] = []
    notifier = Notifier(says.append, pause_s)
    notifier.send(entries, event)
    notifier.close()
    return says


def test_a_webhook_gets_the_event_as_json(receiver):
    assert send(entry(webhook=receiver.url + "/hook")) == []
    ((path, headers, content),) = receiver.requests
    assert path == "/hook"
    assert headers["Content-Type"] == "application/json"
    assert json.loads(content) == EVENT


def test_it_is_signed(receiver, monkeypatch):
    monkeypatch.setenv("HOOK_SECRET", "s3cret")
    send(entry(webhook=receiver.url, secret_env="HOOK_SECRET"))
    ((_, headers, content),) = receiver.requests
    signed = headers["X-Evergreen-Timestamp"].encode() + b"." + content
    expected = hmac.new(b"s3cret", signed, hashlib.sha256).hexdigest()
    assert headers["X-Evergreen-Signature"] == f"sha256={expected}"


def test_it_is_tried_again(receiver):
    receiver.answers = [500, 503]
    assert send(entry(webhook=receiver.url)) == []
    assert len(receiver.requests) == 3


def test_a_template_takes_the_place_of_the_json(receiver, tmp_path):
    (tmp_path / "slack.json").write_text('{"text": "${model}: ${message} (${version}) ${unknown} $5"}')
    send(entry(webhook=receiver.url, template=str(tmp_path / "slack.json")))
    assert json.loads(receiver.requests[0][2]) == {"text": 'flights: version 7, "auc" 0.7 (7) ${unknown} $5'}


def test_what_was_signed_for_one_address_goes_to_no_other(receiver):
    receiver.answers = [302] * notify.ATTEMPTS
    (said,) = send(entry(webhook=receiver.url + "/hook"))
    assert {path for path, _, _ in receiver.requests} == {"/hook"}
    assert "302" in said


def test_no_secret_comes_into_the_log(receiver, monkeypatch):
    monkeypatch.setenv("HOOK_PATH", "T0KEN")
    monkeypatch.setenv("HOOK_SECRET", "s3cret")
    receiver.answers = [404] * notify.ATTEMPTS
    (said,) = send(entry(webhook=receiver.url + "/${HOOK_PATH}", secret_env="HOOK_SECRET"))
    assert receiver.requests[0][0] == "/T0KEN"
    assert "404" in said
    assert "T0KEN" not in said and "s3cret" not in said


def test_nor_where_nobody_answers_or_the_url_is_none(monkeypatch):
    for url in ("http://127.0.0.1:9/T0KEN", "http://[T0KEN/x", "T0KEN"):
        monkeypatch.setenv("HOOK_URL", url)
        (said,) = send(entry(webhook="${HOOK_URL}"))
        assert "T0KEN" not in said


def test_a_variable_that_is_missing_is_named():
    (said,) = send(entry(webhook="${NO_SUCH_HOOK}"))
    assert "NO_SUCH_HOOK is not set" in said


def test_a_command_gets_the_event_on_standard_input(tmp_path):
    program = f"import sys; open({str(tmp_path / 'got')!r}, 'w').write(sys.stdin.read())"
    assert send(entry(command=[sys.executable, "-c", program])) == []
    assert json.loads((tmp_path / "got").read_text()) == EVENT


def test_a_command_that_fails_is_said():
    (said,) = send(entry(command=[sys.executable, "-c", "raise SystemExit(3)"]))
    assert "exit status 3" in said
    (said,) = send(entry(command=["/no/such/program"]))
    assert "No such file" in said


def test_only_those_who_asked_are_told_and_one_that_fails_keeps_no_other_from_it(receiver):
    send(
        entry(command=["/no/such/program"]),
        entry(webhook=receiver.url + "/failures", on=["failed", "paused"]),
        entry(webhook=receiver.url + "/all"),
    )
    assert [path for path, _, _ in receiver.requests] == ["/all"]


@pytest.mark.parametrize(
    "values",
    [
        {"webhook": "https://user:password@host/x"},
        {"webhook": "ftp://host/x"},
        {"webhook": "${not a name}"},
        {"webhook": "https://host/x", "secret_env": "s3cret-value"},
        {"webhook": "https://host/x", "on": ["publised"]},
        {"command": []},
    ],
)
def test_what_cannot_be_meant_is_refused(values):
    with pytest.raises(ValueError):
        entry(**values)
