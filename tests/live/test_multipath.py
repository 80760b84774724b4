"""MPTCP sockets are TCP sockets to meshfd: routed, denied, told, replaced, and handed to."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import VIRTUAL, VIRTUAL_PORT, Meshfd, direct_way
from tests.support.need import require
from tests.support.processes import Processes
from tests.support.programs import Programs
from tests.support.servers import Greeter, Repeater, free_port, port_of, read_all
from tests.support.waiting import DEADLINE_S

MPTCP = 262  # linux/in.h: IPPROTO_MPTCP
KINDS = ((), ("--track", "create", "--strict"))  # what differs most

CLIENT = """
import errno, socket, sys
client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
code = client.connect_ex((sys.argv[1], int(sys.argv[2])))
print("connect:", errno.errorcode.get(code, code))
if code == 0:
    print("peer:", *client.getpeername())
    print("protocol:", client.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL))
    print(client.makefile().readline().strip())
"""

# A first attempt fails, and SO_ERROR tells; what does the next connect() say, to another address?
AGAIN = """
import errno, select, socket, sys
client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, int(sys.argv[1]))
client.setblocking(False)
refused, *again = sys.argv[2:]
client.connect_ex(("127.0.0.1", int(refused)))
poll = select.poll()
poll.register(client, select.POLLOUT)
poll.poll()
print("SO_ERROR:", errno.errorcode[client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)])
code = client.connect_ex((again[0], int(again[1])))
print("connect:", errno.errorcode.get(code, code))
"""

# A daemon as Go's: it asks for MPTCP, and sets its options first. It serves one client.
DAEMON = """
import socket, sys
OPTIONS = [(socket.SOL_SOCKET, socket.SO_REUSEADDR), (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
           (socket.IPPROTO_TCP, socket.TCP_NODELAY), (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)]
server = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
for n, option in enumerate(OPTIONS, 1):
    server.setsockopt(*option, n)
server.bind(("127.0.0.1", int(sys.argv[1])))
server.listen()
print("name:", *server.getsockname())
for option in OPTIONS[1:]:
    print("option:", server.getsockopt(*option))
print("protocol:", server.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL), flush=True)
client, peer = server.accept()
print("peer:", peer == client.getpeername())
client.sendall(b"hello")
"""


@pytest.fixture(autouse=True)
def _mptcp() -> None:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, MPTCP).close()
    except OSError as error:
        require(None, f"no MPTCP here: {error}")


@pytest.fixture
def server() -> Iterator[Greeter]:
    """Return a server that speaks MPTCP."""
    with Greeter(protocol=MPTCP) as greeter:
        yield greeter


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_told(kind: tuple[str, ...], meshfd: Meshfd, processes: Processes, server: Greeter) -> None:
    """In a transparent service the peer is the address that was asked for."""
    meshfd.need()
    way = meshfd.way(server.listening)
    words = [sys.executable, "-c", CLIENT, *way.words]
    done = processes.run(meshfd.exec(*words, options=(*way.options, "--transparent", *kind)))
    assert done.lines == [
        "connect: 0",
        f"peer: {way.host} {way.port}",
        f"protocol: {MPTCP}",
        "hello",
    ], done.err


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
@pytest.mark.parametrize("target", ["deny=EPERM", "unix", "pass"])
@pytest.mark.parametrize("protocol", [0, MPTCP])
def test_after_an_error_that_was_told(
    protocol: int,
    target: str,
    kind: tuple[str, ...],
    meshfd: Meshfd,
    processes: Processes,
    server: Greeter,
    tmp_path: Path,
) -> None:
    """The next connect() aborts as where bare, whatever the route says."""
    meshfd.need()
    where = ["127.0.0.1", str(port_of(server.listening))]
    words = [sys.executable, "-c", AGAIN, str(protocol), str(free_port()), *where]
    given = f"unix:{tmp_path}/s" if target == "unix" else target
    options = ("--route", f"{':'.join(where)}={given}", *kind)
    with Greeter(where=str(tmp_path / "s")):
        done = processes.run(meshfd.exec(*words, options=options))
    assert done.lines == processes.run(words).lines, done.err
    assert done.lines == ["SO_ERROR: ECONNREFUSED", "connect: ECONNABORTED"]


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_passed_and_denied(
    kind: tuple[str, ...], meshfd: Meshfd, processes: Processes, server: Greeter
) -> None:
    """Beside routes a connection passes; one that is denied fails with its errno."""
    meshfd.need()
    way = direct_way(server.listening)
    words = [sys.executable, "-c", CLIENT, *way.words]
    bare = processes.run(words)
    assert bare.lines[-1] == "hello"
    beside = ("--route", f"{VIRTUAL}:{VIRTUAL_PORT}=127.0.0.1:9", *kind)
    assert processes.run(meshfd.exec(*words, options=beside)).lines == bare.lines
    deny = ("--route", f"{way.host}:{way.port}=deny=EHOSTUNREACH", *kind)
    assert processes.run(meshfd.exec(*words, options=deny)).lines == ["connect: EHOSTUNREACH"]
    assert server.n_greeted == 2


@pytest.mark.parametrize("mode", [[], ["nonblocking"]], ids=["blocking", "nonblocking"])
@pytest.mark.parametrize("kind", [(), ("--strict",)], ids=" ".join)
def test_replaced(
    kind: tuple[str, ...],
    mode: list[str],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    tmp_path: Path,
) -> None:
    """A unix socket in its place looks as it does when its server speaks no MPTCP."""
    meshfd.need()
    path = program("multipath")
    where = str(tmp_path / "greeter.sock")
    route = ("--route", f"{VIRTUAL}:{VIRTUAL_PORT}=unix:{where}")
    with Greeter() as tcp, Greeter(where=where):
        bare = processes.run([path, *direct_way(tcp.listening).words, *mode])
        words = (VIRTUAL, str(VIRTUAL_PORT), *mode)
        under = processes.run(meshfd.exec(path, *words, options=route + kind))
    assert f"protocol: {MPTCP}" in bare.lines
    assert under.lines == bare.lines, under.err


@pytest.mark.parametrize("mode", ["blocking", "nonblocking", "message", "option"])
def test_fast_open(mode: str, meshfd: Meshfd, program: Programs, processes: Processes) -> None:
    """By TCP_FASTOPEN_CONNECT it is routed; by a send (README, limits) it is refused, or passes."""
    path = program("send_open")
    with Repeater() as server:
        direct = [str(path), mode, *direct_way(server.listening).words, str(MPTCP)]
        bare = processes.run(direct)
        way = meshfd.way(server.listening)
        passed = processes.run(meshfd.exec(*direct, options=way.options))
        command = meshfd.exec(path, mode, *way.words, str(MPTCP), options=way.options)
        under = processes.run(command)
    assert bare.code == 0, bare.err
    assert passed.lines == bare.lines, passed.err
    if mode == "option" or meshfd.bare:
        assert under.lines == bare.lines, under.err
    else:
        assert under.lines == ["open: EOPNOTSUPP"], under.err


@pytest.mark.parametrize("kind", [*KINDS, ("--transparent",)], ids=" ".join)
def test_handed(kind: tuple[str, ...], meshfd: Meshfd, processes: Processes) -> None:
    """A daemon that asks for MPTCP has its options, and its client; its socket is plain TCP."""
    seen = []
    port = free_port()
    words = [sys.executable, "-c", DAEMON, str(port)]
    options = ("--listen", f"127.0.0.1:{port}", *kind)
    for command in (words, meshfd.exec(*words, options=options)):
        running = processes.start(command)
        lines = [running.line() for _ in range(5)]
        with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as client:
            assert read_all(client) == b"hello"
        seen.append(lines + running.finish().lines)
    bare, under = seen
    assert f"protocol: {MPTCP}" in bare
    if not meshfd.bare:
        assert "protocol: 6" in under  # README, limits
    assert [re.sub("^protocol: 6$", f"protocol: {MPTCP}", line) for line in under] == bare
