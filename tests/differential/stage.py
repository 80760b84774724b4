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
UDP_PREFIX = "udp-"  # of names; differ.h
UNIX_PREFIX = "unix-"  # of names; server.c
TWINS_4 = ("unix-echo4", "unix-greet4")  # they serve as the one without the prefix
# Elsewhere than in root's private network, IPv6 may lead to the virtual address from one of ours.
TWINS = (*TWINS_4, "unix-echo6")
# Where daemons bind, and meshfd listens for them.
DAEMONS = {
    "daemon4": "127.0.0.1",
    "daemon6": "::1",
    "wild4": "0.0.0.0",
    "wild6": "::",
    "mapped4": "::ffff:127.0.0.1",
}
PORTS = (20_000, 30_000)  # below those that the kernel gives to others (ip_local_port_range)


@dataclass(frozen=True, slots=True)
class Place:
    """Somewhere to connect to; ``virtual`` is the address that a route leads here from.

    ``errno``: nobody can be reached here, and connect(2) says this.
    """

    name: str
    host: str
    port: int
    virtual: str
    fd: int = NO_FD
    errno: str = ""

    @property
    def is_udp(self) -> bool:
        """Whether datagrams go there; else it is TCP's."""
        return self.name.startswith(UDP_PREFIX)

    def word(self, *, redirected: bool) -> str:
        """Return it as differ's argument."""
        shown = self.virtual if redirected else self.host
        return f"{self.name}={shown},{self.port},{self.host},{self.fd}"

    @property
    def route(self) -> str:
        """The route from its virtual address."""
        return f"{self.destination}={written(self.host, self.port)}"

    @property
    def denial(self) -> str:
        """A route that says what connect(2) says there."""
        return f"{self.destination}=deny={self.errno}"

    @property
    def destination(self) -> str:
        """What its routes are from."""
        protocol = "udp:" if self.is_udp else ""
        return f"{protocol}{written(self.virtual, self.port)}"


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
        self._echo_datagrams("udp-echo4", socket.AF_INET)
        self._refuse_datagrams("udp-refuse4", socket.AF_INET)
        if socket.has_ipv6 and _has_loopback_6():
            self._listen("echo6", socket.AF_INET6)
            self._refuse("refuse6", socket.AF_INET6)
            self._hole("hole6", socket.AF_INET6)
            self._echo_datagrams("udp-echo6", socket.AF_INET6)
            self._refuse_datagrams("udp-refuse6", socket.AF_INET6)
        if os.geteuid() == 0:
            self._unreachable()
        twins = TWINS if os.geteuid() == 0 else TWINS_4
        self._unix = [self._listen_unix(name) for name in ("unix", *twins)]
        self.spare_port = free_port()  # nobody's: meshfd may listen there
        for name, host in DAEMONS.items():
            self._daemon(name, host)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self._stack.close()

    def _add(self, name: str, listening: socket.socket, fd: int = NO_FD) -> None:
        virtual = _virtual(listening.family, len(self._places) + 1)
        host = LOOPBACK[listening.family]
        self._places.append(Place(name, host, port_of(listening), virtual, fd))

    def _listen_unix(self, name: str) -> Place:
        """Return a place with an abstract address."""
        listening = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        address = f"meshfd-differ-{os.getpid()}-{id(self)}-{name}"
        listening.bind("\0" + address)
        listening.listen(1024)
        listening.setblocking(False)
        return Place(name, address, 0, address, listening.fileno())

    def _bound(
        self, family: socket.AddressFamily, kind: socket.SocketKind = socket.SOCK_STREAM
    ) -> socket.socket:
        """Return a bound socket; no other place has its port."""
        bound = self._stack.enter_context(socket.socket(family, kind))
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

    def _echo_datagrams(self, name: str, family: socket.AddressFamily) -> None:
        bound = self._bound(family, socket.SOCK_DGRAM)
        bound.setblocking(False)
        self._add(name, bound, bound.fileno())

    def _refuse_datagrams(self, name: str, family: socket.AddressFamily) -> None:
        """Add a place whose port is taken by a socket that hears itself alone."""
        bound = self._bound(family, socket.SOCK_DGRAM)
        bound.connect(bound.getsockname())
        self._add(name, bound)

    def _daemon(self, name: str, host: str) -> None:
        """Add a place where nobody listens, but a sequence may."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        if family == socket.AF_INET6 and not _has_loopback_6():
            return
        with self._bound(family) as probe:
            self._places.append(Place(name, host, port_of(probe), host))

    def _unreachable(self) -> None:
        make_unreachable()
        for number, (error, host) in enumerate(UNREACHABLE.items()):
            name, port = UNREACHABLE_NAMES[error], FIRST_UNREACHABLE_PORT + number
            virtual = _virtual(socket.AF_INET, len(self._places) + 1)
            self._places.append(Place(name, host, port, virtual, errno=error))

    def place(self, name: str) -> Place:
        """Return the place of that name."""
        return next(place for place in self._places if place.name == name)

    def words(self, *, redirected: bool) -> list[str]:
        """Return differ's arguments."""
        places = (*self._places, *self._unix)
        return [place.word(redirected=redirected) for place in places]

    @property
    def fds(self) -> Iterable[int]:
        """What the program inherits."""
        return [place.fd for place in (*self._places, *self._unix) if place.fd >= 0]

    def routes(self, *, denies: bool, standins: bool) -> list[str]:
        """Return what leads from the virtual addresses to the places, as DEST=TARGET.

        ``denies``: where nobody can be reached, the route says the errno. ``standins``: to unix
        sockets, where a server has one.
        """
        twins = {place.name.removeprefix(UNIX_PREFIX): place for place in self._unix}

        def route(place: Place) -> str:
            if standins and place.name in twins:
                return f"{place.destination}=unix:@{twins[place.name].host}"
            return place.denial if denies and place.errno else place.route

        return [route(place) for place in self._places if place.name not in DAEMONS]

    @property
    def listening(self) -> list[str]:
        """Where meshfd listens for daemons."""
        return [written(place.host, place.port) for place in self._places if place.name in DAEMONS]


def _has_loopback_6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind((LOOPBACK[socket.AF_INET6], 0))
    except OSError:
        return False
    return True
