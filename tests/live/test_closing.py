"""close() means at once what it means without meshfd."""

from __future__ import annotations

import pytest

from tests.support.command import Meshfd, direct_way
from tests.support.processes import Processes
from tests.support.programs import Programs
from tests.support.servers import Greeter, free_port, listening_socket

TRACKS = ["create", "connect"]


@pytest.mark.parametrize("track", TRACKS)
def test_peer_sees_end(track: str, meshfd: Meshfd, program: Programs, processes: Processes) -> None:
    """The peer reads end of file when the program has closed its socket, though it lives on."""
    with listening_socket() as listening:
        way = meshfd.way(listening)
        options = (*way.options, "--track", track)
        running = processes.start(
            meshfd.exec(program("closing"), "eof", *way.words, options=options)
        )
        peer, _ = listening.accept()
        with peer:
            assert running.value("connect") == "0"
            assert running.line() == "closed"
            # Non-blocking: it must be there by now, the lease of the socket being 100 ms.
            peer.setblocking(False)
            assert peer.recv(1) == b""
        assert running.finish().code == 0


@pytest.mark.parametrize("track", TRACKS)
def test_unconnected_peer_sees_end(
    track: str, meshfd: Meshfd, program: Programs, processes: Processes
) -> None:
    """So it is for an unrouted connection, which the program made with its own connect."""
    with listening_socket() as listening:
        way = direct_way(listening)
        running = processes.start(
            meshfd.exec(program("closing"), "eof", *way.words, options=("--track", track))
        )
        peer, _ = listening.accept()
        with peer:
            assert running.value("connect") == "0"
            assert running.line() == "closed"
            peer.setblocking(False)
            assert peer.recv(1) == b""
        assert running.finish().code == 0


@pytest.mark.parametrize("track", TRACKS)
def test_no_ghosts(
    track: str, meshfd: Meshfd, program: Programs, processes: Processes, greeter: Greeter
) -> None:
    """A socket that was closed unused while in an epoll instance is soon reported no more."""
    way = meshfd.way(greeter.listening)
    done = processes.run(
        meshfd.exec(
            program("closing"),
            "ghost",
            *way.words,
            options=(*way.options, "--track", track),
        )
    )
    assert done.lines == ["quiet: yes", "quiet for good: yes"], done.err


@pytest.mark.parametrize("listen", [False, True])
def test_port_is_free(
    listen: bool, meshfd: Meshfd, program: Programs, processes: Processes, greeter: Greeter
) -> None:
    """A bound or listening socket that was closed has freed its port, at once."""
    path = program("closing")
    way = meshfd.way(greeter.listening)
    options = way.options
    if listen:
        options += ("--listen", f"127.0.0.1:{free_port()}")
    bare = processes.run([path, "port", *way.words])
    under = processes.run(meshfd.exec(path, "port", *way.words, options=options))
    assert bare.code == 0, bare.err
    assert under.lines == bare.lines
