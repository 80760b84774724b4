"""Where fds are scarce, or their numbers large, calls end as without meshfd."""

from __future__ import annotations

import resource
import sys

import pytest

from meshfd.agent_process import AGENT_VARIABLE, LEAST_FDS
from tests.support.command import KINDS, Meshfd, direct_way
from tests.support.processes import Processes
from tests.support.programs import Programs
from tests.support.servers import Greeter, free_port

GREETED = ["connect: 0", "greeting: hello"]
FEW = 64  # and many: as many as we may have ourselves
LEAST_FOR_PYTHON = 12  # enough to start it
CHANNEL_FDS = 2  # both its ends are ours until the agent has its own

# Start an agent with 0, 1 and so on numbers free; say what came of it, and how many it still holds.
STARTER = """
import errno, fcntl, os, resource, sys
from meshfd.agent_process import LEAST_FDS, start_agent
from meshfd.errors import NotSupportedError

def is_open(fd):
    try:
        return fcntl.fcntl(fd, fcntl.F_GETFD) >= 0
    except OSError:
        return False

def n_open():
    return sum(map(is_open, range(LEAST_FDS)))

hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (LEAST_FDS, hard))
for n_free in map(int, sys.argv[1:]):
    fillers = [os.dup(0) for _ in range(LEAST_FDS - n_open())]
    for _ in range(n_free):
        os.close(fillers.pop())
    before = n_open()
    try:
        pid, channel_fd = start_agent(inherit=False)
        os.close(channel_fd)
        os.waitpid(pid, 0)
        result = "started"
    except NotSupportedError as error:
        result = "EMFILE" if os.strerror(errno.EMFILE) in str(error) else "not supported"
    print(result, n_open() - before)
    for fd in fillers:
        os.close(fd)
"""


def limited(n: int, command: list[str]) -> list[str]:
    """Return a command whose hard and soft limit of fds is ``n``, meshfd's own among it."""
    return ["sh", "-c", f'ulimit -n {n}; exec "$@"', "sh", *command]


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
@pytest.mark.parametrize("mode", ["highest", "none-left", "lowered"])
@pytest.mark.parametrize("many", [False, True], ids=["few", "many"])
def test_clients(
    many: bool,
    mode: str,
    kind: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
) -> None:
    """A socket at the last number is connected; who has no fd left hears EMFILE where bare."""
    n = resource.getrlimit(resource.RLIMIT_NOFILE)[1] if many else FEW
    path = str(program("fd_limits"))
    way = meshfd.way(greeter.listening)
    bare = processes.run(limited(n, [path, mode, *direct_way(greeter.listening).words]))
    under = processes.run(
        limited(n, meshfd.exec(path, mode, *way.words, options=way.options + kind))
    )
    assert bare.code == 0, bare.err
    assert "greeting: hello" in bare.lines
    assert under.lines == bare.lines, under.err


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
@pytest.mark.parametrize("mode", ["highest-bound", "none-left-bound"])
@pytest.mark.parametrize("many", [False, True], ids=["few", "many"])
def test_daemons(
    many: bool,
    mode: str,
    kind: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
) -> None:
    """A listening socket is handed to the last number, and to who has no fd left."""
    n = resource.getrlimit(resource.RLIMIT_NOFILE)[1] if many else FEW
    port = free_port()
    words = [str(program("fd_limits")), mode, "127.0.0.1", str(port)]
    bare = processes.run(limited(n, words))
    options = ("--listen", f"127.0.0.1:{port}", *kind)
    under = processes.run(limited(n, meshfd.exec(*words, options=options)))
    assert bare.code == 0, bare.err
    assert "bind: 0" in bare.lines
    assert under.lines == bare.lines, under.err


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_agent_with_few(
    kind: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
) -> None:
    """Under the smallest limits either the program is redirected or meshfd says what it lacks.

    An agent that starts and then has no fd for a connection would send it where nobody routed it.
    """
    meshfd.need()
    way = meshfd.way(greeter.listening)
    command = meshfd.exec(program("dial", "static"), *way.words, options=way.options + kind)
    for n in (LEAST_FOR_PYTHON, LEAST_FDS - 1):
        done = processes.run(limited(n, command))
        assert (done.code, done.out) == (125, ""), done.err
        assert done.err.count("\n") == 1
        assert f"needs {LEAST_FDS}" in done.err
    assert processes.run(limited(LEAST_FDS, command)).lines == GREETED


@pytest.mark.parametrize("there", [True, False], ids=["an-agent", "no-agent"])
def test_a_start_leaves_nothing_open(there: bool, meshfd: Meshfd, processes: Processes) -> None:
    """Where it fails for want of fds, or of an agent, those that it had are closed again.

    Two are enough for it: nothing else is opened here.
    """
    meshfd.need()
    free = range(CHANNEL_FDS + 2)
    chosen = [] if there else ["env", f"{AGENT_VARIABLE}=/none"]
    done = processes.run([*chosen, sys.executable, "-c", STARTER, *map(str, free)])
    enough = "started 0" if there else "not supported 0"
    assert done.lines == [enough if n >= CHANNEL_FDS else "EMFILE 0" for n in free], done.err
