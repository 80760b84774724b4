"""An agent that has no fd left says so, counts what it cannot look into, and goes on afterwards."""

from __future__ import annotations

import errno
import resource
import sys
from typing import Final

import pytest

import meshfd
from meshfd.events import Notice, NoticeKind
from meshfd.model import Track
from tests.support.command import VIRTUAL, address_of
from tests.support.servers import Echoer, Greeter
from tests.support.talking import open_talk

# As many as it polls; what it opened at its start has these numbers, standard files and a few more.
NONE_LEFT = 5

# For each line of input: make that call, say what came of it.
CALLER: Final = """
import errno, os, socket, sys

host = sys.argv[1]
print(os.getppid(), flush=True)
connected = socket.create_connection((host, 80))

def connect():
    with socket.socket() as one:
        return errno.errorcode.get(one.connect_ex((host, 80)), "connected")

def send():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        return one.sendto(b"quiet", (host, 53))

def receive():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.setblocking(False)
        return one.recvfrom(1)

def ask():
    return "as asked" if connected.getpeername()[0] == host else "the endpoint"

for line in sys.stdin:
    if line == "end\\n":
        break
    try:
        result = globals()[line.strip()]()
    except OSError as error:
        result = errno.errorcode[error.errno]
    print(result, flush=True)
"""
USUAL: Final = {"connect": "connected", "send": "5", "receive": "EAGAIN", "ask": "as asked"}
UNROUTED: Final = USUAL | {"connect": "ECONNREFUSED", "ask": "the endpoint"}
REFUSED: Final = USUAL | {"connect": "EACCES", "send": "EACCES", "ask": "the endpoint"}


@pytest.mark.parametrize("track", Track)
@pytest.mark.parametrize("strict", [False, True])
async def test_no_fd_left(strict: bool, track: Track) -> None:
    """Calls go unrouted, in strict they fail; each is counted, and the log has one line of them."""
    with Greeter() as tcp, Echoer() as udp, open_talk() as talk:
        routes = [
            f"{VIRTUAL}:80={address_of(tcp.listening)}",
            f"udp:{VIRTUAL}:53={address_of(udp.socket)}",
        ]
        async with meshfd.spawn(
            (sys.executable, "-c", CALLER, VIRTUAL),
            routes=routes,
            strict=strict,
            track=track,
            transparent=True,
            stdin=talk.stdin_fd,
            stdout=talk.stdout_fd,
        ) as program:
            agent = int(await talk.line())
            soft, hard = resource.prlimit(agent, resource.RLIMIT_NOFILE)

            async def call_all(expected: dict[str, str]) -> None:
                for name, result in expected.items():
                    talk.tell(name)
                    assert await talk.line() == result, name

            await call_all(USUAL)
            assert program.statistics().out_of_reach == 0
            resource.prlimit(agent, resource.RLIMIT_NOFILE, (NONE_LEFT, hard))
            for n in range(1, 3):
                await call_all(REFUSED if strict else UNROUTED)
                assert program.statistics().out_of_reach == n * len(USUAL)
            resource.prlimit(agent, resource.RLIMIT_NOFILE, (soft, hard))
            await call_all(USUAL)
            assert program.statistics().out_of_reach == 2 * len(USUAL)
            talk.tell("end")
            notices = [event async for event in program if isinstance(event, Notice)]
    assert [(one.kind, one.errno) for one in notices] == [(NoticeKind.EXHAUSTED, errno.EMFILE)]
