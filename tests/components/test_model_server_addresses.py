"""Which model servers are on this machine, and that no proxy is asked for them."""

from __future__ import annotations

import http.server
import threading

import pytest

from evergreen.components.model_server.addresses import is_loopback
from evergreen.components.pusher import trial


@pytest.mark.parametrize("address", ["localhost:8500", "127.0.0.1:8500", "127.1.2.3:1", "[::1]:8500"])
def test_this_machine(address):
    assert is_loopback(address)


@pytest.mark.parametrize("address", ["serving:8500", "10.0.0.1:8500", "localhost.example.com:8500", "[fe80::1]:8500"])
def test_others(address):
    assert not is_loopback(address)


def test_metrics_of_this_machine_are_read_without_a_proxy(monkeypatch):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b':tensorflow:serving:request_count{model_name="m",status="OK"} 3\n')

        def log_message(self, *arguments):
            pass

    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert trial.scrape(f"http://127.0.0.1:{server.server_port}/metrics", "m") is not None
        server.shutdown()
