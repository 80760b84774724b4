"""What the kernel tells about sockets to whoever asks, without asking their programs: sock_diag(7).

A socket is found by its inode, which fstat(2) tells. Only those of the asker's network namespace
are told.
Source: linux/inet_diag.h, linux/unix_diag.h, linux/netlink.h.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_SOCK_DIAG: Final = 4  # NETLINK_SOCK_DIAG
_BY_FAMILY: Final = 20  # SOCK_DIAG_BY_FAMILY
_DUMP: Final = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_ERROR: Final = 2  # NLMSG_ERROR
_DONE: Final = 3  # NLMSG_DONE
_HEADER: Final = struct.Struct("=IHHII")  # struct nlmsghdr
_ATTRIBUTE: Final = struct.Struct("=HH")  # struct nlattr
_ALL_STATES: Final = 0xFFFFFFFF
_ROOM_BYTES: Final = 1 << 16

_INET_REQUEST: Final = struct.Struct("=BBBxI48x")  # struct inet_diag_req_v2
_INET: Final = struct.Struct("=BBxx36xI20xII")  # struct inet_diag_msg
_EXTENSIONS: Final = 1 << 5 | 1 << 7  # INET_DIAG_TCLASS (CLASS_ID, too), INET_DIAG_SHUTDOWN
_SHUTDOWN: Final = 8
_MARK: Final = 15
_CLASS_ID: Final = 17
_CGROUP_ID: Final = 21

_UNIX_REQUEST: Final = struct.Struct("=BxxxIII8x")  # struct unix_diag_req
_UNIX: Final = struct.Struct("=BBBxI8x")  # struct unix_diag_msg
_SHOW: Final = 0x40  # UDIAG_SHOW_UID
_UNIX_SHUTDOWN: Final = 6
_UNIX_UID: Final = 7


@dataclass(frozen=True, slots=True)
class Told:
    """What is told of a socket, but for what differs from one to the next; None: nothing is.

    ``device``: index of the one that it is bound to. ``cgroup``: an inode. ``class_id``: net_cls's,
    or, where that is 0, SO_PRIORITY.
    """

    family: int
    state: int
    uid: int
    shutdown: int | None = None
    device: int | None = None
    mark: int | None = None
    class_id: int | None = None
    cgroup: int | None = None


def find_sockets(*families: int) -> dict[int, Told]:
    """Return what is told of all sockets of these address families, by their inodes."""
    found: dict[int, Told] = {}
    for family in families:
        if family == socket.AF_UNIX:
            found.update(_find_unix())
            continue
        for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
            found.update(_find_inet(family, protocol))
    return found


def _find_inet(family: int, protocol: int) -> Iterator[tuple[int, Told]]:
    for one in _dump(_INET_REQUEST.pack(family, protocol, _EXTENSIONS, _ALL_STATES)):
        family, state, device, uid, inode = _INET.unpack_from(one)
        numbers = _attributes(one[_INET.size :])
        yield (
            inode,
            Told(
                family,
                state,
                uid,
                shutdown=numbers.get(_SHUTDOWN),
                device=device,
                mark=numbers.get(_MARK),
                class_id=numbers.get(_CLASS_ID),
                cgroup=numbers.get(_CGROUP_ID),
            ),
        )


def _find_unix() -> Iterator[tuple[int, Told]]:
    for one in _dump(_UNIX_REQUEST.pack(socket.AF_UNIX, _ALL_STATES, 0, _SHOW)):
        family, _, state, inode = _UNIX.unpack_from(one)
        numbers = _attributes(one[_UNIX.size :])
        yield inode, Told(family, state, numbers[_UNIX_UID], numbers.get(_UNIX_SHUTDOWN))


def _dump(request: bytes) -> Iterator[bytes]:
    """Ask, and give each answer without its header."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as asking:
        asking.send(_HEADER.pack(_HEADER.size + len(request), _BY_FAMILY, _DUMP, 1, 0) + request)
        while True:
            rest = asking.recv(_ROOM_BYTES)
            while rest:
                size, kind, *_ = _HEADER.unpack_from(rest)
                body, rest = rest[_HEADER.size : size], rest[_padded(size) :]
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    error = -int.from_bytes(body[:4], "little", signed=True)
                    raise OSError(error, f"sock_diag: {os.strerror(error)}")
                yield body


def _attributes(data: bytes) -> dict[int, int]:
    """Return those that are there, as numbers."""
    found = {}
    while len(data) >= _ATTRIBUTE.size:
        size, kind = _ATTRIBUTE.unpack_from(data)
        found[kind] = int.from_bytes(data[_ATTRIBUTE.size : size], "little")
        data = data[_padded(size) :]
    return found


def _padded(size: int) -> int:
    return (size + 3) & ~3
