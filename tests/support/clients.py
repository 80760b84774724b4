"""Clients of one daemon: bare, and through a route to an address that nobody has.

A client is a function from a way to a command line. Where a program prints whom it talked to, the
daemon's two addresses are masked before both runs are compared; the port is the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Final

from tests.support.command import VIRTUAL, Meshfd, Way, Word, without_proxies
from tests.support.processes import Finished, Processes, Program
from tests.support.services import HOST, REDIRECT, Mode

MASK: Final = "SERVER"

Client = Callable[[Way], Sequence[Word]]
Seen = Callable[[Finished], object]


def way_to(port: int, mode: Mode = REDIRECT) -> Way:
    """Return a way to a port of ours, by the same port of the address that nobody has."""
    route = f"{VIRTUAL}:{port}={HOST}:{port}"
    return Way(VIRTUAL, port, ("--route", route, *mode.options))


class Clients:
    """The clients of one test, in its mode."""

    def __init__(self, meshfd: Meshfd, mode: Mode, processes: Processes) -> None:
        """Start nothing yet."""
        self._meshfd = meshfd
        self._mode = mode
        self._processes = processes
        self._environment = without_proxies()

    def start_bare(self, client: Client, port: int) -> Program:
        """Start a client without meshfd."""
        command = [os.fspath(word) for word in client(Way(HOST, port))]
        return self._processes.start(command, env=self._environment)

    def start_routed(self, client: Client, port: int) -> Program:
        """Start a client under meshfd."""
        way = way_to(port, self._mode)
        command = self._meshfd.exec(*client(way), options=way.options)
        return self._processes.start(command, env=self._environment)

    def bare(self, client: Client, port: int, text: str = "") -> Finished:
        """Run a client without meshfd to its end, with ``text`` as its input."""
        return _finish(self.start_bare(client, port), text)

    def routed(self, client: Client, port: int, text: str = "") -> Finished:
        """Run a client under meshfd so."""
        return _finish(self.start_routed(client, port), text)

    def compare(
        self,
        client: Client,
        port: int,
        *,
        seen: Seen = lambda done: (done.code, done.out),
        text: str = "",
    ) -> Finished:
        """Run a client both ways: what is ``seen`` of it must be the same; returns the second."""
        bare = self.bare(client, port, text)
        routed = self.routed(client, port, text)
        what, expected = seen(_masked(routed)), seen(_masked(bare))
        assert what == expected, f"bare: {bare}\nrouted: {routed}"
        return routed


def _finish(program: Program, text: str) -> Finished:
    if text:
        assert program.popen.stdin is not None
        program.popen.stdin.write(text.encode())
    return program.finish()


def _masked(done: Finished) -> Finished:
    """Return the same with both addresses of the daemon masked."""

    def mask(text: str) -> str:
        return text.replace(VIRTUAL, MASK).replace(HOST, MASK)

    return Finished(done.code, mask(done.out), mask(done.err))
