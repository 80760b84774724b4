"""Datagrams with sizes, counts and times that no program means: told what the kernel would tell."""

from __future__ import annotations

import pytest

from tests.support.command import VIRTUAL, Meshfd, address_of
from tests.support.processes import Processes
from tests.support.programs import Programs
from tests.support.servers import Echoer

WAYS = {"transparent": ("--transparent",), "strict": ("--transparent", "--strict")}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("variant", ["", "i386"])
@pytest.mark.parametrize("scenario", ["send", "receive", "times"])
def test_lengths(
    scenario: str,
    variant: str,
    way: str,
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
) -> None:
    """Lengths up to SIZE_MAX, memory that is not the program's, padded times: as in a bare run.

    Redirected, and passed where UDP is routed; i386 programs by their own calls and layouts.
    """
    meshfd.need()
    path = program("lengths", variant)
    with Echoer() as server:
        host, port = server.socket.getsockname()
        bare = processes.run([path, scenario, host, str(port)])
        assert bare.code == 0, bare.err
        options = ("--route", f"udp:{VIRTUAL}:53={address_of(server.socket)}", *WAYS[way])
        for words in ((VIRTUAL, "53"), (host, str(port))):
            under = processes.run(meshfd.exec(path, scenario, *words, options=options))
            assert (under.lines, under.err) == (bare.lines, "")
