"""A network of the tests' own, for root: nothing else listens there and nothing leaves it.

The loopback interface is the only one. Destinations that cannot be reached are made of loopback
addresses with routes that say so.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.support.need import require, require_root, require_tool
from tests.support.processes import Processes

T = TypeVar("T")

CLONE_NEWNET = 0x40000000  # linux/sched.h
SIOCSIFFLAGS = 0x8914  # linux/sockios.h
IFF_UP = 1
IFREQ_FLAGS = "16sh22x"  # struct ifreq with ifr_flags, 40 bytes

# Addresses that `make_unreachable` gives routes to, by the errno of connect(2) there.
UNREACHABLE = {"EHOSTUNREACH": "127.66.9.1", "ENETUNREACH": "127.66.9.2", "EACCES": "127.66.9.3"}
_ROUTE_TYPES = {"EHOSTUNREACH": "unreachable", "ENETUNREACH": "throw", "EACCES": "prohibit"}


def enter_private_network() -> None:
    """Move this thread, and all that it starts from now on, to a new network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"a network namespace cannot be made: {os.strerror(error)}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack(IFREQ_FLAGS, b"lo", IFF_UP))


def make_unreachable() -> None:
    """Give the addresses of `UNREACHABLE` their routes; more than once does no harm."""
    require_root()
    ip = require_tool("ip")
    for name, address in UNREACHABLE.items():
        command = [ip, "route", "replace", _ROUTE_TYPES[name], f"{address}/32", "table", "local"]
        subprocess.run(command, check=True)


# What `open_wire` opens: an address of ours, one that nobody answers at, a mark that may not pass.
HERE = "10.66.0.1"
NOBODY_HERE = "10.66.0.2"
MARK = 4711
WIRE = "mfdwire0"
_FAR_END = "mfdwire1"
SOUGHT_HERE = "10.66.0.3"  # who has it is asked for ever: what is sent there waits
_FOR_EVER = "1000000"  # questions, one a second
_NOBODYS_HARDWARE = "02:00:00:00:00:01"


@dataclass(frozen=True, slots=True)
class Wire:
    """A device; ``link_local``: its own address, without the scope, ``index`` or ``name``."""

    name: str
    index: int
    link_local: str


def find_sought() -> None:
    """Let what was sent to `SOUGHT_HERE` go."""
    words = ("neigh", "replace", SOUGHT_HERE, "lladdr", _NOBODYS_HARDWARE, "dev", WIRE)
    subprocess.run([require_tool("ip"), *words], check=True)


@contextlib.contextmanager
def open_wire() -> Iterator[Wire]:
    """Lay a wire with two ends here, for as long as the block lasts: what is sent is lost."""
    ip = require_tool("ip")

    def run(*words: str) -> None:
        subprocess.run([ip, *words], check=True)

    run("link", "add", WIRE, "type", "veth", "peer", "name", _FAR_END)
    try:
        for command in (
            f"link set {_FAR_END} up",
            f"link set {WIRE} addrgenmode none",
            f"link set {WIRE} up",
            f"addr add fe80::66/64 dev {WIRE} nodad",
            f"addr add {HERE}/24 dev {WIRE}",
            f"neigh add {NOBODY_HERE} lladdr {_NOBODYS_HARDWARE} dev {WIRE}",
            f"rule add fwmark {MARK} prohibit",
        ):
            run(*command.split())
        Path("/proc/sys/net/ipv4/neigh", WIRE, "mcast_solicit").write_text(_FOR_EVER)
        yield Wire(WIRE, socket.if_nametoindex(WIRE), "fe80::66")
    finally:
        subprocess.run([ip, "rule", "del", "fwmark", str(MARK)], check=False)
        run("link", "del", WIRE)


@contextlib.contextmanager
def open_named() -> Iterator[str]:
    """Make a namespace by name, with its loopback interface up, for as long as the block lasts."""
    require_root()
    ip = require_tool("ip")
    name = f"meshfd-{uuid.uuid4().hex[:8]}"
    subprocess.run([ip, "netns", "add", name], check=True)
    try:
        subprocess.run([ip, "-n", name, "link", "set", "lo", "up"], check=True)
        yield name
    finally:
        subprocess.run([ip, "netns", "delete", name], check=True)


def within(name: str) -> list[str]:
    """Return a command that runs another in this namespace, and changes nothing else."""
    return [require_tool("nsenter"), f"--net=/run/netns/{name}", "--"]


def ask_within(name: str, ask: Callable[[], T]) -> T:
    """Return what ``ask`` returns in this namespace; our other threads stay where they are."""
    return ask_at(Path("/run/netns", name), ask)


def ask_at(path: Path, ask: Callable[[], T]) -> T:
    """Return what ``ask`` returns in the namespace that this file is of, likewise."""

    def enter_and_ask() -> T:
        libc = ctypes.CDLL(None, use_errno=True)
        with path.open() as namespace:
            if libc.setns(namespace.fileno(), CLONE_NEWNET) < 0:
                raise OSError(ctypes.get_errno(), f"setns: {path}")
        return ask()

    with ThreadPoolExecutor(1) as thread:  # the thread ends with the block
        return thread.submit(enter_and_ask).result()


@dataclass(frozen=True, slots=True)
class Network:
    """A network namespace that a process keeps; ``prefix`` is a command that runs others there.

    For an ordinary user a user namespace comes with it, in which he is root.
    """

    keeper: int
    prefix: tuple[str, ...]

    def interfaces(self) -> set[str]:
        """Return the names of the interfaces there."""
        lines = Path("/proc", str(self.keeper), "net/dev").read_text().splitlines()[2:]
        return {line.partition(":")[0].strip() for line in lines}


def in_new_network(processes: Processes) -> list[str]:
    """Return a command that runs another in a network of its own, as root there."""
    words = [require_tool("unshare"), "--net"]
    if os.geteuid() != 0:
        words += ["--user", "--map-root-user"]
    trial = processes.run([*words, "true"])
    require(trial.code == 0, f"no network namespace can be made: {trial.err}")
    return words


def open_network(processes: Processes) -> Network:
    """Make a network namespace, with nothing but a loopback interface that is down."""
    keeper = processes.start([*in_new_network(processes), "sh", "-c", "echo made; exec cat"])
    assert keeper.line() == "made"
    enter = ["--net"] if os.geteuid() == 0 else ["--user", "--preserve-credentials", "--net"]
    return Network(keeper.pid, (require_tool("nsenter"), "--target", str(keeper.pid), *enter))
