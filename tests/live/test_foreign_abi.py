"""Programs that no library hook could reach are redirected; ways round the filter are closed."""

from __future__ import annotations

import platform

import pytest

from tests.support.command import Meshfd, direct_way
from tests.support.need import require
from tests.support.processes import Processes
from tests.support.programs import Programs
from tests.support.servers import Greeter

GREETED = ["connect: 0", "greeting: hello"]


def need_gate(program: Programs, processes: Processes) -> None:
    """Skip where an x86-64 program has no int 0x80 (another machine, or a kernel without i386)."""
    if platform.machine() != "x86_64":
        pytest.skip("int 0x80 is x86's")
    done = processes.run([program("abi"), "gate", "127.66.0.1", "80"])
    require(done.lines == ["connect: ECONNREFUSED"], "the kernel has no i386 entry")


@pytest.mark.parametrize(
    "way_options", [("--track", "create"), ("--track", "connect"), ("--strict",)]
)
@pytest.mark.parametrize(
    ("variant", "mode"),
    [
        ("", "direct"),
        ("static", "direct"),
        ("i386", "direct"),
        ("i386", "call"),
        ("", "gate"),
        ("", "gate-call"),
    ],
)
def test_redirected(
    variant: str,
    mode: str,
    way_options: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
) -> None:
    """Static and i386 programs are redirected, socketcall and int 0x80 included."""
    if mode.startswith("gate"):
        need_gate(program, processes)
    way = meshfd.way(greeter.listening)
    command = meshfd.exec(
        program("abi", variant), mode, *way.words, options=(*way.options, *way_options)
    )
    assert processes.run(command).lines == GREETED


def test_strict_gate(
    meshfd: Meshfd, program: Programs, processes: Processes, greeter: Greeter
) -> None:
    """Through int 0x80 an x86-64 program gets no further, by neither way."""
    meshfd.need()
    need_gate(program, processes)
    host, port = direct_way(greeter.listening).words
    options = ("--strict", "--deny", f"{host}:{port}")
    seen = [
        processes.run(meshfd.exec(program("abi"), mode, host, port, options=options)).lines
        for mode in ("gate", "gate-call")
    ]
    assert seen == [["connect: ECONNREFUSED"], ["connect: ECONNREFUSED"]]
    assert greeter.n_greeted == 0


def test_ways_round(meshfd: Meshfd, program: Programs, processes: Processes) -> None:
    """io_uring and the x32 calls fail with ENOSYS, as where they are not built in."""
    meshfd.need()
    done = processes.run(meshfd.exec(program("ways_round")))
    assert done.code == 0, done.err
    assert done.lines
    assert all(line.endswith(": ENOSYS") for line in done.lines), done.lines


def test_io_uring_allowed(meshfd: Meshfd, program: Programs, processes: Processes) -> None:
    """Where it is asked for, io_uring is what it is without meshfd; the other ways stay shut."""
    meshfd.need()
    bare, *_ = processes.run([program("ways_round")]).lines
    done = processes.run(meshfd.exec(program("ways_round"), options=("--io-uring", "allow")))
    assert done.lines[0] == bare
    assert all(line.endswith(": ENOSYS") for line in done.lines[1:]), done.lines


def test_ring(meshfd: Meshfd, program: Programs, processes: Processes, greeter: Greeter) -> None:
    """A program of liburing's falls back and is redirected; allowed, what it does goes unseen."""
    meshfd.need()
    path = program("ring", "uring")
    way = meshfd.way(greeter.listening)
    fallen_back = processes.run(meshfd.exec(path, *way.words, options=way.options))
    assert fallen_back.lines == ["ring: ENOSYS", *GREETED]
    unseen = processes.run(
        meshfd.exec(path, *way.words, options=(*way.options, "--io-uring", "allow"))
    )
    assert unseen.lines == ["ring: 0", "connect: ECONNREFUSED"]


def test_i386_io_uring(meshfd: Meshfd, program: Programs, processes: Processes) -> None:
    """So it is for i386 programs."""
    meshfd.need()
    done = processes.run(meshfd.exec(program("ways_round", "i386")))
    assert done.lines == ["io_uring_setup: ENOSYS"]
