"""What meshfd's speed rests on, as facts that can be counted: no test here looks at a clock."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path
from typing import Final

import pytest
import trio

from meshfd.agent import Agent, AgentOptions, open_agent
from meshfd.events import Statistics
from meshfd.features import features_of
from meshfd.model import Track
from meshfd.program import Program
from meshfd.routes import parse_route
from tests.support.programs import Programs
from tests.support.servers import Greeter, listening_socket, port_of
from tests.support.talking import Talk, open_talk
from tests.support.waiting import DEADLINE_S

VIRTUAL: Final = "127.66.0.1"
N_CONNECTS: Final = 2000
RESIDENT_MAX_KIB: Final = 2048

# Connects to the address given, and says so; then does what a program does with a connection.
BUSY: Final = """
import os, select, socket, sys
host, port = sys.argv[1:]
connection = socket.socket()
connection.connect((host, int(port)))
print("connected", connection.getsockname()[1], flush=True)
sys.stdin.readline()
poller = select.epoll()
poller.register(connection, select.EPOLLOUT)
for _ in range(200):
    os.getppid()
    connection.send(b"x")
    connection.recv(1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.getpeername()
    poller.poll(0)
    os.close(os.dup(connection.fileno()))
    left, right = socket.socketpair()
    left.close()
    right.close()
    socket.socket(socket.AF_UNIX).close()
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
connection.close()
print("done", flush=True)
sys.stdin.readline()
"""


async def spawn(agent: Agent, talk: Talk, *words: str | Path) -> None:
    """Start a program that talks to us."""
    argv = tuple(os.fspath(word) for word in words)
    program = Program(argv, tuple(os.environ.items()))
    await agent.spawn(program, stdio=(talk.stdin_fd, talk.stdout_fd, 2), report_listen=False)


def field_of(agent: Agent, name: str) -> int:
    """Return a number from /proc/PID/status, in its unit there."""
    for line in Path(f"/proc/{agent.pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise AssertionError(name)


def faults_of(agent: Agent) -> int:
    """Return how many pages the agent has had to be given so far: proc(5), minflt and majflt."""
    fields = Path(f"/proc/{agent.pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[7]) + int(fields[9])


@pytest.mark.parametrize("track", list(Track))
async def test_nothing_is_trapped_after_connect(track: Track) -> None:
    """Sending, receiving, polling, options, dup, close and other sockets never reach the agent."""
    with listening_socket() as listening, open_talk() as talk:
        async with open_agent(AgentOptions(features_of((), track=track))) as agent:
            await agent.set_routes([parse_route(f"{VIRTUAL}=127.0.0.1:{port_of(listening)}")])
            await spawn(agent, talk, sys.executable, "-c", BUSY, VIRTUAL, "80")
            peer, (_, peer_port) = listening.accept()
            with peer:
                peer.settimeout(DEADLINE_S)
                assert await talk.line() == f"connected {peer_port}"
                before = agent.statistics()
                peer.sendall(b"y" * 200)
                talk.tell("go")
                assert await talk.line() == "done"
                # the agent holds no copy, so the program's close is the end
                got = b"".join(iter(lambda: peer.recv(4096), b""))
            assert got == b"x" * 200
            after = agent.statistics()
    assert after.calls == before.calls
    assert after.sockets == before.sockets


@pytest.mark.parametrize(
    ("track", "n_calls"), [(Track.CONNECT, 1), (Track.CREATE, 2)], ids=["connect", "create"]
)
@pytest.mark.parametrize("target", ["127.0.0.1:{port}", "deny"])
async def test_calls_of_a_connection(
    track: Track, n_calls: int, target: str, program: Programs, greeter: Greeter
) -> None:
    """A connection costs one call to the agent; two where it is to make the socket."""
    with open_talk() as talk:
        async with open_agent(AgentOptions(features_of((), track=track))) as agent:
            target = target.format(port=port_of(greeter.listening))
            await agent.set_routes([parse_route(f"{VIRTUAL}={target}")])
            await spawn(agent, talk, program("hammer"), VIRTUAL, "80", str(N_CONNECTS))
            before = await told(agent, talk)
            after = await told(agent, talk)
    assert after.connects - before.connects == N_CONNECTS
    assert after.calls - before.calls == N_CONNECTS * n_calls


async def told(agent: Agent, talk: Talk) -> Statistics:
    """Have hammer make a round; the counters after it."""
    talk.tell("go")
    while await talk.line() != "done":
        pass
    return agent.statistics()


async def test_nothing_is_allocated_on_the_way(program: Programs, greeter: Greeter) -> None:
    """Once warm, connections cost the agent neither a page nor an fd, and it is small."""
    with open_talk() as talk:
        async with open_agent(AgentOptions()) as agent:
            port = port_of(greeter.listening)
            await agent.set_routes([parse_route(f"{VIRTUAL}=127.0.0.1:{port}")])
            await spawn(agent, talk, program("hammer"), VIRTUAL, "80", str(N_CONNECTS))
            await told(agent, talk)
            faults, size = faults_of(agent), field_of(agent, "VmSize")
            fds = field_of(agent, "FDSize")
            await told(agent, talk)
            assert faults_of(agent) == faults
            assert field_of(agent, "VmSize") == size
            assert field_of(agent, "FDSize") == fds
            if "MESHFD_AGENT" not in os.environ:  # an instrumented one is larger
                assert field_of(agent, "VmRSS") < RESIDENT_MAX_KIB


async def test_reading_statistics_needs_no_agent() -> None:
    """Counters are read without a word to the agent: a stopped one is read as well."""
    with open_talk() as talk:
        async with open_agent(AgentOptions()) as agent:
            await spawn(agent, talk, "sleep", "1000")
            with trio.fail_after(DEADLINE_S):
                while agent.statistics().listeners == 0:  # it counts when it has answered
                    await trio.lowlevel.checkpoint()
            os.kill(agent.pid, signal.SIGSTOP)
            try:
                assert agent.statistics().listeners == 1
            finally:
                os.kill(agent.pid, signal.SIGCONT)


async def test_the_connection_is_direct(greeter: Greeter) -> None:
    """Nothing stands between program and server: the server's peer is the program's own socket."""
    with listening_socket() as listening, open_talk() as talk:
        code = (
            "import socket, sys\n"
            "one = socket.create_connection(('127.66.0.1', 80))\n"
            "print(one.getsockname()[1], one.getpeername()[1], flush=True)\n"
            "sys.stdin.readline()\n"
        )
        async with open_agent(AgentOptions()) as agent:
            await agent.set_routes([parse_route(f"{VIRTUAL}=127.0.0.1:{port_of(listening)}")])
            await spawn(agent, talk, sys.executable, "-c", code)
            peer, address = listening.accept()
            with peer:
                assert await talk.line() == f"{address[1]} {port_of(listening)}"
                assert isinstance(peer, socket.socket)
