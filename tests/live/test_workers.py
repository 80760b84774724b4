"""Workers that each bind one address, as SO_REUSEPORT allows, are each handed the one socket."""

from __future__ import annotations

import os
import signal
import socket
import sys

import pytest

from tests.support.command import KINDS, Meshfd
from tests.support.processes import Processes
from tests.support.servers import free_port, read_all
from tests.support.talking import alive
from tests.support.waiting import DEADLINE_S, wait_until

N_WORKERS = 4
N_CLIENTS = 40

# PORT N PROTOCOL: N workers that bind, say how that went, and each tell their clients their pid.
WORKERS = """
import os, socket, sys
port, n, protocol = map(int, sys.argv[1:])
for _ in range(n):
    if os.fork() == 0:
        one = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind(("127.0.0.1", port))
        one.listen(64)
        os.write(1, f"{os.getpid()}\\n".encode())
        while True:
            client, _ = one.accept()
            with client:
                client.sendall(f"{os.getpid()}\\n".encode())
for _ in range(n):
    os.wait()
"""


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
@pytest.mark.parametrize("protocol", [0, 262], ids=["tcp", "mptcp"])
def test_workers(
    protocol: int, kind: tuple[str, ...], meshfd: Meshfd, processes: Processes
) -> None:
    """All of them listen, all clients are served, and go on being served when workers end."""
    port = free_port()
    words = [sys.executable, "-c", WORKERS, str(port), str(N_WORKERS), str(protocol)]
    running = processes.start(meshfd.exec(*words, options=("--listen", f"127.0.0.1:{port}", *kind)))
    workers = [int(running.line()) for _ in range(N_WORKERS)]

    def serving() -> set[int]:
        served = set()
        for _ in range(N_CLIENTS):
            with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as client:
                served.add(int(read_all(client)))
        return served

    assert serving() <= set(workers)
    if meshfd.bare:
        return  # what waited for a worker that ends is reset then; here the queue is everybody's
    for worker in workers[:-1]:
        os.kill(worker, signal.SIGKILL)
    wait_until(lambda: not any(map(alive, workers[:-1])), "the end of the others")
    assert serving() == {workers[-1]}
