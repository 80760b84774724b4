"""Programs that no library hook could reach are redirected; ways round the filter are closed."""

from __future__ import annotations

import pytest

from tests.support.command import Meshfd
from tests.support.processes import Processes
from tests.support.programs import Programs
from tests.support.servers import Greeter

GREETED = ["connect: 0", "greeting: hello"]


@pytest.mark.parametrize("track", ["create", "connect"])
@pytest.mark.parametrize(
    ("variant", "mode"),
    [("", "direct"), ("static", "direct"), ("i386", "direct"), ("i386", "call")],
)
def test_redirected(
    variant: str,
    mode: str,
    track: str,
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
) -> None:
    """Static and i386 programs are redirected, socketcall included."""
    way = meshfd.way(greeter.listening)
    command = meshfd.exec(
        program("abi", variant), mode, *way.words, options=(*way.options, "--track", track)
    )
    assert processes.run(command).lines == GREETED


def test_strict_refuses_socketcall(
    meshfd: Meshfd, program: Programs, processes: Processes, greeter: Greeter
) -> None:
    """A strict service cannot connect through socketcall; directly it can."""
    meshfd.need()
    way = meshfd.way(greeter.listening)
    path = program("abi", "i386")
    options = (*way.options, "--strict")
    direct = processes.run(meshfd.exec(path, "direct", *way.words, options=options))
    assert direct.lines == GREETED
    call = processes.run(meshfd.exec(path, "call", *way.words, options=options))
    assert call.lines[0] == "connect: ENOSYS"


def test_ways_round(meshfd: Meshfd, program: Programs, processes: Processes) -> None:
    """io_uring and the x32 calls fail with ENOSYS, as where they are not built in."""
    meshfd.need()
    done = processes.run(meshfd.exec(program("ways_round")))
    assert done.code == 0, done.err
    assert done.lines
    assert all(line.endswith(": ENOSYS") for line in done.lines), done.lines


def test_i386_io_uring(meshfd: Meshfd, program: Programs, processes: Processes) -> None:
    """So it is for i386 programs."""
    meshfd.need()
    done = processes.run(meshfd.exec(program("ways_round", "i386")))
    assert done.lines == ["io_uring_setup: ENOSYS"]
