"""The meshfd command as the tests use it, and the way from a program to a server through it.

With MESHFD_TEST_BARE=1 programs run without meshfd and are given the servers' real addresses:
that shows whether a test program is right. Tests that are about meshfd alone are skipped then.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import dataclass

import pytest

from tests.support.need import require
from tests.support.servers import port_of

COMMAND = (sys.executable, "-m", "meshfd")
VIRTUAL = "127.66.0.1"  # on loopback, and nobody listens there: a redirect that fails stays here
VIRTUAL_PORT = 80

# Both kinds of tracking, each without and with --strict.
KINDS: tuple[tuple[str, ...], ...] = (
    (),
    ("--strict",),
    ("--track", "create"),
    ("--track", "create", "--strict"),
)

Word = str | os.PathLike[str]


def written(host: str, port: int) -> str:
    """Return an address as meshfd's options have it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def address_of(listening: socket.socket) -> str:
    """Return a listening socket's address as meshfd's options have it."""
    return written(listening.getsockname()[0], port_of(listening))


@dataclass(frozen=True, slots=True)
class Way:
    """What a program connects to, and meshfd's options that lead from there to a server."""

    host: str
    port: int
    options: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, str]:
        """Host and port as a command's arguments."""
        return self.host, str(self.port)


def way_to(*targets: str, host: str = VIRTUAL, port: int = VIRTUAL_PORT) -> Way:
    """Return a way from a virtual address to endpoints as meshfd's options have them."""
    return Way(host, port, ("--route", f"{written(host, port)}={','.join(targets)}"))


@dataclass(frozen=True, slots=True)
class Meshfd:
    """Makes command lines; ``bare``: without meshfd."""

    bare: bool

    def exec(self, *command: Word, options: tuple[str, ...] = ()) -> list[str]:
        """Return ``meshfd exec OPTIONS -- COMMAND``."""
        words = [os.fspath(word) for word in command]
        return words if self.bare else [*COMMAND, "exec", *options, "--", *words]

    def way(self, *listening: socket.socket, host: str = VIRTUAL, port: int = VIRTUAL_PORT) -> Way:
        """Return a way to listening sockets (bare: to the first) by a virtual address."""
        if self.bare:
            return direct_way(listening[0])
        return way_to(*map(address_of, listening), host=host, port=port)

    def need(self) -> None:
        """Skip a test that is about meshfd in a run without it."""
        if self.bare:
            pytest.skip("about meshfd, which this run is without")


def direct_way(listening: socket.socket) -> Way:
    """Return the way to a server without any redirection."""
    host, port = listening.getsockname()[:2]
    return Way(host, port)


def without_proxies() -> dict[str, str]:
    """Return our environment without what would make a client ask a proxy."""
    return {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}


def find_meshfd() -> Meshfd:
    """Return the installed meshfd, having tried it."""
    if os.environ.get("MESHFD_TEST_BARE") == "1":
        return Meshfd(bare=True)
    trial = subprocess.run(
        [*COMMAND, "exec", "--", "true"],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    require(trial.returncode == 0, f"meshfd does not run here: {trial.stderr.strip()[-500:]}")
    return Meshfd(bare=False)
