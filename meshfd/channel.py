"""Our end of an agent's control channel, for who waits for what comes.

Theory of operation: the channel is a pair of sockets; `meshfd.engine` writes and reads its packets.
Here it is an fd, and the C extension sends and receives: `meshfd exec` has no time to import
Python's socket module. `meshfd.agent`, which does other things meanwhile, has trio's sockets.
Source: native/channel.c; unix(7), SCM_RIGHTS.
"""

from __future__ import annotations

import errno
import os

from meshfd.engine import FDS_MAX, PACKET_MAX, WireError, decode, ffi, lib
from meshfd.errors import AgentLostError

TYPE_CHECKING = False  # see meshfd.records
if TYPE_CHECKING:
    from typing import Final

    from meshfd.engine import Done
    from meshfd.events import Event

_CUT: Final = (-errno.EMSGSIZE, -errno.EMFILE)


def open_channel() -> tuple[int, int]:
    """A channel: our end and the agent's. Both are close-on-exec, and no standard files.

    Raises:
        OSError: EMFILE or ENFILE.

    """
    ours, theirs = ffi.new("int *"), ffi.new("int *")
    _check(lib.mfd_engine_channel_open(ours, theirs))
    return ours[0], theirs[0]


def send_packet(channel_fd: int, packet: bytes, fds: tuple[int, ...]) -> None:
    """Send one packet, and fds, which stay the caller's; wait until there is room for it.

    Raises:
        AgentLostError: the agent is gone.

    """
    error = lib.mfd_engine_channel_send(channel_fd, packet, len(packet), fds, len(fds))
    _check(error)


def receive_packet(channel_fd: int) -> tuple[Done | Event, tuple[int, ...]]:
    """Wait for one packet; the fds that came along are the caller's, and close-on-exec.

    Raises:
        AgentLostError: the agent is gone.
        WireError: it is not sound, or it or its fds could not be had in full.

    """
    packet = ffi.new("uint8_t[]", PACKET_MAX)
    fds, n_fds = ffi.new("int[]", FDS_MAX), ffi.new("size_t *")
    size = lib.mfd_engine_channel_receive(channel_fd, packet, PACKET_MAX, fds, n_fds)
    if size in _CUT:
        raise WireError(f"a packet of the agent's is lost: {os.strerror(-size)}")
    _check(size)
    return read_packet(bytes(ffi.buffer(packet, size))), tuple(fds[0 : n_fds[0]])


def read_packet(packet: bytes) -> Done | Event:
    """What was received, read.

    Raises:
        AgentLostError: it was the end of the channel.

    """
    if not packet:
        raise AgentLostError("the agent ended unexpectedly")
    return decode(packet)


def _check(result: int) -> None:
    if result >= 0:
        return
    error = OSError(-result, os.strerror(-result))
    if isinstance(error, ConnectionError):  # EPIPE, ECONNRESET
        raise AgentLostError("the agent ended unexpectedly") from error
    raise error
