"""The places that sequences connect to, and the routes by which meshfd leads there.

Each place has its own port number, which its virtual address has too: so addresses in transcripts
carry the place's name. Who listens is inherited by the program, whose servers act between its
operations (tests/support/c/differ/server.c); the others are only there.
"""

from __future__ import annotations

import errno
import os
import random
import socket
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

from tests.support.command import written
from tests.support.netns import UNREACHABLE, make_unreachable
from tests.support.servers import LOOPBACK, free_port, port_of

UNREACHABLE_NAMES = {
    "EHOSTUNREACH": "hostunreach",
    "ENETUNREACH": "netunreach",
    "EACCES": "prohibited",
}
FIRST_UNREACHABLE_PORT = 9001
NO_FD = -1
PORTS = (20_000, 30_000)  # below those that the kernel gives to others (ip_local_port_range)


@dataclass(frozen=True, slots=True)
class Place:
    """Somewhere to connect to; ``virtual`` is the address that a route leads here from."""

    name: str
    host: str
    port: int
    virtual: str
    fd: int = NO_FD

    def word(self, *, redirected: bool) -> str:
        """Return it as differ's argument."""
        shown = self.virtual if redirected else self.host
        return f"{self.name}={shown},{self.port},{self.host},{self.fd}"

    @property
    def route(self) -> str:
        """The route from its virtual address."""
        return f"{written(self.virtual, self.port)}={written(self.host, self.port)}"


def _virtual(family: socket.AddressFamily, number: int) -> str:
    return f"127.66.1.{number}" if family == socket.AF_INET else f"fd66::{number}"


class Stage:
    """Places that last until the block's end."""

    def __init__(self) -> None:
        """Open everything."""
        self._stack = ExitStack()
        self._places: list[Place] = []
        self._next_port = random.randrange(*PORTS)
        for name in ("echo4", "greet4", "reset4"):
            self._listen(name, socket.AF_INET)
        self._refuse("refuse4", socket.AF_INET)
        self._hole("hole4", socket.AF_INET)
        if socket.has_ipv6 and _has_loopback_6():
            self._listen("echo6", socket.AF_INET6)
            self._refuse("refuse6", socket.AF_INET6)
            self._hole("hole6", socket.AF_INET6)
        if os.geteuid() == 0:
            self._unreachable()
        unix = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        self._unix = f"meshfd-differ-{os.getpid()}-{id(self)}"
        unix.bind("\0" + self._unix)
        unix.listen(64)
        unix.setblocking(False)
        self._unix_fd = unix.fileno()
        self.spare_port = free_port()  # nobody's: meshfd may listen there

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self._stack.close()

    def _add(self, name: str, listening: socket.socket, fd: int = NO_FD) -> None:
        virtual = _virtual(listening.family, len(self._places) + 1)
        host = LOOPBACK[listening.family]
        self._places.append(Place(name, host, port_of(listening), virtual, fd))

    def _bound(self, family: socket.AddressFamily) -> socket.socket:
        """Return a bound socket; no other place has its port."""
        bound = self._stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        while True:
            self._next_port += 1
            try:
                bound.bind((LOOPBACK[family], self._next_port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return bound

    def _listen(self, name: str, family: socket.AddressFamily) -> None:
        listening = self._bound(family)
        listening.listen(1024)
        listening.setblocking(False)
        self._add(name, listening, listening.fileno())

    def _refuse(self, name: str, family: socket.AddressFamily) -> None:
        self._add(name, self._bound(family))

    def _hole(self, name: str, family: socket.AddressFamily) -> None:
        """Add a place whose queue is full: it drops every SYN (see servers.SilentServer)."""
        listening = self._bound(family)
        listening.listen(0)
        self._stack.enter_context(socket.create_connection(listening.getsockname()[:2]))
        self._add(name, listening)

    def _unreachable(self) -> None:
        make_unreachable()
        for number, (error, host) in enumerate(UNREACHABLE.items()):
            name, port = UNREACHABLE_NAMES[error], FIRST_UNREACHABLE_PORT + number
            virtual = _virtual(socket.AF_INET, len(self._places) + 1)
            self._places.append(Place(name, host, port, virtual))

    def place(self, name: str) -> Place:
        """Return the place of that name."""
        return next(place for place in self._places if place.name == name)

    def words(self, *, redirected: bool) -> list[str]:
        """Return differ's arguments."""
        unix = f"unix={self._unix},0,{self._unix},{self._unix_fd}"
        return [*(place.word(redirected=redirected) for place in self._places), unix]

    @property
    def fds(self) -> Iterable[int]:
        """What the program inherits."""
        return [place.fd for place in self._places if place.fd >= 0] + [self._unix_fd]

    @property
    def routes(self) -> list[str]:
        """Options of meshfd that lead from the virtual addresses to the places."""
        return [word for place in self._places for word in ("--route", place.route)]


def _has_loopback_6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind((LOOPBACK[socket.AF_INET6], 0))
    except OSError:
        return False
    return True
