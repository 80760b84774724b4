"""Real event loops as clients: proxies, and curl with many transfers, reach a unix socket."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.command import VIRTUAL, VIRTUAL_PORT, Meshfd, written
from tests.support.daemons import Daemon, haproxy_proxy, nginx_proxy
from tests.support.load import ask_once
from tests.support.need import require_tool
from tests.support.ordinary_user import open_to_all
from tests.support.processes import Processes
from tests.support.servers import HttpServer, free_port
from tests.support.waiting import DEADLINE_S, wait_until

N_REQUESTS = 40
N_AT_ONCE = 8

PROXIES: dict[str, Callable[[int, Path, str, int], Daemon]] = {
    "nginx": nginx_proxy,
    "haproxy": haproxy_proxy,
}


@pytest.fixture(autouse=True)
def _about_meshfd(meshfd: Meshfd) -> None:
    meshfd.need()


def options_for(where: Path) -> tuple[str, ...]:
    """Return a route from the virtual address to a unix socket."""
    return ("--route", f"{written(VIRTUAL, VIRTUAL_PORT)}=unix:{where}")


@pytest.mark.parametrize("extra", [(), ("--strict", "--track", "create")], ids=str)
@pytest.mark.parametrize("name", PROXIES)
def test_proxy(
    name: str, extra: tuple[str, ...], meshfd: Meshfd, processes: Processes, tmp_path: Path
) -> None:
    """A proxy that puts its sockets into epoll before it connects them gets every answer."""
    where = open_to_all(tmp_path) / "http.sock"
    daemon = PROXIES[name](free_port(), tmp_path, VIRTUAL, VIRTUAL_PORT)

    def ask(_: int) -> bool:
        with socket.create_connection(("127.0.0.1", daemon.port), DEADLINE_S) as connection:
            return daemon.exchange(connection)

    with HttpServer(str(where)):
        processes.start(meshfd.exec(*daemon.command, options=options_for(where) + extra))
        wait_until(lambda: ask_once(daemon.port, daemon.exchange), "an answer")
        with ThreadPoolExecutor(N_AT_ONCE) as clients:
            assert all(clients.map(ask, range(N_REQUESTS)))


def test_many_transfers(meshfd: Meshfd, processes: Processes, tmp_path: Path) -> None:
    """Transfers that curl makes at once all arrive."""
    where = tmp_path / "http.sock"
    urls = [f"http://{VIRTUAL}:{VIRTUAL_PORT}/{i}" for i in range(N_REQUESTS)]
    command = [require_tool("curl"), "-sS", "--noproxy", "*", "--parallel", "--no-keepalive", *urls]
    with HttpServer(str(where)):
        done = processes.run(meshfd.exec(*command, options=options_for(where)))
    assert sorted(done.lines) == sorted(f"served /{i}" for i in range(N_REQUESTS)), done.err
