"""Nothing of meshfd wakes up while nothing happens.

The kernel counts each thread's context switches. A thread that sleeps has none, so over an interval
in which nothing is asked of meshfd the counts stay. That interval is the only sleep here, and sets
no order: what still goes on after a start, such as a process that is to be forgotten, may spoil it,
and then another is looked at; what comes again and again spoils each.
Limits: a wake-up that comes less often than every OBSERVED_S may go unseen.
Source: proc(5), /proc/PID/task/TID/status.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from tests.support.command import KINDS, VIRTUAL, VIRTUAL_PORT, Meshfd, address_of
from tests.support.processes import Processes, agents_of, switches
from tests.support.servers import Greeter, free_port
from tests.support.services import REDIRECT, Service, Services
from tests.support.waiting import wait_until

OBSERVED_S: Final = 1.0

# Makes a connection that is redirected and sends a datagram that is; then keeps both sockets.
CLIENT: Final = """
import signal, socket, sys
host, port = sys.argv[1], int(sys.argv[2])
stream = socket.create_connection((host, port))
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.sendto(b"x", (host, port))
print(stream.makefile().readline(), end="", flush=True)
signal.pause()
"""
# Is handed its listening socket, and waits for a client that never comes.
DAEMON: Final = """
import socket, sys
listening = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening", flush=True)
listening.accept()
"""
IDLER: Final = "import signal; print('here', flush=True); signal.pause()"


@pytest.fixture(autouse=True)
def _about_meshfd(meshfd: Meshfd) -> None:
    meshfd.need()


def stays_asleep(pids: Sequence[int]) -> bool:
    """Whether no thread of these processes runs for a while."""
    before = switches(pids)
    time.sleep(OBSERVED_S)
    return switches(pids) == before


def says(services: Services, name: str, word: str) -> bool:
    """Whether a service has said this, and nothing else."""
    return services.log(name) == f"{word}\n"


def routes(server: Greeter, port: int) -> dict[str, str]:
    """Return routes from the virtual address to a server, and for datagrams to a port."""
    return {
        f"{VIRTUAL}:{VIRTUAL_PORT}": address_of(server.listening),
        f"udp:{VIRTUAL}:{VIRTUAL_PORT}": f"127.0.0.1:{port}",
    }


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_exec(
    kind: tuple[str, ...], meshfd: Meshfd, processes: Processes, greeter: Greeter
) -> None:
    """`meshfd exec` and its agent sleep while the command does, whose sockets are redirected."""
    options = kind
    for destination, target in routes(greeter, free_port()).items():
        options += ("--route", f"{destination}={target}")
    command = (sys.executable, "-c", CLIENT, VIRTUAL, str(VIRTUAL_PORT))
    running = processes.start(meshfd.exec(*command, options=options))
    assert running.line() == "hello"
    (agent,) = agents_of(running.pid)
    wait_until(lambda: stays_asleep([running.pid, agent]), "sleep")


def test_run(processes: Processes, greeter: Greeter, tmp_path: Path) -> None:
    """`meshfd run` and its agents sleep while its services do."""
    port = free_port()
    table = "".join(f'"{one}" = "{to}"\n' for one, to in routes(greeter, free_port()).items())
    client = [sys.executable, "-c", CLIENT, VIRTUAL, str(VIRTUAL_PORT)]
    services = Services(REDIRECT, processes, tmp_path)
    running = services.run(
        Service("plain", [sys.executable, "-c", IDLER], REDIRECT),
        Service("daemon", [sys.executable, "-c", DAEMON, str(port)], REDIRECT, (port,)),
        Service("client", client, REDIRECT, toml=f"[service.client.routes]\n{table}"),
    )
    for name, said in (("plain", "here"), ("daemon", "listening"), ("client", "hello")):
        wait_until(partial(says, services, name, said), said)
    agents = agents_of(running.pid)
    assert len(agents) == 3
    wait_until(lambda: stays_asleep([running.pid, *agents]), "sleep")
