"""What a program asked of its TCP socket before connect() is in force after a redirection."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.command import KINDS, Meshfd, direct_way
from tests.support.need import require, require_root
from tests.support.ordinary_user import as_ordinary_user
from tests.support.processes import Processes
from tests.support.programs import Programs
from tests.support.servers import Greeter

FAST_OPEN = Path("/proc/sys/net/ipv4/tcp_fastopen")
FAST_OPEN_BOTH = "3"  # ip-sysctl: client and server
FAST_OPEN_QUEUE = 16
MPTCP = 262  # linux/in.h: IPPROTO_MPTCP


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
@pytest.mark.parametrize("family", [[], ["mapped"]], ids=["v4", "v6"])
@pytest.mark.parametrize("ordinary", [False, True], ids=["", "ordinary"])
def test_options(
    family: list[str],
    kind: tuple[str, ...],
    ordinary: bool,
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
) -> None:
    """Every option reads the same as bare, before the connection and after it."""
    path = program("options_kept")
    way = meshfd.way(greeter.listening)
    commands = [
        [str(path), *direct_way(greeter.listening).words, *family],
        meshfd.exec(path, *way.words, *family, options=way.options + kind),
    ]
    if ordinary:
        commands = [as_ordinary_user(command) for command in commands]
    bare, under = (processes.run(command, cwd="/") for command in commands)
    assert bare.lines[-1] == "greeting: hello"
    assert under.lines == bare.lines, under.err


@contextmanager
def fast_open() -> Iterator[None]:
    """Switch TCP Fast Open on, in this network."""
    before = FAST_OPEN.read_text()
    FAST_OPEN.write_text(FAST_OPEN_BOTH)
    try:
        yield
    finally:
        FAST_OPEN.write_text(before)


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
@pytest.mark.parametrize("mode", [[], ["nonblocking"]], ids=["blocking", "nonblocking"])
def test_fast_open(
    mode: list[str],
    kind: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
) -> None:
    """With TCP_FASTOPEN_CONNECT the data travels with the SYN to the endpoint. Needs root."""
    require_root()
    path = program("fast_open")
    greeter.listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, FAST_OPEN_QUEUE)
    way = meshfd.way(greeter.listening)
    direct = [str(path), *direct_way(greeter.listening).words, *mode]
    with fast_open():
        processes.run(direct)  # it has the cookie from now on
        bare = processes.run(direct)
        under = processes.run(meshfd.exec(path, *way.words, *mode, options=way.options + kind))
    assert bare.lines[-1] == "data in the SYN: yes"
    assert under.lines == bare.lines, under.err


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
@pytest.mark.parametrize("mode", [[], ["nonblocking"]], ids=["blocking", "nonblocking"])
@pytest.mark.parametrize("protocol", [MPTCP, 0], ids=["to-mptcp", "to-tcp"])
def test_multipath(
    protocol: int,
    mode: list[str],
    kind: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
) -> None:
    """An MPTCP client speaks MPTCP to an endpoint that does, and TCP to one that does not."""
    path = program("multipath")
    try:
        greeter = Greeter(protocol=protocol)
    except OSError as error:
        require(None, f"no MPTCP here: {error}")
        raise
    with greeter:
        way = meshfd.way(greeter.listening)
        bare = processes.run([path, *direct_way(greeter.listening).words, *mode])
        require(bare.lines != ["no MPTCP"], "no MPTCP here")
        under = processes.run(meshfd.exec(path, *way.words, *mode, options=way.options + kind))
    assert "protocol: 262" in bare.lines
    assert ("MPTCP_INFO: 0" in bare.lines) == (protocol == MPTCP)
    assert under.lines == bare.lines, under.err
