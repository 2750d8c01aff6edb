"""Where ML Metadata keeps its records: the key `metadata` of the configuration, understood.

No ml_metadata here; `store` turns a `Connection` into its ConnectionConfig. Passwords come from the environment and are
never held, printed or written.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

PASSWORD_VARIABLE = "EVERGREEN_METADATA_PASSWORD"
EXPECTED = "`sqlite`, `mysql://user@host:3306/database` or `postgresql://user@host:5432/database`"
# All that ML Metadata's MySQL client can do: it refuses every certificate that it is to verify.
TLS = "tls=unverified"
_PORTS = {"mysql": 3306, "postgresql": 5432}


@dataclass(frozen=True)
class Connection:
    """A metadata store's place.

    Attributes:
      kind: `sqlite`, `mysql` or `postgresql`.
      path: the SQLite file; empty for a server.
      host: the server's name, empty for SQLite like what follows.
      port: its port.
      database: the database's name.
      user: who connects.
      tls: whether the connection is encrypted; nobody checks the server's certificate.
    """

    kind: str
    path: str = ""
    host: str = ""
    port: int = 0
    database: str = ""
    user: str = ""
    tls: bool = False

    @property
    def password(self) -> str:
        """The password from the environment, empty where none is set."""
        return os.environ.get(PASSWORD_VARIABLE, "")

    @property
    def mend(self) -> str:
        """What to check where the store cannot be opened."""
        if self.kind == "sqlite":
            return "check `metadata` in the YAML and that the workspace can be written"
        tls = f"; a server that demands TLS needs `?{TLS}` behind it" if self.kind == "mysql" and not self.tls else ""
        return f"check `metadata` in the YAML, the password in {PASSWORD_VARIABLE}, and that the database exists{tls}"

    def describe(self) -> str:
        """Names the place for messages, without secrets."""
        if self.kind == "sqlite":
            return self.path
        return f"{self.kind}://{self.user}@{self.host}:{self.port}/{self.database}{f'?{TLS}' if self.tls else ''}"


def parse(text: str, sqlite_path: str | Path) -> Connection:
    """Understands the key `metadata`.

    Args:
      text: `sqlite`, or the URL of a MySQL or PostgreSQL database.
      sqlite_path: the file that `sqlite` stands for.

    Returns:
      The connection.

    Raises:
      ValueError: with what was expected; never with what was received, which may hold a password.
    """
    if text == "sqlite":
        return Connection("sqlite", path=str(sqlite_path))
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise ValueError(EXPECTED) from None
    database = unquote(url.path.strip("/"))
    if url.scheme not in _PORTS or not url.hostname or not url.username or not database or url.fragment:
        raise ValueError(EXPECTED)
    if url.query and url.scheme == "postgresql":
        raise ValueError("no `?`: ML Metadata's PostgreSQL client is built without TLS, a tunnel has to give it")
    if url.query not in ("", TLS):
        raise ValueError(f"`?{TLS}` or nothing behind the database of a MySQL URL")
    if url.password is not None:
        raise ValueError(f"a URL without a password, which belongs into the environment variable {PASSWORD_VARIABLE}")
    return Connection(
        kind=url.scheme,
        host=url.hostname,
        port=port or _PORTS[url.scheme],
        database=database,
        user=unquote(url.username),
        tls=url.query == TLS,
    )
