"""The epoll instances that have a socket before it is connected have it afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command import KINDS, VIRTUAL, VIRTUAL_PORT, Meshfd, Way, direct_way
from tests.support.processes import Processes
from tests.support.programs import Programs
from tests.support.servers import Echo

N_INSTANCES = [1, 500]


def said(n: int, connect: str) -> list[str]:
    """Return what instances.c says of one socket where nothing is lost."""
    return [
        f"ADD: {n}",
        f"connect: {connect}",
        f"connected: {n}, outside: {n}",
        "ADD again: 0",
        f"MOD: {n}",
        f"after MOD: {n}, outside: {n}",
        f"DEL: {n}",
        "after DEL: 0, outside: 0",
        "MOD: 0",
        f"ADD: {n}",
        f"after ADD: {n}, outside: 0",
        "edge: 0, outside: 0",
        "MOD of a closed one: 0",
    ]


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
@pytest.mark.parametrize("n", N_INSTANCES)
def test_in_place(
    n: int, kind: tuple[str, ...], meshfd: Meshfd, program: Programs, processes: Processes
) -> None:
    """Events come with their data, also in an instance of instances; MOD, DEL and ADD work."""
    path = program("instances")
    with Echo() as server:
        bare = processes.run([path, str(n), *direct_way(server.listening).words])
        way = meshfd.way(server.listening)
        command = meshfd.exec(path, str(n), *way.words, options=way.options + kind)
        under = processes.run(command)
    assert bare.lines == said(n, "0") + said(n, "EINPROGRESS"), bare.err
    assert under.lines == bare.lines, under.err


@pytest.mark.parametrize("kind", [(), ("--strict",)], ids=" ".join)
@pytest.mark.parametrize("n", N_INSTANCES)
def test_replaced(
    n: int,
    kind: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    tmp_path: Path,
) -> None:
    """So it is where a unix socket takes the place of the socket."""
    meshfd.need()
    where = str(tmp_path / "echo.sock")
    way = Way(VIRTUAL, VIRTUAL_PORT, ("--route", f"{VIRTUAL}:{VIRTUAL_PORT}=unix:{where}"))
    with Echo(where):
        command = meshfd.exec(program("instances"), str(n), *way.words, options=way.options + kind)
        under = processes.run(command)
    assert under.lines == said(n, "0") + said(n, "EINPROGRESS"), under.err
