"""A blocking connect under meshfd waits in the kernel, as without: signals, time-outs, Ctrl-C."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from tests.support.command import Meshfd, Way, direct_way
from tests.support.netns import UNREACHABLE, make_unreachable
from tests.support.processes import Finished, Processes, Program
from tests.support.programs import Programs
from tests.support.servers import SilentServer, dead_port
from tests.support.terminal import Terminal

Act = Callable[[Program, int, SilentServer], list[str]]


def lines_until_waiting(running: Program) -> list[str]:
    """Return the program's steps up to the point where it waits for the server."""
    lines = [running.line()]
    while lines[-1] != "waiting":
        lines.append(running.line())
    return lines


def transcript(
    command: Callable[[SilentServer], list[str]], processes: Processes, act: Act
) -> tuple[list[str], Finished]:
    """Run waits.c against a silent server, let ``act`` happen to it, return what it said."""
    with SilentServer() as silent:
        running = processes.start(command(silent))
        pid = int(running.value("pid"))
        silent.wait_for_caller()
        lines = act(running, pid, silent)
        rest = running.finish()
        return lines + rest.lines, rest


def interrupted(running: Program, pid: int, silent: SilentServer) -> list[str]:
    """Signal it; let the server answer when connect has failed."""
    os.kill(pid, signal.SIGUSR1)
    lines = lines_until_waiting(running)
    silent.answer()
    return lines


def restarted(running: Program, pid: int, silent: SilentServer) -> list[str]:
    """Signal it, twice; let the server answer when the handler has run, and connect waits again."""
    lines = []
    for _ in range(2):
        os.kill(pid, signal.SIGUSR1)
        lines.append(running.line())
    silent.answer()
    return lines


def timed_out(running: Program, pid: int, silent: SilentServer) -> list[str]:
    """Let the server answer when the time is over."""
    lines = lines_until_waiting(running)
    silent.answer()
    return lines


def answered(running: Program, pid: int, silent: SilentServer) -> list[str]:
    """Let the server answer."""
    silent.answer()
    return []


@pytest.fixture(scope="module")
def seen_bare() -> dict[tuple[str, str], list[str]]:
    """What each variant and mode of waits.c says without meshfd; each takes a SYN's second."""
    return {}


# Who makes the connection, and who waits for it: the kernel, or the agent.
WAYS = {
    "passed": ((), False),
    "redirected": ((), True),
    "strict-passed": (("--strict",), False),
    "strict-redirected": (("--strict",), True),
    "created": (("--track", "create"), True),
}


@pytest.mark.parametrize(
    ("mode", "act", "expected"),
    [
        pytest.param("plain", answered, "connect: 0", id="waits"),
        pytest.param("handler", interrupted, "connect: EINTR", id="handler"),
        pytest.param("restart", restarted, "connect: 0", id="handler-restart"),
        pytest.param("timeout", timed_out, "connect: EINPROGRESS", id="timeout"),
        pytest.param("timeout-restart", interrupted, "connect: EINTR", id="timeout-and-handler"),
        pytest.param("thread", interrupted, "connect: EINTR", id="handler-of-a-thread"),
        pytest.param("second", timed_out, "connect again: EALREADY", id="second-times-out"),
    ],
)
@pytest.mark.parametrize(
    ("variant", "way"),
    [*(("", way) for way in WAYS), ("i386", "redirected"), ("i386", "strict-redirected")],
)
def test_wait(
    variant: str,
    way: str,
    mode: str,
    act: Act,
    expected: str,
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    seen_bare: dict[tuple[str, str], list[str]],
) -> None:
    """A waiting connect ends by the answer, a handler without SA_RESTART, or SO_SNDTIMEO.

    With SA_RESTART it goes on waiting. What a second connect says afterwards is the same, too. An
    i386 program calls through socketcall(2).
    """
    path = program("waits", variant)
    options, is_redirected = WAYS[way]

    def bare(silent: SilentServer) -> list[str]:
        return [str(path), mode, *direct_way(silent.listening).words]

    def under(silent: SilentServer) -> list[str]:
        to = meshfd.way(silent.listening) if is_redirected else direct_way(silent.listening)
        return meshfd.exec(path, mode, *to.words, options=(*options, *to.options))

    if (variant, mode) not in seen_bare:
        seen_bare[variant, mode], _ = transcript(bare, processes, act)
    seen = seen_bare[variant, mode]
    assert expected in seen
    also_seen, rest = transcript(under, processes, act)
    assert rest.code == 0, rest.err
    assert also_seen == seen


@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGKILL])
def test_deadly_signal(
    signo: signal.Signals,
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    silent: SilentServer,
) -> None:
    """A signal that kills the program kills it in the middle of a connect."""
    way = meshfd.way(silent.listening)
    running = processes.start(
        meshfd.exec(program("waits"), "plain", *way.words, options=way.options)
    )
    pid = int(running.value("pid"))
    silent.wait_for_caller()
    os.kill(pid, signo)
    assert running.wait() == (-signo if meshfd.bare else 128 + signo)


def test_ctrl_c(
    meshfd: Meshfd, program: Programs, processes: Processes, silent: SilentServer
) -> None:
    """Ctrl-C ends a program that waits in connect, with status 130."""
    way = meshfd.way(silent.listening)
    command = meshfd.exec(program("waits"), "plain", *way.words, options=way.options)
    with Terminal(processes, command) as terminal:
        terminal.expect("pid: ")
        silent.wait_for_caller()
        terminal.type("\x03")
        assert terminal.program.wait() == (-signal.SIGINT if meshfd.bare else 130)


def test_refused(meshfd: Meshfd, program: Programs, processes: Processes) -> None:
    """A refused blocking connect says ECONNREFUSED."""
    with dead_port() as port:
        way = Way("127.66.0.1", 80, ("--route", f"127.66.0.1:80=127.0.0.1:{port}"))
        if meshfd.bare:
            way = Way("127.0.0.1", port)
        done = processes.run(meshfd.exec(program("dial"), *way.words, options=way.options))
    assert done.lines == ["connect: ECONNREFUSED"]


@pytest.mark.parametrize("name", UNREACHABLE)
@pytest.mark.parametrize("redirected", [False, True])
def test_unreachable(
    name: str, redirected: bool, meshfd: Meshfd, program: Programs, processes: Processes
) -> None:
    """An endpoint or unrouted destination that cannot be reached gives the kernel's errno.

    Needs root.
    """
    make_unreachable()
    options: tuple[str, ...] = ()
    host, port = UNREACHABLE[name], "80"
    if redirected and not meshfd.bare:
        options = ("--route", f"127.66.0.1:80={host}:{port}")
        host = "127.66.0.1"
    done = processes.run(meshfd.exec(program("dial"), host, port, options=options))
    assert done.lines == [f"connect: {name}"]
