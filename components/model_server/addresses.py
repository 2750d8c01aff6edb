"""Addresses of model servers."""

from __future__ import annotations


def is_loopback(address: str) -> bool:
    """Says whether a server is on this machine, whatever proxy the environment names.

    Args:
      address: `host:port`.
    """
    host = address.rpartition(":")[0].strip("[]")
    return host in ("localhost", "::1") or host.startswith("127.")
