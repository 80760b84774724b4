"""Scope ids of IPv6 addresses mean under meshfd what they mean without it. Needs root."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator

import pytest

from tests.support.command import KINDS, Meshfd, address_of, written
from tests.support.need import require_root
from tests.support.netns import Wire, open_wire
from tests.support.processes import Processes
from tests.support.servers import Echoer, Greeter, free_port, port_of

# HOST PORT SCOPE: where a client believes to be.
CLIENT = """
import errno, socket, sys
client = socket.socket(socket.AF_INET6)
code = client.connect_ex((sys.argv[1], int(sys.argv[2]), 0, int(sys.argv[3])))
print("connect:", errno.errorcode.get(code, code))
if code == 0:
    print("peer:", *client.getpeername())
"""
# So for a daemon.
DAEMON = """
import socket, sys
server = socket.socket(socket.AF_INET6)
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
server.bind((sys.argv[1], int(sys.argv[2]), 0, int(sys.argv[3])))
server.listen()
print("name:", *server.getsockname())
"""

# And for one that sends datagrams, with and without connecting.
TALKER = """
import socket, sys
to = (sys.argv[1], int(sys.argv[2]), 0, int(sys.argv[3]))
talker = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
talker.settimeout(30)
talker.sendto(b"there", to)
print(*talker.recvfrom(100))
talker.connect(to)
print(talker.getpeername(), talker.send(b"again"), talker.recv(100))
"""


@pytest.fixture
def wire() -> Iterator[Wire]:
    """Return a network that nobody answers in."""
    require_root()
    with open_wire() as opened:
        yield opened


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
@pytest.mark.parametrize("where", ["link-local", "elsewhere"])
def test_redirected(
    where: str, kind: tuple[str, ...], meshfd: Meshfd, processes: Processes, wire: Wire
) -> None:
    """A route leads away whatever the scope; told is the scope of a link-local address alone."""
    meshfd.need()
    host = wire.link_local if where == "link-local" else "::1"
    with (
        Greeter(family=socket.AF_INET6) as endpoint,
        socket.create_server((host, 0, 0, wire.index), family=socket.AF_INET6) as asked,
    ):
        port = port_of(asked)
        words = [sys.executable, "-c", CLIENT, host, str(port), str(wire.index)]
        bare = processes.run(words)
        route = f"{written(host, port)}={written('::1', port_of(endpoint.listening))}"
        options = ("--route", route, "--transparent", *kind)
        under = processes.run(meshfd.exec(*words, options=options))
        assert endpoint.n_greeted == 1
    scope = wire.index if where == "link-local" else 0
    assert bare.lines == ["connect: 0", f"peer: {host} {port} 0 {scope}"]
    assert under.lines == bare.lines, under.err


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_handed(kind: tuple[str, ...], meshfd: Meshfd, processes: Processes, wire: Wire) -> None:
    """A daemon that binds an address with a scope that means nothing is handed its socket."""
    meshfd.need()
    port = free_port()
    words = [sys.executable, "-c", DAEMON, "::1", str(port), str(wire.index)]
    bare = processes.run(words)
    options = ("--listen", f"[::1]:{port}", "--log", "-", *kind)
    under = processes.run(meshfd.exec(*words, options=options))
    assert bare.lines == [f"name: ::1 {port} 0 0"]
    assert under.lines == bare.lines, under.err


@pytest.mark.parametrize("kind", [(), ("--strict",)], ids=" ".join)
@pytest.mark.parametrize("routed", [True, False], ids=["routed", "unrouted"])
def test_datagrams(
    routed: bool, kind: tuple[str, ...], meshfd: Meshfd, processes: Processes, wire: Wire
) -> None:
    """Answers come from the address, and the scope, that was asked."""
    meshfd.need()
    link = (wire.link_local, 0, 0, wire.index)
    with (
        Echoer(family=socket.AF_INET6) as endpoint,
        Echoer(family=socket.AF_INET6, address=link) as asked,
    ):
        port = port_of(asked.socket)
        words = [sys.executable, "-c", TALKER, wire.link_local, str(port), str(wire.index)]
        bare = processes.run(words)
        host = wire.link_local if routed else "2001:db8::1"
        route = f"udp:{written(host, port)}={address_of(endpoint.socket)}"
        options = ("--route", route, "--transparent", *kind)
        under = processes.run(meshfd.exec(*words, options=options))
        assert endpoint.n_heard == (2 if routed else 0)
    assert len(bare.lines) == 2, bare.err
    assert under.lines == bare.lines, under.err
