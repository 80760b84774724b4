"""recvmmsg() and sendmmsg() that are not over yet: signals, errors, and others who want a turn."""

from __future__ import annotations

import socket

import pytest

from tests.support.command import VIRTUAL, Meshfd, address_of
from tests.support.processes import Processes
from tests.support.programs import Programs
from tests.support.servers import Echoer, Greeter

WAYS = {"transparent": ("--transparent",), "strict": ("--transparent", "--strict")}


def free_udp_port() -> int:
    """Return a port that nobody had a moment ago."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("variant", "way"), [("", "transparent"), ("", "strict"), ("i386", "transparent")]
)
@pytest.mark.parametrize("scenario", ["handler", "restart"])
def test_signal_after_the_first(
    scenario: str,
    variant: str,
    way: str,
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
) -> None:
    """A signal ends a recvmmsg() that has received something with what it has, SA_RESTART or not.

    The time that is left is told as of the last datagram.
    """
    meshfd.need()
    path = program("bulk", variant)
    with Echoer() as server:
        host, port = server.socket.getsockname()
        bare = processes.run([path, scenario, host, str(port)])
        route = f"udp:{VIRTUAL}:53={address_of(server.socket)}"
        command = meshfd.exec(path, scenario, VIRTUAL, "53", options=("--route", route, *WAYS[way]))
        under = processes.run(command)
    assert bare.lines == 2 * ["send: 0", "receive: 1", "handled: 1", "left: all"], bare.err
    assert under.lines == bare.lines, under.err


@pytest.mark.parametrize(
    ("variant", "way"), [("", "transparent"), ("", "strict"), ("i386", "transparent")]
)
def test_error_after_the_first(
    variant: str, way: str, meshfd: Meshfd, program: Programs, processes: Processes
) -> None:
    """An error that comes after the first datagram is kept for the socket's next call."""
    meshfd.need()
    path = program("bulk", variant)
    port = str(free_udp_port())
    bare = processes.run([path, "refused", "127.0.0.1", port, port])
    route = f"udp:{VIRTUAL}:53=127.0.0.1:{port}"
    command = meshfd.exec(
        path, "refused", VIRTUAL, "53", port, options=("--route", route, *WAYS[way])
    )
    under = processes.run(command)
    assert "error: ECONNREFUSED" in bare.lines, bare.err
    assert bare.lines.count("receive: 1") == 4
    assert under.lines == bare.lines, under.err


@pytest.mark.parametrize("options", [(), ("--strict",)], ids=str)
def test_others_have_their_turn(
    options: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
) -> None:
    """A connect() is answered in the middle of another process's sendmmsg() of 1,024 messages."""
    meshfd.need()
    with Echoer() as server:
        routes = (
            *("--route", f"udp:{VIRTUAL}:53={address_of(server.socket)}"),
            *("--route", f"{VIRTUAL}:53={address_of(greeter.listening)}"),
        )
        done = processes.run(
            meshfd.exec(program("bulk"), "send", VIRTUAL, "53", options=(*routes, *options))
        )
    assert done.lines == ["connected in between"], done.err
