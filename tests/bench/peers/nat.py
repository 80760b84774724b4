"""iptables' redirects, in a network namespace of their own.

Theory of operation: a rule in the chain OUTPUT of the table nat gives a connection another
destination, and connection tracking carries that out for every packet, also of connections that no
rule is about. So the rules live in a namespace that has its own tracking, and the server that they
lead to runs there, too; subjects outside pay nothing for them. The rules go with the namespace.

Each way has a virtual address of its own there, which nobody serves.
Source: iptables-extensions(8).
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Final

from tests.bench.errors import MissingError
from tests.bench.part import Stage
from tests.bench.peers.need import tool
from tests.bench.peers.place import Place, open_place
from tests.bench.programs import SERVER_ADDRESS, serve
from tests.bench.ways import Way

REDIRECT: Final = "iptables REDIRECT"
DNAT: Final = "iptables DNAT"
REDIRECTED_ADDRESS: Final = "127.66.1.1"
TRANSLATED_ADDRESS: Final = "127.66.1.2"

# A way in this place to the server at this port there, for as long as the block lasts.
Opener = Callable[[Stage, Place, int], AbstractContextManager[Way]]
# The port of a server that runs in this place for as long as the block lasts.
Serve = Callable[[Place], AbstractContextManager[int]]


def _iptables(place: Place, *words: str) -> None:
    command = [*place.prefix, tool("iptables", "iptables"), "--wait", "--table", "nat", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MissingError(f"iptables --table nat {' '.join(words)}: {done.stderr.strip()}")


def add_rule(place: Place, address: str, port: int, *target: str) -> None:
    """Let a rule apply to connections from this place to ``address`` at ``port``.

    Raises:
        MissingError: no iptables, or the kernel knows no such rule.

    """
    match = ("--destination", address, "--protocol", "tcp", "--dport", str(port))
    _iptables(place, "--append", "OUTPUT", *match, "--jump", *target)


def add_redirect(place: Place, address: str, port: int, to_port: int) -> None:
    """Have connections to ``address`` go to ``to_port`` of the loopback interface's address."""
    add_rule(place, address, port, "REDIRECT", "--to-ports", str(to_port))


@contextlib.contextmanager
def redirected(stage: Stage, place: Place, port: int) -> Iterator[Way]:
    """By the target REDIRECT."""
    add_redirect(place, REDIRECTED_ADDRESS, port, port)
    yield Way(place.prefix, REDIRECTED_ADDRESS, port)


@contextlib.contextmanager
def translated(stage: Stage, place: Place, port: int) -> Iterator[Way]:
    """By the target DNAT."""
    add_rule(
        place, TRANSLATED_ADDRESS, port, "DNAT", "--to-destination", f"{SERVER_ADDRESS}:{port}"
    )
    yield Way(place.prefix, TRANSLATED_ADDRESS, port)


IPTABLES: Final[dict[str, Opener]] = {REDIRECT: redirected, DNAT: translated}


@contextlib.contextmanager
def open_ways(
    stage: Stage, openers: Mapping[str, Opener], serve_in: Serve
) -> Iterator[dict[str, Way]]:
    """Make a namespace, in which a server runs, and all that these ways to it need."""
    ways = {}
    with contextlib.ExitStack() as stack:
        try:
            place = stack.enter_context(open_place())
            _iptables(place, "--list-rules")
        except MissingError as why:
            stage.missing.update(dict.fromkeys(openers, str(why)))
        else:
            port = stack.enter_context(serve_in(place))
            for name, opener in openers.items():
                with stage.optional(name):
                    ways[name] = stack.enter_context(opener(stage, place, port))
        yield ways


def probed(stage: Stage) -> Serve:
    """Have server.c serve in the namespace."""

    @contextlib.contextmanager
    def serve_in(place: Place) -> Iterator[int]:
        with serve(stage.directory, place.prefix) as server:
            yield server.port

    return serve_in
