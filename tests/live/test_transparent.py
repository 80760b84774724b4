"""A transparent service is told the address that it asked for; others are told the endpoint."""

from __future__ import annotations

import socket

import pytest

from tests.support.command import VIRTUAL, VIRTUAL_PORT, Meshfd, address_of, written
from tests.support.processes import Processes
from tests.support.programs import Programs
from tests.support.servers import Greeter

VIRTUALS = {socket.AF_INET: VIRTUAL, socket.AF_INET6: "2001:db8::1"}


@pytest.mark.parametrize("extra", [(), ("--strict",), ("--track", "create")], ids=str)
@pytest.mark.parametrize("variant", ["", "i386"])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("mode", ["blocking", "nonblocking"])
def test_peer(
    mode: str,
    family: socket.AddressFamily,
    variant: str,
    extra: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
) -> None:
    """getpeername() says what was asked for, with the lengths and errors of a bare run."""
    meshfd.need()
    path = program("peername", variant)
    virtual = VIRTUALS[family]
    with Greeter(family=family) as greeter:
        host, port = greeter.listening.getsockname()[:2]
        bare = processes.run([path, mode, host, str(port)]).lines
        route = f"{written(virtual, VIRTUAL_PORT)}={address_of(greeter.listening)}"
        told = processes.run(
            meshfd.exec(
                path,
                mode,
                virtual,
                str(VIRTUAL_PORT),
                options=("--route", route, "--transparent", *extra),
            )
        )
        plain = processes.run(
            meshfd.exec(path, mode, virtual, str(VIRTUAL_PORT), options=("--route", route, *extra))
        )
    assert told.lines == bare, told.err
    assert f"peer: {written(host, port)}" in plain.lines


def test_mapped_peer(meshfd: Meshfd, program: Programs, processes: Processes) -> None:
    """An IPv6 socket that asked for a mapped address is told a mapped address."""
    meshfd.need()
    path = program("peername")
    with Greeter() as greeter:
        options = ("--route", f"{VIRTUAL}:80={address_of(greeter.listening)}", "--transparent")
        done = processes.run(
            meshfd.exec(path, "blocking", f"::ffff:{VIRTUAL}", "80", options=options)
        )
    assert done.lines[0] == "before: ENOTCONN"
    assert "peer: as asked" in done.lines


def test_connected_elsewhere(meshfd: Meshfd, program: Programs, processes: Processes) -> None:
    """A socket that has been used again is told its new peer, not the old one."""
    meshfd.need()
    with Greeter("first") as first, Greeter("second") as second:
        options = ("--route", f"{VIRTUAL}:80={address_of(first.listening)}", "--transparent")
        host, port = second.listening.getsockname()
        done = processes.run(
            meshfd.exec(
                program("peername"), "reuse", VIRTUAL, "80", host, str(port), options=options
            )
        )
    assert done.lines == ["peer: as asked", "disconnect: 0", f"peer: {host}:{port}"]


@pytest.mark.parametrize("extra", [(), ("--strict",), ("--track", "create")], ids=str)
def test_connected_to_the_endpoint_itself(
    extra: tuple[str, ...], meshfd: Meshfd, program: Programs, processes: Processes
) -> None:
    """A socket that asks for the endpoint, after it was led there, is told the endpoint."""
    meshfd.need()
    with Greeter() as greeter:
        there = address_of(greeter.listening)
        options = ("--route", f"{VIRTUAL}:80={there}", "--transparent", *extra)
        words = ("reuse", VIRTUAL, "80", *greeter.listening.getsockname()[:2])
        done = processes.run(meshfd.exec(program("peername"), *map(str, words), options=options))
    assert done.lines == ["peer: as asked", "disconnect: 0", f"peer: {there}"], done.err
