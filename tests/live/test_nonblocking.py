"""A non-blocking connect under meshfd goes through the same states as without."""

from __future__ import annotations

import pytest

from tests.support.command import Meshfd, Way, direct_way
from tests.support.processes import Processes
from tests.support.programs import Programs
from tests.support.servers import Greeter, SilentServer, dead_port


def refusing_way(meshfd: Meshfd, port: int) -> Way:
    """Return the way to a port that refuses."""
    if meshfd.bare:
        return Way("127.0.0.1", port)
    return Way("127.66.0.1", 80, ("--route", f"127.66.0.1:80=127.0.0.1:{port}"))


@pytest.mark.parametrize("mode", ["accepted", "flags"])
@pytest.mark.parametrize("extra", [(), ("--strict",), ("--track", "create")])
def test_accepted(
    mode: str,
    extra: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
) -> None:
    """EINPROGRESS, SO_ERROR 0, 0, EISCONN; O_NONBLOCK and O_CLOEXEC stay as they were asked for."""
    path = program("states")
    way = meshfd.way(greeter.listening)
    bare = processes.run([path, mode, *direct_way(greeter.listening).words])
    under = processes.run(meshfd.exec(path, mode, *way.words, options=way.options + extra))
    assert (bare.code, under.code) == (0, 0), under.err
    assert under.lines == bare.lines


@pytest.mark.parametrize("mode", ["refused", "refused-twice"])
def test_refused(mode: str, meshfd: Meshfd, program: Programs, processes: Processes) -> None:
    """A refusal is told where and when it would be without meshfd."""
    path = program("states")
    with dead_port() as port:
        way = refusing_way(meshfd, port)
        bare = processes.run([path, mode, "127.0.0.1", str(port)])
        under = processes.run(meshfd.exec(path, mode, *way.words, options=way.options))
    assert (bare.code, under.code) == (0, 0), under.err
    assert under.lines == bare.lines


def test_pending(meshfd: Meshfd, program: Programs, processes: Processes) -> None:
    """While the attempt lasts connect says EALREADY; once it was answered, 0, then EISCONN."""
    path = program("states")
    transcripts = []
    for under_meshfd in (False, True):
        with SilentServer() as silent:
            if under_meshfd:
                way = meshfd.way(silent.listening)
                command = meshfd.exec(path, "pending", *way.words, options=way.options)
            else:
                command = [str(path), "pending", *direct_way(silent.listening).words]
            running = processes.start(command)
            lines = [running.line()]
            while lines[-1] != "waiting":
                lines.append(running.line())
            silent.answer()
            rest = running.finish()
            assert rest.code == 0, rest.err
            transcripts.append(lines + rest.lines)
    assert transcripts[1] == transcripts[0]
    assert "connect meanwhile: EALREADY" in transcripts[0]
    assert "connect when done, again: EISCONN" in transcripts[0]
