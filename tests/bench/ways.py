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
MESHFD: Final = "meshfd"


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
    target = target or f"{SERVER_ADDRESS}:{port}"
    route = f"{VIRTUAL_ADDRESS}:{port}={target}"
    return Way(meshfd("exec", *options, "--route", route, "--"), VIRTUAL_ADDRESS, port)


def redirected_to_unix(server: Server) -> Way:
    """Under `meshfd exec`; a unix socket stands in for each connection."""
    return redirected(server.port, target=f"unix:{server.path}")


def asked(port: int) -> Way:
    """Under the library: a function in Python answers for each connection."""
    target = f"{SERVER_ADDRESS}:{port}"
    return Way((sys.executable, "-m", "tests.bench.asking", target), VIRTUAL_ADDRESS, port)
