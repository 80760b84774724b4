"""DNS clients ask a nameserver address that is routed, and get a local server's answer."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from tests.support.builds import Builds
from tests.support.command import VIRTUAL, Meshfd
from tests.support.need import require_tool
from tests.support.processes import Processes
from tests.support.programs import Programs
from tests.support.servers import free_port
from tests.support.waiting import wait_until

NAME = "meshfd-test.example"
ANSWER = "192.0.2.77"

PYTHON = "import socket, sys; print(socket.gethostbyname(sys.argv[1]))"

Command = Callable[[Programs, Builds], list[str]]

# Those that take a nameserver's address are given the virtual one; the C libraries ask whom
# resolv.conf names, and every nameserver leads to ours.
CLIENTS: dict[str, Command] = {
    "glibc": lambda program, _: [str(program("resolve")), f"{NAME}."],
    "glibc-i386": lambda program, _: [str(program("resolve", "i386")), f"{NAME}."],
    "musl": lambda program, _: [str(program("resolve", "musl")), f"{NAME}."],
    "python": lambda *_: [sys.executable, "-c", PYTHON, f"{NAME}."],
    "dig": lambda *_: [require_tool("dig"), "+short", f"@{VIRTUAL}", NAME],
    "go": lambda _, builds: [builds.go(), "resolve", f"{NAME}."],
    "java": lambda _, builds: [*builds.java(), "resolve", VIRTUAL, NAME],
}
# musl's resolver does not connect its socket, and drops answers from other addresses than it asked.
NEEDS_TRANSPARENT = {"musl"}


@pytest.fixture
def nameserver(processes: Processes) -> int:
    """Return the port of a real nameserver that knows one name."""
    port = free_port()
    server = processes.start(
        [
            require_tool("dnsmasq"),
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--pid-file=",
            "--user=",
            "--log-facility=-",
            "--listen-address=127.0.0.1",
            "--bind-interfaces",
            f"--port={port}",
            f"--address=/{NAME}/{ANSWER}",
        ]
    )
    wait_until(lambda: "started" in server.errors(), "the nameserver")
    return port


@pytest.mark.parametrize("extra", [(), ("--transparent",), ("--strict", "--transparent")], ids=str)
@pytest.mark.parametrize("name", CLIENTS)
def test_resolver(
    name: str,
    extra: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    builds: Builds,
    processes: Processes,
    nameserver: int,
) -> None:
    """The name is resolved by the local server."""
    meshfd.need()
    if name in NEEDS_TRANSPARENT and "--transparent" not in extra:
        extra = (*extra, "--transparent")
    options = ("--route", f"udp::53=127.0.0.1:{nameserver}", *extra)
    done = processes.run(meshfd.exec(*CLIENTS[name](program, builds), options=options))
    assert done.lines == [ANSWER], done.err
