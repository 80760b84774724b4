"""A strict service: what was denied is not reached, however fast a second thread is."""

from __future__ import annotations

import os
import socket

import pytest

from tests.support.command import Meshfd, address_of
from tests.support.processes import Processes, Program
from tests.support.programs import Programs
from tests.support.servers import Echoer, listening_socket, port_of

# Of each kind of tracking. Without --strict the kernel reads "address" again, and the denied server
# is reached in one try of 30 (create) or 170 (connect): seen in 10,000 tries.
N_TRIES = {"address": 500_000, "file": 20_000}
N_TRIES_QUICK = {"address": 10_000, "file": 5_000}
N_DATAGRAMS = 200_000
N_DATAGRAMS_QUICK = 10_000

# What can be seen when both threads had their turns.
SEEN = {
    "address": ["connected: some", "refused: some"],
    "file": ["connected: none", "refused: some"],
}


def n_tries(mode: str, *, quick: bool) -> int:
    """Return how often to try."""
    usual = (N_TRIES_QUICK if quick else N_TRIES)[mode]
    return int(os.environ.get("MESHFD_TRIES", usual)) if mode == "address" else usual


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
    allowed = int(processes.start([program("sink")]).value("port"))
    with listening_socket() as denied:
        ports = str(allowed), str(port_of(denied))
        options = ("--strict", "--track", track, "--deny", address_of(denied))
        words = (mode, str(n_tries(mode, quick=quick)), *ports)
        command = meshfd.exec(program("rewriting"), *words, options=options)
        assert tries_of(processes.start(command)) == SEEN[mode]
        assert not accepts_somebody(denied)


def test_denied_datagrams_do_not_arrive(
    meshfd: Meshfd, program: Programs, processes: Processes, quick: bool
) -> None:
    """A denied server gets no datagram while a thread rewrites the address."""
    meshfd.need()
    n_datagrams = N_DATAGRAMS_QUICK if quick else N_DATAGRAMS
    with Echoer("allowed") as allowed, Echoer("denied") as denied:
        ports = str(port_of(allowed.socket)), str(port_of(denied.socket))
        options = ("--strict", "--deny", f"udp:{address_of(denied.socket)}")
        words = ("datagram", str(n_datagrams), *ports)
        command = meshfd.exec(program("rewriting"), *words, options=options)
        assert tries_of(processes.start(command)) == ["connected: some", "refused: some"]
        assert denied.n_heard == 0
        assert allowed.n_heard > 0
