"""TCP Fast Open connects without connect(): it is routed all the same."""

from __future__ import annotations

import pytest

from tests.support.command import Meshfd, Way, address_of, direct_way
from tests.support.processes import Processes
from tests.support.programs import Programs
from tests.support.servers import Greeter, Repeater, dead_port

MODES = ["blocking", "nonblocking", "dontwait", "message", "option"]


@pytest.mark.parametrize("track", ["create", "connect"])
@pytest.mark.parametrize("mode", MODES)
def test_redirected(
    mode: str,
    track: str,
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
) -> None:
    """A send that connects reaches the endpoint, and returns what it returns in a bare run."""
    path = program("send_open")
    with Repeater() as server:
        bare = processes.run([path, mode, *direct_way(server.listening).words])
        way = meshfd.way(server.listening)
        options = (*way.options, "--track", track)
        under = processes.run(meshfd.exec(path, mode, *way.words, options=options))
    assert under.lines == bare.lines, under.err
    assert "end: 0" in bare.lines


@pytest.mark.parametrize("mode", ["blocking", "nonblocking"])
def test_refused(mode: str, meshfd: Meshfd, program: Programs, processes: Processes) -> None:
    """An endpoint that refuses does so as in a bare run."""
    path = program("send_open")
    with dead_port() as port:
        bare = processes.run([path, mode, "127.0.0.1", str(port)])
        way = Way("127.66.0.1", 80, ("--route", f"127.66.0.1:80=127.0.0.1:{port}"))
        under = processes.run(meshfd.exec(path, mode, *way.words, options=way.options))
    assert under.lines[:2] == bare.lines[:2]


def test_denied(meshfd: Meshfd, program: Programs, processes: Processes, greeter: Greeter) -> None:
    """A denied address is not reached; in a strict service there is no TCP Fast Open."""
    meshfd.need()
    path = program("send_open")
    way = direct_way(greeter.listening)
    deny = ("--route", f"{address_of(greeter.listening)}=deny=EACCES")
    for mode in ("blocking", "nonblocking", "message"):
        done = processes.run(meshfd.exec(path, mode, *way.words, options=deny))
        assert done.lines == ["open: EACCES"]
        done = processes.run(meshfd.exec(path, mode, *way.words, options=("--strict",)))
        assert done.lines == ["open: EOPNOTSUPP"]
    assert greeter.n_greeted == 0
