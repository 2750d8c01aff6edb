"""A network of a training's own: `tf.distribute.Server` listens on every interface and asks nobody who they are.

Where Linux allows it to an ordinary user, the processes of a local cluster live in a network namespace that has a
loopback interface and nothing else: no other process of the machine and no other host can reach them, and they reach
none.
"""

from __future__ import annotations

import fcntl
import functools
import logging
import shutil
import socket
import struct
import subprocess
import sys

_PREFIX = ("unshare", "--user", "--map-root-user", "--net")
_PROBE_S = 20
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1

_log = logging.getLogger(__name__)


@functools.lru_cache(maxsize=1)
def private_prefix() -> tuple[str, ...]:
    """Returns what to put before a command to run it in a network namespace; nothing where the system has none."""
    if sys.platform != "linux" or shutil.which(_PREFIX[0]) is None:
        return ()
    probe = "from evergreen.components.trainer import network; network.raise_loopback()"
    try:
        done = subprocess.run([*_PREFIX, sys.executable, "-c", probe], capture_output=True, timeout=_PROBE_S)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return _PREFIX if done.returncode == 0 else ()


def warn_of_open_ports() -> None:
    """Says that the ports of a local cluster are open to every host that reaches this machine."""
    _log.warning(
        "the training cluster's processes listen on every interface of this machine, without authentication: whoever "
        "reaches their ports can run code in them. This system allows no network namespace (unshare --user --net); "
        "keep other hosts away with a firewall."
    )


def raise_loopback() -> None:
    """Brings up the loopback interface of this process's network namespace.

    Raises:
      OSError: this process may not.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        (flags,) = struct.unpack("16xh14x", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))
