"""Where a unix socket's queue is full, a blocking connect() waits, as that of TCP does."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.support.command import Meshfd, Way, address_of, way_to
from tests.support.need import require_root
from tests.support.processes import Processes, Program
from tests.support.programs import Programs
from tests.support.servers import Echo, FullQueue, dead_port, listening_socket
from tests.support.waiting import wait_until

N_CALLERS = 40


@pytest.fixture(autouse=True)
def _about_meshfd(meshfd: Meshfd) -> None:
    meshfd.need()


@pytest.fixture
def where(tmp_path: Path) -> str:
    """Return where the socket is made."""
    return str(tmp_path / "full.sock")


def wait_for_caller(pid: int) -> None:
    """Return when a thread of this process waits for the agent."""

    def waits() -> bool:
        places = [(task / "wchan").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
        return any(place.startswith("seccomp_do_user_notif") for place in places)

    wait_until(waits, "a call that waits")
    if os.geteuid() == 0:  # an agent's fds are out of an ordinary user's sight
        (agent,) = (int(line.split()[1]) for line in _status(pid) if line.startswith("PPid:"))
        wait_until(lambda: _has_timer(agent), "the agent to have the call")


def _status(pid: int) -> list[str]:
    return Path("/proc", str(pid), "status").read_text().splitlines()


def _has_timer(agent: int) -> bool:
    """Whether a process holds a timer, by which the agent looks for room."""
    for entry in Path("/proc", str(agent), "fd").iterdir():
        with contextlib.suppress(OSError):  # it was closed meanwhile
            if entry.readlink() == Path("anon_inode:[timerfd]"):
                return True
    return False


def start(
    mode: str, way: Way, meshfd: Meshfd, program: Programs, processes: Processes, *extra: str
) -> tuple[Program, int]:
    """Start waits.c, and return it when its connect() waits."""
    running = processes.start(
        meshfd.exec(program("waits"), mode, *way.words, options=(*way.options, *extra))
    )
    pid = int(running.value("pid"))
    wait_for_caller(pid)
    return running, pid


CONNECTED = ["connect: 0", "flags: 02", "connect again: EISCONN"]
LATER = ["flags: 02", "waiting", "connect when done: 0", "connect when done, again: EISCONN"]


@pytest.mark.parametrize("extra", [(), ("--strict",), ("--track", "create")], ids=str)
def test_room(
    extra: tuple[str, ...],
    where: str,
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
) -> None:
    """It is connected as soon as there is room."""
    with FullQueue(where) as full:
        running, _ = start("plain", way_to(f"unix:{where}"), meshfd, program, processes, *extra)
        full.answer()
        done = running.finish()
    assert (done.code, done.lines) == (0, CONNECTED), done.err


@pytest.mark.parametrize(
    ("mode", "n_signals", "expected"),
    [
        ("handler", 1, ["handled", "connect: EINTR", *LATER]),
        ("restart", 2, ["handled", "handled", *CONNECTED]),
        ("timeout-restart", 1, ["handled", "connect: EINTR", *LATER]),
        ("thread", 1, ["handled", "connect: EINTR", *LATER]),
        ("timeout", 0, ["connect: ETIMEDOUT", *LATER]),
    ],
)
def test_end(
    mode: str,
    n_signals: int,
    expected: list[str],
    where: str,
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
) -> None:
    """A handler ends it, or starts it anew with SA_RESTART; SO_SNDTIMEO ends it, too.

    README, limits: before the agent has the call, SA_RESTART counts in spite of SO_SNDTIMEO.
    """
    if mode == "timeout-restart":
        require_root()  # to see that it has
    with FullQueue(where) as full:
        running, pid = start(mode, way_to(f"unix:{where}"), meshfd, program, processes)
        lines = []
        for _ in range(n_signals):
            os.kill(pid, signal.SIGUSR1)
            lines.append(running.line())
        while "waiting" in expected and (not lines or lines[-1] != "waiting"):
            lines.append(running.line())
        full.answer()
        done = running.finish()
    assert lines + done.lines == expected, done.err


def test_server_ends(where: str, meshfd: Meshfd, program: Programs, processes: Processes) -> None:
    """It is refused when nobody listens any more."""
    with FullQueue(where) as full:
        running, _ = start("plain", way_to(f"unix:{where}"), meshfd, program, processes)
        full.listening.close()
        assert running.line() == "connect: ECONNREFUSED"
        running.popen.kill()


def test_killed(where: str, meshfd: Meshfd, program: Programs, processes: Processes) -> None:
    """A program that is killed while it waits is gone at once."""
    with FullQueue(where):
        running, pid = start("plain", way_to(f"unix:{where}"), meshfd, program, processes)
        os.kill(pid, signal.SIGKILL)
        assert running.wait() == 128 + signal.SIGKILL


def test_others_first(where: str, meshfd: Meshfd, program: Programs, processes: Processes) -> None:
    """An endpoint that serves now is taken; one that refuses for good is not waited for."""
    with FullQueue(where) as full, listening_socket() as other, dead_port() as port:
        way = way_to(f"unix:{where}", address_of(other))
        done = processes.run(
            meshfd.exec(program("waits"), "plain", *way.words, options=way.options)
        )
        assert done.lines[1:] == CONNECTED
        way = way_to(f"unix:{where}", f"unix:{where}.none", f"127.0.0.1:{port}")
        running, _ = start("plain", way, meshfd, program, processes)
        full.answer()
        assert running.finish().lines == CONNECTED


def test_without_waiting(
    where: str, meshfd: Meshfd, program: Programs, processes: Processes
) -> None:
    """A connect() that may not wait is refused at once."""
    with FullQueue(where):
        way = way_to(f"unix:{where}")
        done = processes.run(
            meshfd.exec(program("states"), "accepted", *way.words, options=way.options)
        )
    assert "connect: ECONNREFUSED" in done.lines, done.out


BURST = """\
import select, socket, sys, threading
def call():
    with socket.socket() as caller, select.epoll() as events:
        events.register(caller, select.EPOLLIN)
        caller.connect((sys.argv[1], int(sys.argv[2])))
        if events.poll(30) == [(caller.fileno(), select.EPOLLIN)]:
            print(caller.recv(100).decode(), end="", flush=True)
threads = [threading.Thread(target=call) for _ in range(N_CALLERS)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def test_burst(where: str, meshfd: Meshfd, processes: Processes) -> None:
    """Many that come at once are served, each in its turn, and their instances report it."""
    way = way_to(f"unix:{where}")
    script = BURST.replace("N_CALLERS", str(N_CALLERS))
    with Echo(where, backlog=0):
        done = processes.run(
            meshfd.exec(sys.executable, "-c", script, *way.words, options=way.options)
        )
    assert done.lines == ["hello"] * N_CALLERS, done.err
