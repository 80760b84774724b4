"""A program that does its worst costs the others of its service nothing, and the agent little."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from meshfd.agent_process import AGENT_VARIABLE
from tests.support.command import KINDS, VIRTUAL, Meshfd, Way, direct_way
from tests.support.need import require, require_root
from tests.support.processes import Processes, Program, held_fds, written_kib
from tests.support.programs import Programs
from tests.support.servers import SYN_SENT, Greeter, SilentServer, dead_port, port_of
from tests.support.waiting import wait_until

N_THREADS = 64
N_HELD = 1000
N_WAITING = 1024  # of one process; native/meshfd.h: half of MFD_WAITS_MAX
FDS_FOR_ALL = 8300  # as README has it
N_TOO_MANY = 1100
N_GREETED = 200  # as flood.c has it
# Leases, known threads, and for each call that waits in the agent its socket and its thread.
MOST_FDS = 256 + 64 + 2 * N_HELD
GROWTH_KIB = 512


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
@pytest.mark.parametrize("mode", ["nonsense", "memory", "fds"])
def test_flood(
    mode: str,
    kind: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
) -> None:
    """Beside 64 threads that call at random, or move their memory, another is served as ever.

    What the 64 are told is in the manual pages. The agent holds little more, and lets go of it.
    """
    with dead_port() as port:
        way = meshfd.way(greeter.listening)
        dead = Way("127.0.0.1", port)
        if not meshfd.bare:
            dead = Way(VIRTUAL, 81, ("--route", f"{VIRTUAL}:81=127.0.0.1:{port}"))
        words = [mode, str(N_THREADS), *way.words, *dead.words]
        options = way.options + dead.options + kind
        running = processes.start(meshfd.exec(program("flood"), *words, options=options))
        flood(running, meshfd)


def flood(running: Program, meshfd: Meshfd) -> None:
    """Have it begin and end; look at the agent meanwhile."""
    agent = int(running.value("parent"))
    assert running.line() == f"greeted: {N_GREETED}"
    seen = os.geteuid() == 0 and not meshfd.bare  # an agent is out of an ordinary user's sight
    before = written_kib(agent) if seen else 0
    running.tell()
    assert running.line() == "begun"
    running.tell()
    assert running.line() == f"greeted: {N_GREETED}"
    if seen:
        assert len(held_fds(agent)) < MOST_FDS
    running.tell()
    assert int(running.value("calls")) > 0
    assert running.line() == "strange: 0 0"
    if seen and AGENT_VARIABLE not in os.environ:  # one that is instrumented for tests is larger
        assert written_kib(agent) <= before + GROWTH_KIB
    assert running.finish().code == 0


def n_calling(silent: SilentServer) -> int:
    """Return how many try to connect to a server that does not answer."""
    wanted = f":{port_of(silent.listening):04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[2].endswith(wanted) and row[3] == SYN_SENT for row in rows)


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
@pytest.mark.parametrize("routed", [True, False], ids=["routed", "unrouted"])
def test_held_calls(
    routed: bool,
    kind: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
    silent: SilentServer,
) -> None:
    """While a thousand threads wait in connect() others are served; then nothing of them is left.

    Needs root, to look into the agent.
    """
    require_root()
    meshfd.need()
    require(resource.getrlimit(resource.RLIMIT_NOFILE)[1] > FDS_FOR_ALL, "too few fds")
    way = meshfd.way(greeter.listening)
    slow = meshfd.way(silent.listening, port=81) if routed else direct_way(silent.listening)
    words = ["hold", str(N_HELD), *way.words, *slow.words]
    options = way.options + slow.options + kind
    running = processes.start(meshfd.exec(program("flood"), *words, options=options))
    agent = int(running.value("parent"))
    assert running.line() == f"greeted: {N_GREETED}"
    wait_until(lambda: len(held_fds(agent)) < N_THREADS, "the end of the last lease")
    before, written = len(held_fds(agent)), written_kib(agent)
    running.tell()
    assert running.line() == "begun"
    wait_until(lambda: n_calling(silent) == N_HELD, "all of the thousand")
    running.tell()
    assert running.line() == f"greeted: {N_GREETED}"
    assert running.line() == "wait: EINPROGRESS"
    assert len(held_fds(agent)) < MOST_FDS
    running.tell()
    assert running.value("calls") == "0"
    assert running.line() == "strange: 0 0"
    wait_until(lambda: len(held_fds(agent)) <= before, "the end of what was held")
    wait_until(lambda: n_calling(silent) == 0, "the end of all attempts")
    if AGENT_VARIABLE not in os.environ:
        assert written_kib(agent) <= written + GROWTH_KIB
    assert running.finish().code == 0


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "--strict" in kind], ids=" ".join)
def test_more_than_may_wait(
    kind: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
    silent: SilentServer,
) -> None:
    """In strict 1,024 calls of a process can wait; more hear EAGAIN. Another process is served.

    It can wait, too.
    """
    meshfd.need()
    require(resource.getrlimit(resource.RLIMIT_NOFILE)[1] > FDS_FOR_ALL, "too few fds")
    way = meshfd.way(greeter.listening)
    slow = meshfd.way(silent.listening, port=81)
    words = ["hold", str(N_TOO_MANY), *way.words, *slow.words]
    options = way.options + slow.options + kind
    running = processes.start(meshfd.exec(program("flood"), *words, options=options))
    running.value("parent")
    assert running.line() == f"greeted: {N_GREETED}"
    running.tell()
    assert running.line() == "begun"
    wait_until(lambda: n_calling(silent) == N_TOO_MANY, "all who call")
    running.tell()
    assert running.line() == f"greeted: {N_GREETED}"
    assert running.line() == "wait: EINPROGRESS"
    running.tell()
    n_too_many = N_TOO_MANY - N_WAITING
    assert running.value("calls") == str(n_too_many)
    assert running.line() == f"strange: {n_too_many} EAGAIN"
    assert running.finish().code == 0
