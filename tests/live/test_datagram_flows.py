"""Datagrams of one socket keep to their endpoint; when it leaves, they go to another."""

from __future__ import annotations

import sys
from typing import Final

import pytest

import meshfd
from tests.support.command import VIRTUAL, address_of
from tests.support.servers import Echoer
from tests.support.talking import open_talk

# For each line of input: send a datagram by the socket of that name, say who answered, and the
# socket's own port. A name that begins with "c" is connected once, the others send to the address.
# With a host and a port behind the name it is connected again, to there.
SENDER: Final = """
import socket, sys

sockets = {}
for line in sys.stdin:
    name, *there = line.split()
    if name not in sockets:
        sockets[name] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sockets[name].settimeout(20)
        if name.startswith("c"):
            sockets[name].connect((sys.argv[1], 53))
    one = sockets[name]
    if there:
        one.connect((there[0], int(there[1])))
    if name.startswith("c"):
        one.send(b"x")
    else:
        one.sendto(b"x", (sys.argv[1], 53))
    print(one.recv(100).decode().partition(":")[0], one.getsockname()[1], flush=True)
"""
COMMAND = (sys.executable, "-c", SENDER, VIRTUAL)


def route_to(*servers: Echoer) -> list[str]:
    """Return the route from the virtual address to these."""
    return [f"udp:{VIRTUAL}:53={','.join(address_of(one.socket) for one in servers)}"]


@pytest.mark.parametrize("kind", ["connected", "open"])
async def test_flow_keeps_its_endpoint(kind: str) -> None:
    """Sockets take turns; each keeps to its endpoint."""
    with Echoer("first") as first, Echoer("second") as second, open_talk() as talk:
        async with meshfd.spawn(
            COMMAND, routes=route_to(first, second), stdin=talk.stdin_fd, stdout=talk.stdout_fd
        ) as program:
            answers: dict[str, set[str]] = {}
            for _ in range(5):
                for name in (f"{kind}-1", f"{kind}-2"):
                    talk.tell(name)
                    answers.setdefault(name, set()).add(await talk.line())
            statistics = program.statistics()
    assert [len(seen) for seen in answers.values()] == [1, 1]
    assert {one.split()[0] for seen in answers.values() for one in seen} == {"first", "second"}
    assert statistics.redirected == 2


@pytest.mark.parametrize("kind", ["connected", "open"])
async def test_endpoint_leaves(kind: str) -> None:
    """A socket whose endpoint has left gets another, and keeps its port; others are not touched."""
    with (
        Echoer("first") as first,
        Echoer("second") as second,
        Echoer("third") as third,
        open_talk() as talk,
    ):
        async with meshfd.spawn(
            COMMAND, routes=route_to(first, second), stdin=talk.stdin_fd, stdout=talk.stdout_fd
        ) as program:
            before = {}
            for name in (f"{kind}-1", f"{kind}-2"):
                talk.tell(name)
                who, port = (await talk.line()).split()
                before[name] = (who, port)
            await program.set_routes(route_to(second, third))
            for name, (who, port) in before.items():
                talk.tell(name)
                expected = {"second"} if who == "second" else {"second", "third"}
                now, port_now = (await talk.line()).split()
                assert now in expected
                assert port_now == port
            assert program.statistics().repinned == (kind == "connected")
            await program.set_routes(route_to(third))
            for name in before:
                talk.tell(name)
                assert (await talk.line()).split()[0] == "third"


async def test_route_leaves() -> None:
    """A connected socket whose route has gone stays where it is, as TCP connections do."""
    with Echoer("first") as first, open_talk() as talk:
        async with meshfd.spawn(
            COMMAND, routes=route_to(first), stdin=talk.stdin_fd, stdout=talk.stdout_fd
        ) as program:
            talk.tell("connected")
            before = await talk.line()
            await program.set_routes([])
            talk.tell("connected")
            assert await talk.line() == before
            assert program.statistics().repinned == 0


async def test_connected_to_the_endpoint_itself() -> None:
    """A socket that asked for the endpoint itself does not follow the route that led there."""
    with Echoer("first") as first, Echoer("second") as second, open_talk() as talk:
        async with meshfd.spawn(
            COMMAND, routes=route_to(first), stdin=talk.stdin_fd, stdout=talk.stdout_fd
        ) as program:
            host, port = first.socket.getsockname()
            for line in ("connected", f"connected {host} {port}"):
                talk.tell(line)
                assert (await talk.line()).split()[0] == "first"
            await program.set_routes(route_to(second))
            talk.tell("connected")
            assert (await talk.line()).split()[0] == "first"
            assert program.statistics().repinned == 0
