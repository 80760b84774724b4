"""Rings of io_uring that somebody made before the filter was there, and passed to a program."""

from __future__ import annotations

import pytest

from tests.support.command import Meshfd, Word, address_of
from tests.support.need import require
from tests.support.processes import Finished, Processes
from tests.support.programs import Programs
from tests.support.servers import Greeter

STRICT = ("--strict",)
ALLOWED = ("--io-uring", "allow")


def run(
    mode: str, path: Word, server: Greeter, command: list[str], processes: Processes
) -> Finished:
    """Have passed_ring.c make a ring, and pass it to a command that uses it."""
    host, port = server.listening.getsockname()
    done = processes.run([path, mode, host, str(port), *command])
    require("io_uring_setup" not in done.err, f"rings cannot be made here: {done.err}")
    return done


@pytest.mark.parametrize("options", [(), STRICT, ALLOWED], ids=str)
def test_passed_ring(
    options: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
) -> None:
    """A ring that was passed in cannot be used; where io_uring is allowed it goes unseen."""
    meshfd.need()
    path = program("passed_ring")
    bare = run("make", path, greeter, [str(path)], processes)
    assert bare.lines == [
        "register: EINVAL",
        "enter: 0",
        "peer of the user: 0",
        "peer of the maker: ENOTCONN",
    ]
    denied = ("--route", f"{address_of(greeter.listening)}=deny=EACCES", *options)
    under = run("make", path, greeter, meshfd.exec(path, options=denied), processes)
    if options == ALLOWED:
        assert under.lines == bare.lines, under.err
    else:
        assert under.lines == [
            "register: ENOSYS",
            "enter: ENOSYS",
            "peer of the user: ENOTCONN",
            "peer of the maker: ENOTCONN",
        ], under.err


@pytest.mark.parametrize("options", [(), STRICT], ids=str)
def test_passed_ring_that_is_polled(
    options: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
) -> None:
    """(README, limits.) Another process's ring with a thread works on that process's sockets."""
    meshfd.need()
    path = program("passed_ring")
    denied = ("--route", f"{address_of(greeter.listening)}=deny=EACCES", *options)
    under = run("poll", path, greeter, meshfd.exec(path, options=denied), processes)
    assert under.lines == [
        "register: ENOSYS",
        "peer of the user: ENOTCONN",
        "peer of the maker: 0",
    ], under.err
