"""The helper process that finds out which sockets a service's processes have.

Usage: python -m meshfd.socket_scan, with a stream socket as standard input, on which a `Question`
comes as JSON, up to the end of what is sent; an `Answer` goes back the same way. Namespaces are
inherited fds.

Theory of operation: the kernel keeps the record. sock_diag(7) tells each socket of a network
namespace with its inode and cookie; which open files a process has, /proc/PID/fd tells, by the same
inode; a service's processes are its agent's descendants, who is their subreaper. So what is told
holds for every socket, whoever made it: by socket(), by meshfd, accepted, or received.

A process of its own, because pyroute2 runs asyncio inside, and because a netlink socket belongs to
the namespace that its maker is in.
Limits: a socket that no process has open any more (TIME_WAIT) is nobody's. MPTCP's are not told,
nor those of processes that we may not look into. ROWS_MAX rows.
Source: sock_diag(7), proc(5), prctl(2) PR_SET_CHILD_SUBREAPER.
"""

from __future__ import annotations

import os
import socket
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import msgspec
from pyroute2 import DiagSocket
from pyroute2.netlink.exceptions import NetlinkError

from meshfd.engine import enter_netns
from meshfd.model import SocketAddress
from meshfd.socket_table import ROWS_MAX, Answer, Owner, Place, Question, SocketRow

CHUNK_BYTES: Final = 1 << 16
_PROTOCOLS: Final = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
_CLOSED: Final = 7
_TCP_STATES: Final = {  # include/net/tcp_states.h
    1: "established",
    2: "syn-sent",
    3: "syn-received",
    4: "fin-wait-1",
    5: "fin-wait-2",
    6: "time-wait",
    _CLOSED: "closed",
    8: "close-wait",
    9: "last-ack",
    10: "listen",
    11: "closing",
    12: "syn-received",
}
_UDP_STATES: Final = {1: "connected", _CLOSED: "unconnected"}


def find_rows(question: Question) -> Answer:
    """Look everywhere. Where we are comes first: from elsewhere there may be no way back."""
    owners = _owners_by_inode(question.owners)
    rows: list[SocketRow] = []
    for place in sorted(question.places, key=lambda one: one.fd is not None):
        try:
            if place.fd is not None:
                enter_netns(place.fd)
            rows += _rows_in(place, owners)
        except OSError as error:
            return Answer(error=f"network namespace {place.title}: {error.strerror}")
        except NetlinkError as error:  # a kernel without udp_diag, for one
            reason = os.strerror(error.code)
            return Answer(error=f"network namespace {place.title}: sock_diag: {reason}")
    rows.sort(key=lambda row: (row.service, row.netns, row.protocol, row.state, row.local))
    return Answer(tuple(rows[:ROWS_MAX]), max(len(rows) - ROWS_MAX, 0))


def _rows_in(place: Place, owners: Mapping[int, tuple[str, int]]) -> Iterator[SocketRow]:
    with DiagSocket() as diag:
        for protocol, number in _PROTOCOLS.items():
            for family in (socket.AF_INET, socket.AF_INET6):
                for told in diag.get_sock_stats(family=family, protocol=number):
                    if told["idiag_inode"] in owners:
                        yield _row(place, protocol, told, *owners[told["idiag_inode"]])


def _row(place: Place, protocol: str, told: Any, service: str, pid: int) -> SocketRow:
    states = _TCP_STATES if protocol == "tcp" else _UDP_STATES
    number = told["idiag_state"]
    return SocketRow(
        service=service,
        protocol=protocol,
        local=_address(told["idiag_src"], told["idiag_sport"]),
        remote=_address(told["idiag_dst"], told["idiag_dport"]) if told["idiag_dport"] else "",
        state=states.get(number, str(number)),
        netns=place.title,
        cookie=told["idiag_cookie"],
        pid=pid,
        uid=told["idiag_uid"],
    )


def _address(ip: str, port: int) -> str:
    return str(SocketAddress(ip_address(ip), port))


def _owners_by_inode(owners: Iterable[Owner]) -> dict[int, tuple[str, int]]:
    """The service that has each socket, and the first of its processes that does, by inode."""
    children = _children()
    found: dict[int, tuple[str, int]] = {}
    for owner in owners:
        # What the agent alone has waits for a program: a listening socket.
        for pid in (*sorted(_descendants(owner.agent_pid, children)), owner.agent_pid):
            for inode in _socket_inodes(pid):
                found.setdefault(inode, (owner.service, pid))
    return found


def _children() -> Mapping[int, list[int]]:
    children: dict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text(errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            _, parent, *_ = stat.rpartition(")")[2].split()
            children[int(parent)].append(int(entry.name))
    return children


def _descendants(pid: int, children: Mapping[int, list[int]]) -> Iterator[int]:
    for child in children.get(pid, ()):
        yield child
        yield from _descendants(child, children)


def _socket_inodes(pid: int) -> Iterator[int]:
    directory = f"/proc/{pid}/fd"
    try:
        names = os.listdir(directory)  # noqa: PTH208 -- many, and paths are slow
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return
    for name in names:
        try:
            target = os.readlink(f"{directory}/{name}")  # noqa: PTH115 -- likewise
        except OSError:
            continue
        if target.startswith("socket:["):
            yield int(target[len("socket:[") : -1])


def main() -> None:
    """Be the helper."""
    with socket.socket(fileno=os.dup(0)) as channel:
        asked = b"".join(iter(lambda: channel.recv(CHUNK_BYTES), b""))
        channel.sendall(msgspec.json.encode(find_rows(msgspec.json.decode(asked, type=Question))))


if __name__ == "__main__":
    main()
