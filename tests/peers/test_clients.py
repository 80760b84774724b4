"""Real clients reach a virtual address: a local HTTP server answers them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.builds import Builds
from tests.support.command import (
    KINDS,
    VIRTUAL,
    VIRTUAL_PORT,
    Meshfd,
    Way,
    direct_way,
    without_proxies,
)
from tests.support.configured import start_run
from tests.support.need import require_root, require_tool
from tests.support.processes import Processes
from tests.support.programs import Programs
from tests.support.servers import HttpServer
from tests.support.transition import SERVER4, Transition, open_transition

BLOCKING = """\
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=None)
connection.request("GET", "/")
sys.stdout.write(connection.getresponse().read().decode())
"""

WITH_TIMEOUT = BLOCKING.replace("timeout=None", "timeout=30")

ASYNCIO = """\
import asyncio, sys
async def main():
    reader, writer = await asyncio.open_connection(sys.argv[1], int(sys.argv[2]))
    writer.write(b"GET / HTTP/1.0\\r\\n\\r\\n")
    print((await reader.read()).decode().splitlines()[-1])
    writer.close()
asyncio.run(main())
"""

NODE = """\
require("http").get({host: process.argv[1], port: process.argv[2]}, (answer) => {
  answer.pipe(process.stdout);
});
"""

Command = Callable[[Way, Builds], list[str]]

CLIENTS: dict[str, Command] = {
    "curl": lambda way, _: [require_tool("curl"), "-sS", f"http://{way.host}:{way.port}/"],
    "python": lambda way, _: [sys.executable, "-c", BLOCKING, *way.words],
    "python-timeout": lambda way, _: [sys.executable, "-c", WITH_TIMEOUT, *way.words],
    "asyncio": lambda way, _: [sys.executable, "-c", ASYNCIO, *way.words],
    "node": lambda way, _: [require_tool("node"), "-e", NODE, *way.words],
    "go": lambda way, builds: [builds.go(), "get", f"http://{way.host}:{way.port}/"],
    "java-socket": lambda way, builds: [*builds.java(), "socket", *way.words],
    "java-nio": lambda way, builds: [*builds.java(), "nio", *way.words],
    "java-url": lambda way, builds: [*builds.java(), "url", *way.words],
}


@pytest.fixture(scope="module")
def transition() -> Iterator[Transition]:
    """Make the namespaces. Needs root."""
    require_root()
    with open_transition() as made:
        yield made


@pytest.mark.parametrize("extra", KINDS, ids=str)
@pytest.mark.parametrize("name", CLIENTS)
def test_client(
    name: str,
    extra: tuple[str, ...],
    meshfd: Meshfd,
    builds: Builds,
    processes: Processes,
    http_server: HttpServer,
) -> None:
    """The client gets the local server's answer from the address that nobody has."""
    way = meshfd.way(http_server.listening)
    command = CLIENTS[name](way, builds)
    done = processes.run(meshfd.exec(*command, options=way.options + extra), env=without_proxies())
    assert (done.code, done.out) == (0, "served /\n"), done.err


@pytest.mark.parametrize("extra", [(), ("--strict",), ("--track", "create")], ids=str)
@pytest.mark.parametrize("name", CLIENTS)
def test_client_of_a_unix_socket(
    name: str,
    extra: tuple[str, ...],
    meshfd: Meshfd,
    builds: Builds,
    processes: Processes,
    tmp_path: Path,
) -> None:
    """So it does when the server has nothing but a unix socket."""
    meshfd.need()
    command = CLIENTS[name](Way(VIRTUAL, VIRTUAL_PORT), builds)
    where = tmp_path / "http.sock"
    options = ("--route", f"{VIRTUAL}:{VIRTUAL_PORT}=unix:{where}", *extra)
    with HttpServer(str(where)):
        done = processes.run(meshfd.exec(*command, options=options), env=without_proxies())
    assert (done.code, done.out) == (0, "served /\n"), done.err


@pytest.mark.parametrize("variant", ["", "static", "i386"])
@pytest.mark.parametrize("mode", ["level", "edge", "select", "poll"])
def test_event_loop_of_a_unix_socket(
    mode: str,
    variant: str,
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    tmp_path: Path,
) -> None:
    """A registration made before connect() is about the unix socket that stands in."""
    meshfd.need()
    where = tmp_path / "http.sock"
    way = (VIRTUAL, str(VIRTUAL_PORT))
    options = ("--route", f"{VIRTUAL}:{VIRTUAL_PORT}=unix:{where}")
    with HttpServer(str(where)):
        done = processes.run(
            meshfd.exec(program("event_loop", variant), mode, *way, options=options)
        )
    assert done.lines == ["SO_ERROR: 0", "status: HTTP/1.0 200 OK", "body: served /"], done.err


@pytest.mark.parametrize("track", ["connect", "create"])
@pytest.mark.parametrize("variant", ["", "static", "i386"])
@pytest.mark.parametrize("mode", ["level", "edge", "select", "poll"])
def test_event_loop(
    mode: str,
    variant: str,
    track: str,
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    http_server: HttpServer,
) -> None:
    """A socket that sits in an epoll instance before it is connected keeps its registration."""
    way = meshfd.way(http_server.listening)
    done = processes.run(
        meshfd.exec(
            program("event_loop", variant),
            mode,
            *way.words,
            options=(*way.options, "--track", track),
        )
    )
    assert done.lines == ["SO_ERROR: 0", "status: HTTP/1.0 200 OK", "body: served /"], done.err


@pytest.mark.parametrize("name", CLIENTS)
def test_client_without_ipv4(
    name: str,
    builds: Builds,
    processes: Processes,
    tmp_path: Path,
    transition: Transition,
) -> None:
    """A client that lives without IPv4 is served from an IPv4 address by the one that has it."""
    with HttpServer(host=SERVER4) as server:
        command = CLIENTS[name](direct_way(server.listening), builds)
        if name == "curl":
            command.insert(1, "-4")
        done = start_run(processes, tmp_path, transition.configuration(command)).finish()
    assert (done.code, done.out) == (0, "served /\n"), done.err
