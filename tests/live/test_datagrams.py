"""UDP: what a program sees of a routed address is what it would see of a server there."""

from __future__ import annotations

import os
import platform
import signal
import socket
import sys

import pytest

from tests.support.command import VIRTUAL, Meshfd, address_of, written
from tests.support.need import require_root
from tests.support.ordinary_user import as_ordinary_user
from tests.support.processes import Processes, Program, call_of
from tests.support.programs import Programs
from tests.support.servers import Echoer, free_port
from tests.support.waiting import wait_until

VIRTUAL_PORT = 5353
VIRTUALS = {socket.AF_INET: VIRTUAL, socket.AF_INET6: "2001:db8::53"}

WAYS = {
    "transparent": ("--transparent",),
    "strict": ("--transparent", "--strict"),
}
SCENARIOS = ["plain", "limits", "messages", "bulk", "connected"]


def run(processes: Processes, command: list[str]) -> list[str]:
    """Run it to its end; return what it said."""
    done = processes.run(command)
    assert done.code == 0, done.err
    return done.lines


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize(
    ("variant", "way"), [("", "transparent"), ("", "strict"), ("i386", "transparent")]
)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_redirected(
    scenario: str,
    variant: str,
    way: str,
    family: socket.AddressFamily,
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
) -> None:
    """Results, errors, lengths, flags, control messages and addresses are those of a bare run."""
    meshfd.need()
    path = program("datagrams", variant)
    with Echoer(family=family) as server:
        host, port = server.socket.getsockname()[:2]
        bare = run(processes, [str(path), scenario, host, str(port)])
        virtual = VIRTUALS[family]
        route = f"udp:{written(virtual, VIRTUAL_PORT)}={address_of(server.socket)}"
        command = meshfd.exec(
            path, scenario, virtual, str(VIRTUAL_PORT), options=("--route", route, *WAYS[way])
        )
        assert run(processes, command) == bare
    assert "server" in "".join(bare) or scenario == "limits"


@pytest.mark.parametrize("way", WAYS)
def test_passed(way: str, meshfd: Meshfd, program: Programs, processes: Processes) -> None:
    """Where UDP is routed, what goes to other addresses is as in a bare run, too."""
    meshfd.need()
    path = program("datagrams")
    options = ("--route", f"udp:{VIRTUAL}:9=127.0.0.1:9", *WAYS[way])
    with Echoer() as server:
        host, port = server.socket.getsockname()[:2]
        for scenario in SCENARIOS:
            bare = run(processes, [str(path), scenario, host, str(port)])
            command = meshfd.exec(path, scenario, host, str(port), options=options)
            assert run(processes, command) == bare


def test_mixed_families(meshfd: Meshfd, program: Programs, processes: Processes) -> None:
    """An IPv6 socket that names an IPv4 address, and an address without a family, are routed."""
    meshfd.need()
    path = program("datagrams")
    with Echoer() as server:
        host, port = server.socket.getsockname()
        bare = run(processes, [str(path), "mixed", host, str(port)])
        route = f"udp:{VIRTUAL}:{VIRTUAL_PORT}={address_of(server.socket)}"
        command = meshfd.exec(
            path,
            "mixed",
            VIRTUAL,
            str(VIRTUAL_PORT),
            options=("--route", route, "--transparent"),
        )
        assert run(processes, command) == bare


def test_refused(meshfd: Meshfd, program: Programs, processes: Processes) -> None:
    """A connected socket hears of a port where nobody listens."""
    meshfd.need()
    path = program("datagrams")
    port = free_port()
    bare = run(processes, [str(path), "refused", "127.0.0.1", str(port)])
    route = f"udp:{VIRTUAL}:{VIRTUAL_PORT}=127.0.0.1:{port}"
    command = meshfd.exec(
        path, "refused", VIRTUAL, str(VIRTUAL_PORT), options=("--route", route, "--transparent")
    )
    assert run(processes, command) == bare


def wait_in_receive(pid: int) -> None:
    """Return when the program sleeps in recvfrom(): in the kernel's wait, or in meshfd's."""
    number = {"x86_64": 45, "aarch64": 207}[platform.machine()]
    wait_until(lambda: call_of(pid) == number, "the program to wait for a datagram")


def interrupt(running: Program) -> list[str]:
    """Signal a program that waits for a datagram; then have it send one that is answered."""
    lines = [running.line(), running.line()]
    pid = int(running.value("pid"))
    wait_in_receive(pid)
    os.kill(pid, signal.SIGUSR1)
    lines.append(running.line())
    running.tell()
    return lines + running.finish().lines


