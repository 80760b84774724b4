"""How a program gets to a server: by itself, under a filter, under meshfd.

tests/bench/peers has what others would use instead.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tests.bench.part import Stage
from tests.bench.programs import SERVER_ADDRESS, VIRTUAL_ADDRESS, Server, meshfd

BARE: Final = "bare"
LOOP: Final = "CONTINUE loop"
LOOP_CREATE: Final = f"{LOOP}, create"
MESHFD: Final = "meshfd"
MESHFD_CREATE: Final = f"{MESHFD}, create"


def services(n: int) -> str:
    """Name the subject with so many services."""
    return f"{MESHFD}, {n:,} service{'s' * (n > 1)}"


@dataclass(frozen=True, slots=True)
class Way:
    """A program that is started by way of ``prefix`` reaches the server at this address.

    ``others``: the processes in between, if there are any.
    """

    prefix: Sequence[str]
    address: str
    port: int
    others: Sequence[int] = ()

    def probe(self, stage: Stage) -> list[str]:
        """The command line of a probe that goes there."""
        return [*self.prefix, str(stage.directory / "probe"), self.address, str(self.port)]


def route_to(port: int, target: str | None = None) -> str:
    """A route from the virtual address, as on a command line; ``target``: None: to the server."""
    return f"{VIRTUAL_ADDRESS}:{port}={target or f'{SERVER_ADDRESS}:{port}'}"


def bare(port: int) -> Way:
    """Nothing in between."""
    return Way((), SERVER_ADDRESS, port)


def floor(stage: Stage, kind: str, port: int) -> Way:
    """Under floor.c, which says what ``kind`` there is."""
    return Way((str(stage.directory / "floor"), kind), SERVER_ADDRESS, port)


def passed(port: int, *options: str) -> Way:
    """Under `meshfd exec` with a route for something else: the connection passes."""
    route = f"{VIRTUAL_ADDRESS}:1={SERVER_ADDRESS}:{port}"
    return Way(meshfd("exec", *options, "--route", route, "--"), SERVER_ADDRESS, port)


def redirected(port: int, *options: str, target: str | None = None) -> Way:
    """Under `meshfd exec` with a route from the virtual address; ``target``: as routes have it."""
    route = route_to(port, target)
    return Way(meshfd("exec", *options, "--route", route, "--"), VIRTUAL_ADDRESS, port)


def redirected_to_unix(server: Server) -> Way:
    """Under `meshfd exec`; a unix socket stands in for each connection."""
    return redirected(server.port, target=f"unix:{server.path}")


def asked(port: int) -> Way:
    """Under the library: a function in Python answers for each connection."""
    return run_by("asking", port, f"{SERVER_ADDRESS}:{port}")


def run_by(module: str, port: int, *words: str) -> Way:
    """Under a module of the benchmark's own; the program goes to the virtual address."""
    return Way((sys.executable, "-m", f"tests.bench.{module}", *words), VIRTUAL_ADDRESS, port)
