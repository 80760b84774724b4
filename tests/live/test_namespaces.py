"""A program that makes a network namespace for itself is alone in it, under meshfd, too."""

from __future__ import annotations

import pytest

from tests.support.command import KINDS, Meshfd, address_of, direct_way
from tests.support.need import require
from tests.support.ordinary_user import as_ordinary_user
from tests.support.processes import Processes
from tests.support.programs import Programs
from tests.support.servers import Greeter, free_port, port_of

ALONE = [
    "connect without loopback: ENETUNREACH",
    "connect: ECONNREFUSED",
    "bind: 0",
    "listens before listen: 0",
    "listen: 0",
    "connect inside: 0",
]


MOVED = [
    "connect one made here: 0",
    "greeting of one made here: inner",
    "connect one made before: 0",
    "greeting of one made before: hello",
    "connect one made before, not blocking: EINPROGRESS",
    "greeting of one made before, not blocking: hello",
    "connect one made here, not blocking: EINPROGRESS",
    "greeting of one made here, not blocking: inner",
]


@pytest.mark.parametrize("track", ["create", "connect"])
@pytest.mark.parametrize("strict", [(), ("--strict",)])
@pytest.mark.parametrize("ordinary", [False, True], ids=["", "ordinary"])
def test_own_network(
    track: str,
    strict: tuple[str, ...],
    ordinary: bool,
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
) -> None:
    """Its sockets are there: the server outside is out of reach, and bind() gets no socket of ours.

    An ordinary user makes a user namespace with it.
    """
    port = free_port()
    words = [str(program("own_network")), *direct_way(greeter.listening).words, str(port)]
    options = ("--track", track, *strict, "--listen", f"127.0.0.1:{port}")
    commands = [words, meshfd.exec(*words, options=options)]
    if ordinary:
        commands = [as_ordinary_user(command) for command in commands]
    bare, under = (processes.run(command, cwd="/") for command in commands)
    require(bare.out != "no namespace\n", "no network namespace can be made")
    assert bare.lines == ALONE
    assert under.lines == bare.lines, under.err
    assert greeter.n_greeted == 0


def test_routes_are_followed_as_far_as_they_lead(
    meshfd: Meshfd, program: Programs, processes: Processes, greeter: Greeter
) -> None:
    """A route applies there, too, and its endpoint is looked for in that network."""
    meshfd.need()
    port = free_port()
    route = f"127.66.0.1:80={address_of(greeter.listening)}"
    done = processes.run(
        meshfd.exec(
            program("own_network"),
            "127.66.0.1",
            "80",
            str(port),
            options=("--track", "create", "--route", route),
        )
    )
    require(done.out != "no namespace\n", "no network namespace can be made")
    assert done.lines[:2] == ALONE[:2], done.err
    assert greeter.n_greeted == 0


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
@pytest.mark.parametrize("routed", [True, False], ids=["routed", "unrouted"])
@pytest.mark.parametrize("ordinary", [False, True], ids=["", "ordinary"])
def test_each_socket_stays_where_it_was_made(
    kind: tuple[str, ...],
    routed: bool,
    ordinary: bool,
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
) -> None:
    """Of sockets from before and after the move each reaches its own network's 127.0.0.1."""
    path = program("moved")
    inner_port = str(port_of(greeter.listening))
    way = meshfd.way(greeter.listening) if routed else direct_way(greeter.listening)
    bare = [str(path), *direct_way(greeter.listening).words, inner_port]
    under = meshfd.exec(path, *way.words, inner_port, options=way.options + kind)
    for command in (bare, under):
        done = processes.run(as_ordinary_user(command) if ordinary else command, cwd="/")
        require(done.out != "no namespace\n", "no network namespace can be made")
        assert done.lines == MOVED, done.err