@pytest.mark.parametrize("scenario", ["handler", "restart"])
def test_waiting_for_a_datagram(
    scenario: str, meshfd: Meshfd, program: Programs, processes: Processes
) -> None:
    """A receive that waits ends by SO_RCVTIMEO, by a handler, or by an answer, under its name."""
    meshfd.need()
    path = program("datagrams")
    with Echoer() as server:
        host, port = server.socket.getsockname()
        bare = interrupt(processes.start([path, scenario, host, str(port)]))
        route = f"udp:{VIRTUAL}:{VIRTUAL_PORT}={address_of(server.socket)}"
        under = interrupt(
            processes.start(
                meshfd.exec(
                    path,
                    scenario,
                    VIRTUAL,
                    str(VIRTUAL_PORT),
                    options=("--route", route, "--transparent"),
                )
            )
        )
    assert sorted(under) == sorted(bare)  # a thread and the handler speak when they can
    assert "handled" in under


@pytest.mark.parametrize("extra", [(), ("--strict",)], ids=str)
def test_rights_of_a_message(
    extra: tuple[str, ...], meshfd: Meshfd, program: Programs, processes: Processes
) -> None:
    """A control message that needs a privilege needs it of the program, not of meshfd's agent."""
    meshfd.need()
    require_root()
    path = program("datagrams")
    with Echoer() as server:
        host, port = server.socket.getsockname()
        route = f"udp:{VIRTUAL}:{VIRTUAL_PORT}={address_of(server.socket)}"
        words = ("marked", VIRTUAL, str(VIRTUAL_PORT))
        options = ("--route", route, *extra)
        bare = processes.run(as_ordinary_user([str(path), "marked", host, str(port)]))
        assert bare.lines == ["send with a mark: EPERM"]
        inner = as_ordinary_user([str(path), *words])
        assert processes.run(meshfd.exec(*inner, options=options)).lines == bare.lines
        privileged = processes.run(meshfd.exec(path, *words, options=options))
        assert privileged.lines == ["send with a mark: 1"]


# Sends twice what the agent does not send, and then what it does.
TOO_MUCH = """
import errno, socket, sys
to = sys.argv[1], int(sys.argv[2])
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.setsockopt(socket.SOL_SOCKET, 60, 1)  # asm-generic/socket.h: SO_ZEROCOPY
def tell(step, call, *words):
    try:
        print(step, call(*words))
    except OSError as error:
        print(step, errno.errorcode[error.errno])
tell("without copying:", client.sendto, b"quiet", 0x4000000, to)
marks = [(socket.SOL_SOCKET, 36, bytes(4))] * 200
tell("much control:", client.sendmsg, [b"quiet"], marks, 0, to)
tell("plain:", client.sendto, b"quiet", to)
"""


@pytest.mark.parametrize("extra", [(), ("--strict",)], ids=str)
def test_no_room(extra: tuple[str, ...], meshfd: Meshfd, processes: Processes) -> None:
    """(README, limits.) Without copying, or with much control data, a send fails with ENOBUFS."""
    meshfd.need()
    words = [sys.executable, "-c", TOO_MUCH, VIRTUAL, str(VIRTUAL_PORT)]
    with Echoer() as server:
        route = f"udp:{VIRTUAL}:{VIRTUAL_PORT}={address_of(server.socket)}"
        done = processes.run(meshfd.exec(*words, options=("--route", route, *extra)))
        wait_until(lambda: server.n_heard > 0, "the datagram that is sent")
        assert server.n_heard == 1
    assert done.lines == ["without copying: ENOBUFS", "much control: ENOBUFS", "plain: 5"]


def test_denied(meshfd: Meshfd, program: Programs, processes: Processes) -> None:
    """A denied address fails with its errno by every call; nothing arrives."""
    meshfd.need()
    with Echoer() as server:
        host, port = server.socket.getsockname()
        command = meshfd.exec(
            program("datagrams"),
            "connected",
            host,
            str(port),
            options=("--route", f"udp:{host}:{port}=deny=EACCES"),
        )
        running = processes.start(command)
        assert running.value("send before") == "EDESTADDRREQ"
        assert running.value("connect") == "EACCES"
        running.finish()
        done = processes.run(
            meshfd.exec(
                program("datagram"),
                host,
                str(port),
                options=("--route", f"udp:{host}:{port}=deny=EPERM"),
            )
        )
        assert done.lines == ["sendto: EPERM", "sendmsg: EPERM", "sendmmsg: EPERM"]
        assert server.n_heard == 0
