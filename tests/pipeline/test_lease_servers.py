"""The lease on MariaDB and PostgreSQL: of several processes that stand for hosts one runs, as long as it lives."""

from __future__ import annotations

import subprocess
import sys
import time

import database_world
import pytest

from evergreen.components.errors import LockHeld
from evergreen.pipeline import connection
from evergreen.pipeline.migration import servers

WATCH_S = 3.0
# A host of the given name: asks for the lease at the first line that it reads, gives it back at the second.
HOST = """
import socket, sys
socket.gethostname = lambda: sys.argv[2]
from evergreen.components.errors import EvergreenError
from evergreen.pipeline import connection
from evergreen.pipeline.lease import Lease
from evergreen.pipeline.store import Store
store = Store(connection.parse(sys.argv[1], ""), "flights")
if sys.argv[3] == "connected":
    store.mlmd
else:
    import ml_metadata
print("ready", flush=True)
sys.stdin.readline()
try:
    with Lease(store, beat_s=0.2, watch_s=float(sys.argv[4])):
        print("held", flush=True)
        sys.stdin.readline()
except EvergreenError as error:
    print(type(error).__name__, error.exit_status, str(error).replace(chr(10), " | "), flush=True)
"""
REFUSED = f"{LockHeld.__name__} {LockHeld.exit_status} "


class Host:
    """A process of the name of a host, connected to the server or about to be."""

    def __init__(self, url: str, name: str, connected: bool):
        self.name = name
        arguments = [url, name, "connected" if connected else "new", str(WATCH_S)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOST, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def says(self) -> str:
        return self.process.stdout.readline().rstrip("\n")

    def go(self) -> None:
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> tuple[int, str]:
        """Lets it give the lease back; its exit status and what it wrote to stderr."""
        errors = self.process.communicate("\n")[1]
        return self.process.returncode, errors


@pytest.fixture
def hosts(database_server):
    """Starts hosts that are ready to ask."""
    started = []

    def start(*names: str, connected: bool = True) -> list[Host]:
        new = [Host(database_server.url, name, connected) for name in names]
        started.extend(new)
        assert [host.says() for host in new] == ["ready"] * len(new)
        return new

    yield start
    for host in started:
        host.process.kill()
        host.process.communicate()


def asked_at_once(hosts: list[Host]) -> tuple[Host, dict[str, str]]:
    """Lets all ask: the one that got the lease, and what the others were told, by name."""
    for host in hosts:
        host.go()
    answers = {host: host.says() for host in hosts}
    holders = [host for host, answer in answers.items() if answer == "held"]
    assert len(holders) == 1, {host.name: answer for host, answer in answers.items()}
    return holders[0], {host.name: answer for host, answer in answers.items() if host is not holders[0]}


def end_connections(server: database_world.Server) -> None:
    """Ends all connections to the server, as a restart of it or a firewall does."""
    own = servers.connect(connection.parse(server.url, ""))
    if server.kind == "mysql":
        for (number,) in own._ask("SELECT id FROM information_schema.processlist WHERE id <> CONNECTION_ID()"):
            own._run(f"KILL {number}")
    else:
        own._ask(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE usename = current_user AND pid <> pg_backend_pid()"
        )
    own.close()


@pytest.mark.parametrize("connected", [False, True], ids=["of an empty database", "of an empty store"])
def test_of_several_hosts_that_ask_at_once_one_runs(hosts, connected):
    if connected:
        (first,) = hosts("first")  # makes the tables, and asks for nothing
        first.process.kill()
    for names in (("a", "b", "c", "d"), ("e", "f", "g", "h")):
        several = hosts(*names, connected=connected)
        holder, others = asked_at_once(several)
        assert all(answer.startswith(REFUSED) for answer in others.values()), others
        assert all("another host" in answer or f"on {holder.name}" in answer for answer in others.values()), others
        assert [host.end() for host in several] == [(0, "")] * 4, "nothing but the refusal reaches the terminal"


@pytest.mark.slow
def test_a_holder_that_goes_on_renews_it_and_one_that_was_killed_loses_it(hosts):
    (holder,) = hosts("first")
    holder.go()
    assert holder.says() == "held"
    time.sleep(WATCH_S + 1)  # longer than a lease lives without a beat
    (asking,) = hosts("second")
    asking.go()
    assert asking.says().startswith(REFUSED)
    three = hosts("third", "fourth", "fifth")
    holder.process.kill()
    holder.process.wait()
    began = time.monotonic()
    _, others = asked_at_once(three)
    assert time.monotonic() - began > WATCH_S
    assert all(answer.startswith(REFUSED) for answer in others.values()), others


def test_a_holder_whose_connection_broke_goes_on_renewing_it(hosts, database_server):
    (holder,) = hosts("first")
    holder.go()
    assert holder.says() == "held"
    end_connections(database_server)
    (asking,) = hosts("second")
    asking.go()
    assert asking.says().startswith(REFUSED)
    end_connections(database_server)
    assert holder.end()[0] == 0
    (next_one,) = hosts("third")
    next_one.go()
    assert next_one.says() == "held", "it was given back over a new connection"
