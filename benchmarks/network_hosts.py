"""Hosts on one machine: network namespaces, joined by veth pairs and a bridge, whose links `tc` slows down.

Everything happens inside a user and network namespace of the program's own, so an ordinary user may do it where the
system allows them, and nothing is left when the program ends.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

_INSIDE = "EVERGREEN_BENCHMARK_NETWORK"
_BURST = "32kb"  # what a link lets through at full speed before it is slowed
_QUEUE = "2s"
_NEEDED = ("unshare", "ip", "tc")


def enter() -> None:
    """Starts this program again inside namespaces of its own, unless it is there already.

    Raises:
      SystemExit: the system has no such namespaces or no `ip` and `tc` (Debian's package iproute2).
    """
    if os.environ.get(_INSIDE):
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
        return
    missing = [name for name in _NEEDED if shutil.which(name) is None]
    if missing:
        sys.exit(f"{', '.join(missing)} not found: install iproute2 and util-linux")
    prefix = ["unshare", "--user", "--map-root-user", "--net", "--mount"]
    if subprocess.run([*prefix, "true"], capture_output=True).returncode:
        sys.exit("this system does not allow namespaces (unshare --user --net --mount)")
    os.environ[_INSIDE] = "1"
    os.execvp(prefix[0], [*prefix, sys.executable, *sys.argv])


class Host:
    """A host of the network.

    Args:
      number: from 1 on; the last part of its address.

    Attributes:
      name: of its namespace.
      address: its IP address.
    """

    def __init__(self, number: int):
        self.name, self.address, self._outside = f"host{number}", f"10.77.0.{number}", f"link{number}"
        _run("ip", "netns", "add", self.name)
        _run("ip", "link", "add", self._outside, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        _run("ip", "link", "set", self._outside, "master", "bridge0", "up")
        for words in (["link", "set", "lo", "up"], ["addr", "add", f"{self.address}/24", "dev", "eth0"]):
            _run("ip", "-n", self.name, *words)
        _run("ip", "-n", self.name, "link", "set", "eth0", "up")

    def command(self, words: Sequence[str]) -> list[str]:
        """Returns a command that runs on this host."""
        return ["ip", "netns", "exec", self.name, *words]

    def limit(self, rate: str | None) -> None:
        """Slows the host's link down, in both directions; None lets it go as fast as it can.

        Args:
          rate: as `tc` takes it, for example `100mbit`.
        """
        for inside, device in (([], self._outside), (["-n", self.name], "eth0")):
            subprocess.run(["tc", *inside, "qdisc", "del", "dev", device, "root"], capture_output=True)
            if rate is not None:
                shape = ["tbf", "rate", rate, "burst", _BURST, "latency", _QUEUE]
                _run("tc", *inside, "qdisc", "add", "dev", device, "root", *shape)

    def moved(self) -> tuple[int, int]:
        """Returns the bytes that the host has received and sent so far."""
        text = subprocess.run(self.command(["cat", "/proc/net/dev"]), capture_output=True, text=True, check=True).stdout
        (line,) = (line for line in text.splitlines() if line.strip().startswith("eth0:"))
        fields = line.partition(":")[2].split()
        return int(fields[0]), int(fields[8])


def make(count: int) -> list[Host]:
    """Makes hosts that reach each other, and nothing else.

    Args:
      count: how many.
    """
    os.makedirs("/run/netns", exist_ok=True)
    _run("ip", "link", "add", "bridge0", "type", "bridge")
    _run("ip", "link", "set", "bridge0", "up")
    return [Host(number) for number in range(1, count + 1)]


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
