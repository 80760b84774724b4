"""Sends that name NULL, or memory that is not there, as an address: the kernel's answers."""

from __future__ import annotations

import os
import socket

import pytest

from tests.support.command import VIRTUAL, Meshfd, address_of
from tests.support.need import require
from tests.support.processes import Processes
from tests.support.programs import Programs
from tests.support.servers import Echoer, Greeter

# TCP Fast Open is refused in a strict service (README).
KINDS = [
    ("--track", "connect"),
    ("--track", "create"),
    ("--transparent",),
    ("--strict", "--transparent"),
]


@pytest.mark.parametrize(
    ("variant", "kind"), [*(("", kind) for kind in KINDS), ("i386", KINDS[0])], ids=str
)
def test_no_address(
    variant: str,
    kind: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
) -> None:
    """NULL is no address whatever the length, also where root has put one at NULL."""
    meshfd.need()
    path = program("no_address", variant)
    with Echoer() as echoer:
        servers = {0: echoer.socket, int(socket.MSG_FASTOPEN): greeter.listening}
        routes = (
            *("--route", f"udp:{VIRTUAL}:53={address_of(echoer.socket)}"),
            *("--route", f"{VIRTUAL}:53={address_of(greeter.listening)}"),
        )
        for flags, server in servers.items():
            if flags != 0 and "--strict" in kind:
                continue
            host, port = server.getsockname()
            bare = processes.run([path, host, str(port), str(flags)])
            assert bare.code == 0, bare.err
            has_null = "memory at NULL: 0" in bare.lines
            require(has_null or os.geteuid() != 0, "not even root may have memory at NULL")
            command = meshfd.exec(path, VIRTUAL, "53", str(flags), options=(*routes, *kind))
            under = processes.run(command)
            assert under.lines == bare.lines, under.err
        assert echoer.n_heard == 0
    assert greeter.n_greeted == 0
