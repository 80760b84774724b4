"""What a program has put in its epoll instances is there when a unix socket takes the place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.command import Meshfd, Way, direct_way, way_to
from tests.support.need import require_tool
from tests.support.processes import Processes
from tests.support.programs import Programs
from tests.support.servers import Echo

MODES = [
    "oneshot",
    "closed",
    "reused",
    "anew",
    "thread",
    "daemon",
    "child",
    "last",
    "raced",
    "many",
    "asleep",
]
FEW_FDS = 1024
"""A hard limit that old systems have: for the program, and for its agent."""


@pytest.fixture(autouse=True)
def _about_meshfd(meshfd: Meshfd) -> None:
    meshfd.need()


def logged_way(where: str) -> Way:
    """Return a way from the virtual address to a unix socket, which is logged."""
    way = way_to(f"unix:{where}")
    return replace(way, options=(*way.options, "--log", "-"))


@pytest.mark.parametrize("mode", MODES)
def test_as_bare(
    mode: str, meshfd: Meshfd, program: Programs, processes: Processes, tmp_path: Path
) -> None:
    """The instances report what they report of a TCP socket, and nothing is logged as lost."""
    path = program("registrations")
    where = str(tmp_path / "echo.sock")
    way = logged_way(where)
    with Echo() as tcp, Echo(where):
        bare = processes.run([path, mode, *direct_way(tcp.listening).words])
        under = processes.run(meshfd.exec(path, mode, *way.words, options=way.options))
    assert (bare.code, under.code) == (0, 0), under.err
    assert under.lines == bare.lines, under.err
    assert "epoll" not in under.err


@pytest.mark.parametrize("variant", ["static", "i386"])
@pytest.mark.parametrize("mode", ["oneshot", "closed", "many", "asleep"])
def test_other_programs(
    mode: str,
    variant: str,
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    tmp_path: Path,
) -> None:
    """So they do in static and 32-bit programs."""
    path = program("registrations", variant)
    where = str(tmp_path / "echo.sock")
    way = logged_way(where)
    with Echo() as tcp, Echo(where):
        bare = processes.run([path, mode, *direct_way(tcp.listening).words])
        under = processes.run(meshfd.exec(path, mode, *way.words, options=way.options))
    assert under.lines == bare.lines, under.err


@pytest.mark.parametrize("mode", ["many", "last"])
def test_few_fds(
    mode: str, meshfd: Meshfd, program: Programs, processes: Processes, tmp_path: Path
) -> None:
    """Where agent and program may have few fds, no registration is lost either."""
    path = program("registrations")
    where = str(tmp_path / "echo.sock")
    way = logged_way(where)
    limited = [require_tool("prlimit"), f"--nofile={FEW_FDS}:{FEW_FDS}"]
    with Echo() as tcp, Echo(where):
        bare = processes.run([*limited, path, mode, *direct_way(tcp.listening).words])
        command = meshfd.exec(path, mode, *way.words, options=way.options)
        under = processes.run([*limited, *command])
    assert (bare.code, under.code) == (0, 0), under.err
    assert under.lines == bare.lines, under.err
