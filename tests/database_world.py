"""MariaDB and PostgreSQL servers of a test's own, from the machine's packages, on free ports of the loopback.

PostgreSQL refuses to run as root; as root the server runs as `nobody`.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SECONDS = 60
DATABASE, USER, PASSWORD = "evergreen", "evergreen", "a secret' of \\ one"


@dataclass(frozen=True)
class Server:
    """A running database server.

    Attributes:
      kind: `mysql` or `postgresql`, as in the configuration's `metadata`.
      port: where it listens on 127.0.0.1.
      tls: whether it takes no other connections.
    """

    kind: str
    port: int
    tls: bool = False

    @property
    def url(self) -> str:
        """What stands under `metadata`."""
        return f"{self.kind}://{USER}@127.0.0.1:{self.port}/{DATABASE}{'?tls=unverified' if self.tls else ''}"


def programs(kind: str) -> dict[str, str] | None:
    """Finds the programs of a server; None where it is not installed."""
    names = {
        "mysql": ("mariadbd", "mariadb-install-db", "mariadb"),
        "postgresql": ("initdb", "postgres", "psql"),
    }[kind]
    folders = [*os.get_exec_path(), "/usr/sbin", *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin")))]
    found = {name: shutil.which(name, path=os.pathsep.join(folders)) for name in names}
    return {name: path for name, path in found.items() if path} if all(found.values()) else None


@contextlib.contextmanager
def running(kind: str, folder: Path, tls: bool = False) -> Iterator[Server]:
    """Runs a server with an empty database for the time of a block.

    Args:
      kind: `mysql` or `postgresql`.
      folder: where it keeps its files; empty.
      tls: MariaDB refuses connections over the network without TLS; its certificate is its own.
    """
    from evergreen.components.model_server.process import free_port  # gRPC, which few tests need

    found = programs(kind)
    assert found is not None
    server = Server(kind, free_port(), tls)
    start = _mariadb if kind == "mysql" else _postgresql
    process = start(found, folder, server.port, *(_tls_options(folder) if tls else ()))
    try:
        yield server
    finally:
        process.send_signal(signal.SIGINT if kind == "postgresql" else signal.SIGTERM)  # without waiting for clients
        process.wait(SECONDS)


def _tls_options(folder: Path) -> list[str]:
    """Makes a certificate that nobody vouches for."""
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=evergreen"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    subprocess.run([*command, *files], check=True, capture_output=True)
    own = [f"--ssl-cert={folder / 'certificate.pem'}", f"--ssl-key={folder / 'key.pem'}"]
    return ["--require-secure-transport=ON", *own]


def _mariadb(found: dict[str, str], folder: Path, port: int, *options: str) -> subprocess.Popen[bytes]:
    data, socket_file = folder / "data", f"/tmp/evergreen-{port}.sock"
    root = ["--user=root"] if os.getuid() == 0 else []
    install = [found["mariadb-install-db"], "--no-defaults", f"--datadir={data}", *root]
    subprocess.run([*install, "--auth-root-authentication-method=normal"], check=True, capture_output=True)
    process = subprocess.Popen(
        [
            *(found["mariadbd"], "--no-defaults", f"--datadir={data}", f"--socket={socket_file}", *root),
            *(f"--port={port}", "--bind-address=127.0.0.1", f"--log-error={folder / 'log'}"),
            *options,
        ]
    )
    _until_it_listens(port, process, folder / "log")
    sql = (
        f"CREATE DATABASE {DATABASE}; CREATE USER '{USER}'@'localhost' IDENTIFIED BY '{_escaped(PASSWORD)}'; "
        f"GRANT ALL ON {DATABASE}.* TO '{USER}'@'localhost';"
    )
    client = [found["mariadb"], "--no-defaults", f"--socket={socket_file}", "-uroot", "-e", sql]
    subprocess.run(client, check=True)
    return process


def _postgresql(found: dict[str, str], folder: Path, port: int) -> subprocess.Popen[bytes]:
    data, log = folder / "data", folder / "log"
    data.mkdir()
    other: dict[str, int] = {}
    if os.getuid() == 0:
        nobody = pwd.getpwnam("nobody")
        other = {"user": nobody.pw_uid, "group": nobody.pw_gid}
        for path in (folder, data):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        for path in folder.parents:  # pytest's folders are the user's alone
            with contextlib.suppress(OSError):
                os.chmod(path, path.stat().st_mode | 0o011)
    password = folder / "password"
    password.write_text(PASSWORD)
    if other:
        os.chown(password, other["user"], other["group"])
    subprocess.run(
        [found["initdb"], "-D", str(data), "-U", USER, "-A", "scram-sha-256", f"--pwfile={password}", "-E", "UTF8"],
        check=True,
        capture_output=True,
        cwd="/",
        **other,  # type: ignore[call-overload]
    )
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [found["postgres"], "-D", str(data), "-p", str(port), "-c", "listen_addresses=127.0.0.1", "-k", ""],
            stdout=file,
            stderr=file,
            cwd="/",
            **other,  # type: ignore[call-overload]
        )
    _until_it_listens(port, process, log)
    connection = f"host=127.0.0.1 port={port} user={USER} dbname=postgres password='{_escaped(PASSWORD)}'"
    deadline = time.monotonic() + SECONDS
    while subprocess.run(
        [found["psql"], connection, "-c", f"CREATE DATABASE {DATABASE}"], capture_output=True
    ).returncode:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
    return process


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


def _until_it_listens(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    process.kill()
    raise AssertionError(log.read_text() if log.exists() else "the server did not start")
