"""A strict service: what was denied is not reached, however fast a second thread is."""

from __future__ import annotations

import socket

import pytest

from tests.support.command import Meshfd, address_of
from tests.support.processes import Processes, Program
from tests.support.programs import Programs
from tests.support.servers import Echoer, listening_socket, port_of

N_TRIES = {"address": 500_000, "file": 20_000}  # of each kind of tracking
N_TRIES_QUICK = {"address": 10_000, "file": 5_000}
N_DATAGRAMS = 200_000
N_DATAGRAMS_QUICK = 10_000

# What can be seen when both threads had their turns.
SEEN = {
    "address": ["connected: some", "refused: some"],
    "file": ["connected: none", "refused: some"],
}


def accepts_somebody(listening: socket.socket) -> bool:
    """Whether anybody has connected; also one who has gone again."""
    listening.setblocking(False)
    try:
        listening.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def tries_of(running: Program) -> list[str]:
    """Return what the program says in the end, however long it takes."""
    line = running.line()
    while line == "more":
        line = running.line()
    done = running.finish()
    assert done.code == 0, done.err
    return [line, *done.lines]


@pytest.mark.parametrize("mode", SEEN)
@pytest.mark.parametrize("track", ["create", "connect"])
def test_denied_is_not_reached(
    mode: str,
    track: str,
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    quick: bool,
) -> None:
    """A denied server is not reached while a thread rewrites the address, or replaces the fd."""
    meshfd.need()
    n_tries = (N_TRIES_QUICK if quick else N_TRIES)[mode]
    allowed = int(processes.start([program("sink")]).value("port"))
    with listening_socket() as denied:
        ports = str(allowed), str(port_of(denied))
        options = ("--strict", "--track", track, "--deny", address_of(denied))
        command = meshfd.exec(program("rewriting"), mode, str(n_tries), *ports, options=options)
        assert tries_of(processes.start(command)) == SEEN[mode]
        assert not accepts_somebody(denied)


def test_denied_datagrams_do_not_arrive(
    meshfd: Meshfd, program: Programs, processes: Processes, quick: bool
) -> None:
    """A denied server gets no datagram while a thread rewrites the address."""
    meshfd.need()
    n_tries = N_DATAGRAMS_QUICK if quick else N_DATAGRAMS
    with Echoer("allowed") as allowed, Echoer("denied") as denied:
        ports = str(port_of(allowed.socket)), str(port_of(denied.socket))
        options = ("--strict", "--deny", f"udp:{address_of(denied.socket)}")
        words = ("datagram", str(n_tries), *ports)
        command = meshfd.exec(program("rewriting"), *words, options=options)
        assert tries_of(processes.start(command)) == ["connected: some", "refused: some"]
        assert denied.n_heard == 0
        assert allowed.n_heard > 0
