"""Whoever dies in the middle takes nobody with it, and leaves nothing."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from meshfd.agent_process import AGENT_VARIABLE
from tests.support.command import Meshfd
from tests.support.need import require_root
from tests.support.processes import Processes, Program, held_fds, resident_kib
from tests.support.programs import Programs
from tests.support.servers import Greeter, SilentServer
from tests.support.waiting import wait_until

N_VICTIMS = 200
N_VICTIMS_QUICK = 40
N_WARM_UP = 2_000
N_CONNECTS = 100_000
N_CONNECTS_QUICK = 10_000
GROWTH_KIB = 16  # a page or four; one byte a connection would be 100


def test_killed_targets(
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
    silent: SilentServer,
    quick: bool,
) -> None:
    """Programs that are killed in every stage of socket and connect leave the others served."""
    way = meshfd.way(greeter.listening)
    slow = meshfd.way(silent.listening, port=81)
    n_victims = N_VICTIMS_QUICK if quick else N_VICTIMS
    done = processes.run(
        meshfd.exec(
            program("victims"),
            str(n_victims),
            *way.words,
            *slow.words,
            options=way.options + slow.options,
        )
    )
    assert done.lines == ["connect: 0", "greeting: hello"], done.err
    assert done.code == 0


def test_killed_meshfd(meshfd: Meshfd, program: Programs, processes: Processes) -> None:
    """When meshfd itself is killed, the program does not go on unwatched: it is ended."""
    meshfd.need()
    running = processes.start(meshfd.exec("sh", "-c", "echo ready; exec sleep 1000"))
    assert running.line() == "ready"
    running.signal(signal.SIGKILL)
    running.wait()
    wait_until(lambda: not processes.running(), "the end of all that meshfd had started")


def _wait_for_fds(agent: int, before: list[str]) -> None:
    """Return when an agent holds no more than ``before``, when it may have just started.

    For a moment it then keeps a pidfd of its own, too.
    """
    wait_until(lambda: set(held_fds(agent)) <= set(before), "the end of the last lease")


def _round(hammer: Program) -> None:
    hammer.tell()
    assert hammer.line() == "done"


@pytest.mark.parametrize("track", ["create", "connect"])
def test_nothing_is_left(
    track: str, meshfd: Meshfd, program: Programs, processes: Processes, quick: bool
) -> None:
    """100,000 connections leave no fd and no memory behind in the agent."""
    require_root()  # an agent's fds are out of an ordinary user's sight
    meshfd.need()
    n_connects = N_CONNECTS_QUICK if quick else N_CONNECTS
    sink = processes.start([program("sink")])
    there = f"127.0.0.1:{sink.value('port')}"
    route = ("--route", f"127.66.0.1:80={there}", "--track", track)
    hammer = processes.start(
        meshfd.exec(program("hammer"), "127.66.0.1", "80", str(N_WARM_UP), options=route)
    )
    agent = int(hammer.value("parent"))
    before = held_fds(agent)
    _round(hammer)
    _wait_for_fds(agent, before)
    before = held_fds(agent)
    kib = resident_kib(agent)
    for _ in range(n_connects // N_WARM_UP):
        _round(hammer)
    _wait_for_fds(agent, before)
    assert resident_kib(agent) <= kib + GROWTH_KIB
    if AGENT_VARIABLE not in os.environ:  # one that is instrumented for tests is larger
        assert resident_kib(agent) < 2048
    assert hammer.finish().out == ""


def test_nothing_is_left_by_the_unused(
    meshfd: Meshfd, program: Programs, processes: Processes, greeter: Greeter
) -> None:
    """Sockets that are made and never used are let go of, whether closed or kept."""
    require_root()  # an agent's fds are out of an ordinary user's sight
    meshfd.need()
    code = (
        "import os, socket, sys\n"
        "print(os.getppid(), flush=True)\n"
        "sys.stdin.readline()\n"
        "kept = [socket.socket() for _ in range(400)]\n"
        "for _ in range(400): socket.socket().close()\n"
        "print('made', flush=True)\n"
        "sys.stdin.readline()\n"
    )
    create = ("--track", "create")
    running = processes.start(meshfd.exec(sys.executable, "-c", code, options=create))
    agent = int(running.line())
    before = held_fds(agent)
    running.tell()
    assert running.line() == "made"
    _wait_for_fds(agent, before)
    assert running.finish().code == 0
