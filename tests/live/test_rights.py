"""meshfd lends nobody its rights: who may not do a thing alone may not do it under meshfd."""

from __future__ import annotations

import sys

import pytest

from tests.support.command import Meshfd, direct_way
from tests.support.need import require_root, require_tool
from tests.support.ordinary_user import NOBODY, as_ordinary_user
from tests.support.processes import Processes
from tests.support.programs import Programs
from tests.support.servers import Greeter, free_port

# Options under which sockets are made, or connected, by the agent.
MODES = ["strict", "route", "route-strict", "listen"]


def options_of(mode: str) -> tuple[str, ...]:
    """Return meshfd's options."""
    options: tuple[str, ...] = ()
    if "strict" in mode:
        options += ("--strict",)
    if "route" in mode:
        options += ("--route", "127.66.0.1:80=127.0.0.1:9")
    if "listen" in mode:
        options += ("--listen", f"127.0.0.1:{free_port()}")
    return options


@pytest.mark.parametrize("mode", MODES)
def test_network_namespace(
    mode: str, meshfd: Meshfd, program: Programs, processes: Processes, greeter: Greeter
) -> None:
    """A program that has moved to another network has its sockets there. Needs root."""
    require_root()
    way = direct_way(greeter.listening)
    inner = [require_tool("unshare"), "--net", "--", str(program("dial")), *way.words]
    bare = processes.run(inner)
    under = processes.run(meshfd.exec(*inner, options=options_of(mode)))
    assert bare.lines == ["connect: ENETUNREACH"]
    assert under.lines == bare.lines


@pytest.mark.parametrize("mode", MODES)
def test_owner(mode: str, meshfd: Meshfd, processes: Processes) -> None:
    """A program that has become another user has its sockets as that user. Needs root."""
    require_root()
    code = "import os, socket; one = socket.socket(); print(os.fstat(one.fileno()).st_uid)"
    inner = as_ordinary_user([sys.executable, "-c", code])
    under = processes.run(meshfd.exec(*inner, options=options_of(mode)))
    assert under.out == f"{NOBODY}\n", under.err


@pytest.mark.parametrize("track", ["create", "connect"])
def test_unreadable(
    track: str, meshfd: Meshfd, program: Programs, processes: Processes, greeter: Greeter
) -> None:
    """A program that closed itself to others is not routed, which is said; in strict it is denied.

    Only an ordinary user's meshfd is locked out so.
    """
    meshfd.need()
    way = meshfd.way(greeter.listening)
    options = (*way.options, "--track", track)
    for extra, result in (((), "connect: ECONNREFUSED"), (("--strict",), "connect: EACCES")):
        command = meshfd.exec(program("unreadable"), *way.words, options=options + extra)
        done = processes.run(as_ordinary_user(command), cwd="/")
        assert done.lines == [result]
        assert "non-dumpable" in done.err
